"""Transferred rules: the patterns they were read from, the rules themselves, and the widths they give another net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Shown:
    """What one budget asks of the figure: its rule, the patterns behind that (none for a rule file), the widths."""

    budget: str
    rule: Rule
    patterns: tuple[Pattern, ...]
    widths: Widths


def transfer(space: Space, budgets: Sequence[Shown]) -> Figure:
    """Each distinct rule over stage and depth above, in its budget's colour; the target's widths beside its base below.

    Args:
        space: the target's.
        budgets: what is drawn of each budget.
    """
    groups: list[list[int]] = []  # places of the budgets that share a rule
    for i, shown in enumerate(budgets):
        own = next((group for group in groups if budgets[group[0]].rule == shown.rule), None)
        if own is None:
            groups.append([i])
        else:
            own.append(i)
    figure = style.figure(max(7.5, 2.6 * len(groups)), 5.6)
    grid = figure.add_gridspec(2, len(groups), height_ratios=(1, 1.1))
    first = figure.add_subplot(grid[0, 0])
    for column, group in enumerate(groups):
        axes = figure.add_subplot(grid[0, column], sharey=first) if column else first
        one = len(groups) == 1
        _rule(axes, budgets[group[0]], space, style.BLACK if one else _COLOURS[group[0] % len(_COLOURS)], column == 0)
        if not one:
            axes.set_title(budgets[group[0]].budget, loc="left", fontsize=9)
    first.set_ylabel("kept, %")
    _widths(figure.add_subplot(grid[1, :]), space, budgets)
    kinds = ", ".join(dict.fromkeys(shown.rule.kind for shown in budgets))
    figure.suptitle(f"{kinds}: from its source to {space.model}", x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside right upper")
    return figure


def _rule(axes: Axes, shown: Shown, space: Space, colour: str, labelled: bool) -> None:
    rule, patterns = shown.rule, shown.patterns
    stages = rule.stages or (patterns[0].stages if patterns else space.stages)
    for number, pattern in enumerate(patterns):
        x = np.array([ratio.stage for ratio in pattern.ratios]) + _spot(np.array([r.depth for r in pattern.ratios]))
        y = [100 * ratio.keep for ratio in pattern.ratios]
        marker = _MARKERS[number % len(_MARKERS)]
        label = "pattern:\n" + pattern.name.partition(" ")[0] if labelled else None
        axes.scatter(x, y, marker=marker, s=26, facecolor="none", edgecolor=style.GREY, label=label)
    depth = np.linspace(0, 1, 21)
    for stage in range(stages):
        y = [100 * rule.keep(stage, d) for d in depth]
        label = "its rule" if labelled and stage == 0 else None
        axes.plot(stage + _spot(depth), y, color=colour, linewidth=2, label=label)
    axes.set_xticks([stage + 0.5 for stage in range(stages)], [str(stage + 1) for stage in range(stages)])
    axes.set_xlabel("stage of the source")
    axes.tick_params(axis="x", length=0)
    for stage in range(1, stages):
        axes.axvline(stage, color=style.LIGHT, linewidth=0.8, zorder=0)
    axes.set_ylim(0, None)
    style.grid(axes)


def _spot(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a depth in [0, 1] is drawn within its stage, which is one unit wide."""
    return 0.1 + 0.8 * depth


def _widths(axes: Axes, space: Space, budgets: Sequence[Shown]) -> None:
    places = np.arange(len(space.slots))
    base = [space.base[slot.name] for slot in space.slots]
    axes.bar(places, base, 0.9, facecolor="none", edgecolor=style.GREY, label="base")
    each = 0.8 / len(budgets)
    for i, shown in enumerate(budgets):
        y = [shown.widths[slot.name] for slot in space.slots]
        left = places + (i - (len(budgets) - 1) / 2) * each
        axes.bar(left, y, each, color=_COLOURS[i % len(_COLOURS)], label=shown.budget.replace(",", ",\n"))
    axes.set_xlim(-0.7, len(places) - 0.3)
    firsts = {slot.stage: i for i, slot in reversed(list(enumerate(space.slots)))}
    axes.set_xticks(list(firsts.values()), [str(stage + 1) for stage in firsts])
    axes.set_ylabel("channels")
    axes.set_xlabel(f"slots of {space.model}; a stage's number stands at its first")
    style.grid(axes)
