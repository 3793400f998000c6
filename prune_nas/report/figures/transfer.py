"""A transferred rule: the pattern it was read from, the rule itself, and the widths that it gives another network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prune_nas.design.patterns import Pattern
from prune_nas.design.rules import Rule
from prune_nas.design.space import Space, Widths
from prune_nas.report.figures import style

_MARKERS = "osD^v<>p"
_COLOURS = (style.VERMILION, style.BLACK, style.GREY, style.LIGHT)


def transfer(patterns: Sequence[Pattern], rule: Rule, space: Space, widths: Mapping[str, Widths]) -> Figure:
    """Keep ratios and rule over stage and depth above, the target's widths beside its base below.

    Args:
        patterns: what the rule was fitted on; may be empty, as for a rule file.
        rule: the rule.
        space: the target's.
        widths: budget -> the target's widths.
    """
    figure = style.figure(7.5, 5.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 1.1))
    _rule(upper, patterns, rule, space)
    _widths(lower, space, widths)
    figure.suptitle(f"{rule.kind}: from its source to {space.model}", x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside right upper")
    return figure


def _rule(axes: Axes, patterns: Sequence[Pattern], rule: Rule, space: Space) -> None:
    stages = rule.stages or (patterns[0].stages if patterns else space.stages)
    for number, pattern in enumerate(patterns):
        x = np.array([ratio.stage for ratio in pattern.ratios]) + _spot(np.array([r.depth for r in pattern.ratios]))
        y = [100 * ratio.keep for ratio in pattern.ratios]
        marker = _MARKERS[number % len(_MARKERS)]
        label = "pattern:\n" + pattern.name.replace(" ", "\n").replace(",", ",\n")
        axes.scatter(x, y, marker=marker, s=26, facecolor="none", edgecolor=style.BLACK, label=label)
    depth = np.linspace(0, 1, 21)
    for stage in range(stages):
        y = [100 * rule.keep(stage, d) for d in depth]
        axes.plot(stage + _spot(depth), y, color=style.VERMILION, linewidth=2, label="the rule" if stage == 0 else None)
    axes.set_xticks([stage + 0.5 for stage in range(stages)], [f"stage {stage + 1}" for stage in range(stages)])
    axes.tick_params(axis="x", length=0)
    for stage in range(1, stages):
        axes.axvline(stage, color=style.LIGHT, linewidth=0.8, zorder=0)
    axes.set_ylim(0, None)
    axes.set_ylabel("kept, %")
    style.grid(axes)


def _spot(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a depth in [0, 1] is drawn within its stage, which is one unit wide."""
    return 0.1 + 0.8 * depth


def _widths(axes: Axes, space: Space, widths: Mapping[str, Widths]) -> None:
    places = np.arange(len(space.slots))
    base = [space.base[slot.name] for slot in space.slots]
    axes.bar(places, base, 0.9, facecolor="none", edgecolor=style.GREY, label="base")
    each = 0.8 / len(widths)
    for i, (budget, own) in enumerate(widths.items()):
        y = [own[slot.name] for slot in space.slots]
        left = places + (i - (len(widths) - 1) / 2) * each
        axes.bar(left, y, each, color=_COLOURS[i % len(_COLOURS)], label=budget.replace(",", ",\n"))
    axes.set_xlim(-0.7, len(places) - 0.3)
    firsts = {slot.stage: i for i, slot in reversed(list(enumerate(space.slots)))}
    axes.set_xticks(list(firsts.values()), [str(stage + 1) for stage in firsts])
    axes.set_ylabel("channels")
    axes.set_xlabel(f"slots of {space.model}; a stage's number stands at its first")
    style.grid(axes)
