"""A rule against the pattern that it stands for: what each stage keeps, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prune_nas.design.rules import Rule
from prune_nas.report.figures import style
from prune_nas.report.figures.widths import runs_of

COLUMNS = ("rule", "stage", "depth", "keep", "uncertain")


def line(name: str, rule: Rule, stages: int, spread: Sequence[float], residual: float) -> pd.DataFrame:
    """A rule as points of `COLUMNS`.

    `uncertain` is the standard deviation of a stage over several patterns, or where there is one pattern, the root
    mean square of what the rule leaves of it.
    """
    rows = [
        (name, stage, depth, rule.keep(stage, depth), spread[stage] if stage < len(spread) else residual)
        for stage in range(stages)
        for depth in np.linspace(0, 1, 11)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rule(rules: pd.DataFrame, slots: pd.DataFrame, budget: str, stages: Sequence[str] = ()) -> Figure:
    """Rules with their uncertainty, and the slots of this network beside what they make of them.

    Args:
        rules: `COLUMNS`, one or two rules (a transferred one first).
        slots: the lines of `widths.csv` of one budget, with the arms that there are of pruned, guided, transferred.
        budget: its text, for the title.
        stages: the names of this network's stages; by default their numbers.
    """
    names = list(rules["rule"].unique())
    figure = style.figure(max(9.5, min(15.0, 5.0 + 0.35 * len(slots))), 3.9)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for number, name in enumerate(names):
        one = rules[rules["rule"] == name]
        largest = max(float(one["keep"].max()), 1.0)  # above 1 only its ratios mean something
        scaled = one.assign(keep=one["keep"] / largest, uncertain=one["uncertain"] / largest)
        _rule(left, scaled, style.look(name).colour, name, number)
    deep = int(rules["stage"].max()) + 1
    left.set_xticks([stage + 0.5 for stage in range(deep)], [str(stage + 1) for stage in range(deep)])
    left.set_xlabel("stage of the rule")
    left.set_title("the rule, before any budget")
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set_ylim(0, 1.05)
    left.set_ylabel("kept of ceiling")
    _slots(right, slots, stages)
    for axes in (left, right):
        axes.tick_params(axis="x", length=0)
        style.grid(axes)
    figure.suptitle(f"Rule and pattern under {budget}", x=0.01, ha="left", fontsize=11)
    handles = {label: h for axes in (left, right) for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    several = "its standard deviation over the patterns, or of one pattern around it"
    style.note(figure, f"Shaded: the rule plus and minus {several}.")
    figure.legend(list(handles.values()), list(handles), loc="outside right upper")
    return figure


def _rule(axes: Axes, one: pd.DataFrame, colour: str, name: str, number: int) -> None:
    label = f"rule: {name}"
    for _, stage in one.groupby("stage"):
        x = stage["stage"] + 0.08 + 0.84 * stage["depth"]
        axes.fill_between(x, stage["keep"] - stage["uncertain"], stage["keep"] + stage["uncertain"], color=colour,
                          alpha=0.25, linewidth=0)  # fmt: skip
        axes.plot(x, stage["keep"], color=colour, linewidth=2, linestyle=("-", "--")[number % 2], label=label)


def _slots(axes: Axes, slots: pd.DataFrame, stages: Sequence[str]) -> None:
    x = np.arange(len(slots))
    for arm in ("pruned", "guided", "transferred"):
        if arm in slots and slots[arm].notna().all():
            look, ratio = style.look(arm), slots[arm] / slots["ceiling"]
            if arm == "pruned":
                axes.plot(
                    x, ratio, color=look.colour, marker=look.marker, linestyle="none", label="pruned: the pattern"
                )
            else:
                axes.step(
                    x,
                    ratio,
                    where="mid",
                    color=look.colour,
                    linewidth=1.8,
                    linestyle=(0, (4, 1)),
                    label=f"{arm}: the rule\nwithin the budget",
                )
    runs = list(runs_of(slots["stage"].astype(int).tolist()))
    for _, first, _ in runs:
        if first:
            axes.axvline(first - 0.5, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    axes.set_xticks([(first + last) / 2 for _, first, last in runs],
                    [stages[s] if s < len(stages) else str(s + 1) for s, _, _ in runs])  # fmt: skip
    axes.set_xlabel("slots of this network, by stage")
    axes.set_title("this network, within the budget")
