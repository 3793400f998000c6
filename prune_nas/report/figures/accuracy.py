"""Test accuracy of every arm and schedule against what the network costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from prune_nas.report.figures import style
from prune_nas.report.tables import merged, millions, quantity

COSTS = {"macs": "multiply-accumulates", "params": "parameters", "latency": "latency, ms"}
FILLS = {"scratch-e": "hollow", "scratch-b": "full", "fine-tune": "left", "rewind": "top"}
SIZES = (8.0, 6.2, 4.8, 3.6, 2.6)  # of the marks of the first and further budgets
SPAN = math.log(2.5)  # the least ratio of the dearest arm to the cheapest that an axis shows
MARGIN = 0.18  # free room at either end of an axis, of that ratio
TICKS = {0.9: (1, 1.5, 2, 3, 5, 7), 2.0: (1, 2, 5), math.inf: (1,)}  # decades up to which these digits are ticks
SAMPLE = "any arm"  # the legend shows fills and sizes on it


def accuracy(frame: pd.DataFrame) -> Figure:
    """Panels of accuracy against macs, params and latency; the base is a level, since it lies off to the right.

    Every mark stands at its cost. Arms that are one network are one mark with all their names. One arm under several
    budgets is joined by a line.

    Args:
        frame: what `tables.results` or `tables.merged` returns; with a column `latency` in ms (NaN where it was not
            measured) there is a third panel, with a column `run` a row of panels for each run, all on the same axes.
    """
    frame = merged(frame) if "candidate" in frame else frame
    base = frame[frame["arm"] == "base"]
    arms = frame[frame["arm"] != "base"].reset_index(drop=True)
    timed = "latency" in arms and arms["latency"].notna().sum() > 1
    costs = {cost: words for cost, words in COSTS.items() if cost != "latency" or timed}
    runs = list(arms["run"].unique()) if "run" in arms else [None]
    figure = style.figure(3.6 * len(costs) + 2.8, 5.4 if len(runs) == 1 else 1 + 3.2 * len(runs))
    grid = figure.subplots(len(runs), len(costs), sharex="col", sharey=True, squeeze=False)
    for row, run in zip(grid, runs, strict=True):
        own = arms if run is None else arms[arms["run"] == run]
        level = base if run is None or "run" not in base else base[base["run"] == run]
        for axes, (cost, words) in zip(row, costs.items(), strict=True):
            known = own[own[cost].notna()].reset_index(drop=True)
            if len(known):
                _panel(axes, known, cost, _sizes(arms))
            _cost_axis(axes, arms.loc[arms[cost].notna(), cost].tolist())
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if cost == "latency" else EngFormatter(sep=""))
            if run == runs[-1]:
                axes.set_xlabel(f"{words} (log scale)")
            if len(level):
                at = 100 * level["test_accuracy"].iloc[0]
                axes.axhline(at, color=style.BLACK, linewidth=1, linestyle=(0, (5, 3)))
            style.grid(axes)
        row[0].set_ylabel("test accuracy, %")
        if run is not None:
            row[0].set_title(run, loc="left")
    figure.suptitle("Test accuracy of every arm against its cost", x=0.01, ha="left", fontsize=11)
    figure.legend(handles=_legend(arms, base), loc="outside right upper", labelspacing=0.6)
    style.note(figure, _caption(arms))
    return figure


def front(frame: pd.DataFrame, cost: str) -> list[int]:
    """The rows of `frame` that no other row beats in both validation accuracy and `cost`, from cheap to dear."""
    rows = frame.sort_values([cost, "val_accuracy"], ascending=[True, False])
    best, kept = -np.inf, []
    for index, value in rows["val_accuracy"].items():
        if value > best:
            best = value
            kept.append(int(str(index)))
    return kept


def _length(costs: Sequence[float]) -> float:
    """The length of an axis that shows these costs, as a natural logarithm."""
    return (1 + 2 * MARGIN) * max(SPAN, math.log(max(costs) / min(costs)))


def _panel(axes: Axes, arms: pd.DataFrame, cost: str, sizes: dict[str, float]) -> None:
    costs, tests, stds = arms[cost].tolist(), 100 * arms["test_accuracy"], 100 * arms["std"]
    for i, row in enumerate(arms.to_dict("records")):
        mark = _mark(row["arm"], row["schedule"], sizes[row["budget"]])
        spread = None if pd.isna(stds[i]) else stds[i]
        axes.errorbar(costs[i], tests[i], yerr=spread, elinewidth=1, capsize=2, zorder=3, **mark)
    for (arm, _), own in arms.groupby(["arm", "schedule"], sort=False):
        order = own[cost].argsort()
        if own["budget"].nunique() > 1:
            x, y = np.array(costs)[own.index][order], tests[own.index].to_numpy()[order]
            axes.plot(x, y, color=style.look(str(arm)).colour, linewidth=0.7, alpha=0.7, zorder=2)
    lines = front(arms, cost)
    axes.plot(np.array(costs)[lines], tests[lines], color=style.LIGHT, linewidth=3, zorder=1)


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    length, middle = _length(costs), math.sqrt(min(costs) * max(costs))
    axes.set_xscale("log")
    axes.set_xlim(middle * math.exp(-length / 2), middle * math.exp(length / 2))
    subs = next(digits for most, digits in TICKS.items() if length / math.log(10) <= most)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())


def _sizes(arms: pd.DataFrame) -> dict[str, float]:
    return {budget: SIZES[min(i, len(SIZES) - 1)] for i, budget in enumerate(arms["budget"].unique())}


def _mark(arm: str, schedule: str, size: float = SIZES[0]) -> dict[str, Any]:
    colour, marker = style.look(arm)
    fill = FILLS.get(schedule, "bottom")
    return {
        "color": colour,
        "marker": marker,
        "fillstyle": "full" if fill == "hollow" else fill,
        "markerfacecolor": "white" if fill == "hollow" else colour,
        "markerfacecoloralt": "white",
        "markeredgecolor": colour,
        "markersize": size,
        "markeredgewidth": 1.3,
        "linestyle": "none",
    }


def _legend(arms: pd.DataFrame, base: pd.DataFrame) -> list[Line2D]:
    handles = []
    if len(base):
        row = base.iloc[0]
        text = f"base ({quantity(row['macs'])} macs,\n{millions(row['params'])} params)"
        handles.append(Line2D([], [], color=style.BLACK, linewidth=1, linestyle=(0, (5, 3)), label=text))
    handles += [Line2D([], [], label=arm, **_mark(arm, "scratch-b")) for arm in arms["arm"].unique()]
    for schedule in arms["schedule"].unique():
        handles.append(Line2D([], [], label=schedule, **_mark(SAMPLE, schedule)))
    sizes = _sizes(arms)
    if len(sizes) > 1:
        for budget, size in sizes.items():
            label = budget.replace(",", ",\n")
            handles.append(Line2D([], [], label=label, **_mark(SAMPLE, "scratch-b", size)))
    handles.append(Line2D([], [], color=style.LIGHT, linewidth=3, label="front, chosen by\nvalidation accuracy"))
    return handles


def _caption(arms: pd.DataFrame) -> str:
    counts = sorted(set(arms["n"]))
    untimed = sorted(arms.loc[arms["latency"].isna(), "arm"].unique()) if "latency" in arms else []
    latency = f" Latency was not measured of {', '.join(untimed)}." if 0 < len(untimed) < arms["arm"].nunique() else ""
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    return (
        f"Marks: mean over seeds ({n}). Bars: one standard deviation. "
        "Every mark stands at its cost. Thin lines join the budgets of an arm.\n"
        "Front: no other arm has a higher validation accuracy at a lower cost."
        f"{latency}"
    )
