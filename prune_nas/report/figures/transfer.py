"""Transferred rules: the patterns they were read from, the rules themselves, and the widths they give another net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prune_nas.design.patterns import Pattern
from prune_nas.design.rules import Rule
from prune_nas.design.space import Space, Widths
from prune_nas.report.figures import style

BASE = "base"  # in the column of budgets
_MARKERS = "osD^v<>p"
_COLOURS = (style.VERMILION, style.BLACK, style.GREY, style.LIGHT)
_POINTS = 21  # of a rule within a stage


@dataclass(frozen=True, slots=True)
class Tables:
    """What the figure is drawn from.

    `rules` has `budget, kind, stage, depth, keep`, budgets that share a rule under the first of them; `patterns`, which
    the rules were read from (none for a rule file), `budget, pattern, slot, stage, depth, keep`; `widths`, the
    target's, `budget, slot, stage, width`, with the lines of `BASE`.
    """

    rules: pd.DataFrame
    patterns: pd.DataFrame
    widths: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Shown:
    """What one budget asks of the figure: its rule, the patterns behind that (none for a rule file), the widths."""

    budget: str
    rule: Rule
    patterns: tuple[Pattern, ...]
    widths: Widths


def tables(space: Space, budgets: Sequence[Shown]) -> Tables:
    """What the figure is drawn from, for a target's space."""
    rules, patterns, drawn = [], [], list[Rule]()
    for shown in budgets:
        if shown.rule in drawn:
            continue
        drawn.append(shown.rule)
        stages = shown.rule.stages or (shown.patterns[0].stages if shown.patterns else space.stages)
        rules += [
            (shown.budget, shown.rule.kind, stage, float(depth), shown.rule.keep(stage, float(depth)))
            for stage in range(stages)
            for depth in np.linspace(0, 1, _POINTS)
        ]
        patterns += [(shown.budget, p.name, r.slot, r.stage, r.depth, r.keep) for p in shown.patterns for r in p.ratios]
    every = [(BASE, space.base), *((shown.budget, shown.widths) for shown in budgets)]
    widths = [(budget, slot.name, slot.stage, own[slot.name]) for budget, own in every for slot in space.slots]
    return Tables(
        pd.DataFrame(rules, columns=["budget", "kind", "stage", "depth", "keep"]),
        pd.DataFrame(patterns, columns=["budget", "pattern", "slot", "stage", "depth", "keep"]),
        pd.DataFrame(widths, columns=["budget", "slot", "stage", "width"]),
    )


def transfer(rules: pd.DataFrame, patterns: pd.DataFrame, widths: pd.DataFrame, source: str, target: str) -> Figure:
    """Each distinct rule over stage and depth above, in its budget's colour; the target's widths beside its base below.

    Args:
        rules: as `Tables` has them.
        patterns: as `Tables` has them; may be empty.
        widths: as `Tables` has them.
        source: where the rules come from, for the title.
        target: the network that they go to.
    """
    budgets = [str(budget) for budget in widths["budget"].unique() if budget != BASE]
    colours = {budget: _COLOURS[i % len(_COLOURS)] for i, budget in enumerate(budgets)}
    groups = list(rules["budget"].unique())
    figure = style.figure(max(7.5, 2.6 * len(groups)), 5.6)
    grid = figure.add_gridspec(2, len(groups), height_ratios=(1, 1.1))
    first = figure.add_subplot(grid[0, 0])
    for column, budget in enumerate(groups):
        axes = figure.add_subplot(grid[0, column], sharey=first) if column else first
        own, read = rules[rules["budget"] == budget], patterns[patterns["budget"] == budget]
        _rule(axes, own, read, colours[budget] if len(groups) > 1 else style.BLACK, labelled=column == 0)
        if len(groups) > 1:
            axes.set_title(budget, loc="left", fontsize=9)
    first.set_ylabel("kept, %")
    _widths(figure.add_subplot(grid[1, :]), widths, colours, target)
    figure.suptitle(f"{', '.join(rules['kind'].unique())} of {source}, on {target}", x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside right upper")
    return figure


def _rule(axes: Axes, rule: pd.DataFrame, patterns: pd.DataFrame, colour: str, *, labelled: bool) -> None:
    for number, (name, own) in enumerate(patterns.groupby("pattern", sort=False)):
        marker = _MARKERS[number % len(_MARKERS)]
        label = "pattern:\n" + str(name).partition(" ")[0] if labelled else None
        axes.scatter(_spot(own), 100 * own["keep"], marker=marker, s=26, facecolor="none", edgecolor=style.GREY,
                     label=label)  # fmt: skip
    for stage, own in rule.groupby("stage"):
        label = "its rule" if labelled and stage == 0 else None
        axes.plot(_spot(own), 100 * own["keep"], color=colour, linewidth=2, label=label)
    stages = rule["stage"].nunique()
    axes.set_xticks([stage + 0.5 for stage in range(stages)], [str(stage + 1) for stage in range(stages)])
    axes.set_xlabel("stage of the source")
    axes.tick_params(axis="x", length=0)
    for stage in range(1, stages):
        axes.axvline(stage, color=style.LIGHT, linewidth=0.8, zorder=0)
    axes.set_ylim(0, None)
    style.grid(axes)


def _spot(frame: pd.DataFrame) -> pd.Series[float]:
    """Where a depth in [0, 1] is drawn within its stage, which is one unit wide."""
    return frame["stage"] + 0.1 + 0.8 * frame["depth"]


def _widths(axes: Axes, widths: pd.DataFrame, colours: dict[str, str], target: str) -> None:
    base = widths[widths["budget"] == BASE]
    places = np.arange(len(base))
    axes.bar(places, base["width"], 0.9, facecolor="none", edgecolor=style.GREY, label=BASE)
    each = 0.8 / len(colours)
    for i, (budget, colour) in enumerate(colours.items()):
        left = places + (i - (len(colours) - 1) / 2) * each
        own = widths.loc[widths["budget"] == budget, "width"]
        axes.bar(left, own, each, color=colour, label=budget.replace(",", ",\n"))
    axes.set_xlim(-0.7, len(places) - 0.3)
    firsts = {stage: i for i, stage in reversed(list(enumerate(base["stage"])))}
    axes.set_xticks(list(firsts.values()), [str(stage + 1) for stage in firsts])
    axes.set_ylabel("channels")
    axes.set_xlabel(f"slots of {target} (the number of a stage stands at its first slot)")
    style.grid(axes)
