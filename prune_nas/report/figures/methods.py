"""Pruning methods side by side: each pruned net under every schedule, and what the shapes alone are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from prune_nas.design.space import Cost
from prune_nas.report.figures import style

COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.YELLOW)
MARKERS = {"fine-tune": "v", "rewind": "D", "scratch-e": "o", "scratch-b": "s"}
FILLED = ("rewind", "scratch-b")  # with much training compute
COSTS = {"macs": "macs, % of the base (log scale)", "params": "params, % of the base (log scale)"}
SHIFT = 1.035  # between methods whose nets cost the same
SCRATCH = "scratch-e"


def methods(frame: pd.DataFrame, whole: Cost) -> Figure:
    """Accuracy against macs and params: above, methods and schedules; below, the pruned shapes and their rivals.

    Args:
        frame: what `tables.results` returns for a comparison; a budget is a `method=ratio`.
        whole: what the unpruned network costs.
    """
    base = frame[frame["arm"] == "base"].iloc[0] if (frame["arm"] == "base").any() else None
    own = frame[frame["arm"] == "pruned"].assign(method=frame["budget"].str.partition("=")[0])
    shapes = frame[(frame["schedule"] == SCRATCH) & (frame["arm"] != "base")]
    rivals = [arm for arm in shapes["arm"].unique() if arm != "pruned"]
    figure = style.figure(10.5, 8.4 if rivals else 4.8)
    panels = figure.subplots(2 if rivals else 1, 2, squeeze=False, sharey="row")
    names = list(own["method"].unique())
    for column, (cost, words) in enumerate(COSTS.items()):
        _schedules(panels[0][column], own, names, cost, whole.of(cost))
        if rivals:
            _shapes(panels[1][column], shapes, cost, whole.of(cost))
        for axes in (row[column] for row in panels):
            _dress(axes, words, base)
    panels[0][0].set_title("pruned nets, by method and schedule")
    panels[0][1].legend(handles=_legend_of_schedules(own, names), loc="center left", bbox_to_anchor=(1.01, 0.5))
    if rivals:
        panels[1][0].set_title(f"shapes from scratch ({SCRATCH})")
        handles = [Line2D([], [], label=arm, **_of_arm(arm)) for arm in ("pruned", *rivals)]
        panels[1][1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle("Test accuracy of pruned nets against their cost", x=0.01, ha="left", fontsize=11)
    n = sorted(set(frame["n"]))
    spread = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    style.note(
        figure,
        f"Marks: mean over seeds ({spread}). Bars: one standard deviation. Dashed: the unpruned network. "
        "Methods whose nets cost the same stand side by side.",
    )
    return figure


def _schedules(axes: Axes, own: pd.DataFrame, names: Sequence[str], cost: str, whole: float) -> None:
    for budget in own["budget"].unique():
        rows = own[own["budget"] == budget]
        place = names.index(rows["method"].iloc[0])
        x = 100 * rows[cost].iloc[0] / whole * SHIFT ** (place - (len(names) - 1) / 2)
        accuracies = 100 * rows["test_accuracy"]
        axes.plot([x, x], [accuracies.min(), accuracies.max()], color=style.LIGHT, linewidth=3, zorder=1)
        for row in rows.to_dict("records"):
            _point(axes, x, row, _of_schedule(COLOURS[place % len(COLOURS)], str(row["schedule"])))


def _shapes(axes: Axes, shapes: pd.DataFrame, cost: str, whole: float) -> None:
    for row in shapes.to_dict("records"):
        _point(axes, 100 * row[cost] / whole, row, _of_arm(str(row["arm"])))


def _point(axes: Axes, x: float, row: dict[Any, Any], mark: dict[str, Any]) -> None:
    spread = None if pd.isna(row["std"]) else 100 * row["std"]
    axes.errorbar(x, 100 * row["test_accuracy"], yerr=spread, elinewidth=0.9, capsize=2, zorder=3, **mark)


def _dress(axes: Axes, words: str, base: pd.Series | None) -> None:
    if base is not None:
        axes.axhline(100 * base["test_accuracy"], color=style.BLACK, linewidth=1, linestyle=(0, (5, 3)))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(words)
    if axes.get_subplotspec().colspan.start == 0:  # type: ignore[union-attr]
        axes.set_ylabel("test accuracy, %")
    style.grid(axes)


def _of_schedule(colour: str, schedule: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": MARKERS.get(schedule, "x"),
        "markerfacecolor": colour if schedule in FILLED else "white",
        "markeredgecolor": colour,
        "markersize": 6.5,
        "markeredgewidth": 1.3,
        "linestyle": "none",
    }


def _of_arm(arm: str) -> dict[str, Any]:
    colour, marker = style.look(arm)
    return {"color": colour, "marker": marker, "markersize": 6.5, "linestyle": "none"}


def _legend_of_schedules(own: pd.DataFrame, names: Sequence[str]) -> list[Line2D]:
    colours = [Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=4, label=name) for i, name in enumerate(names)]
    present = [schedule for schedule in MARKERS if schedule in set(own["schedule"])]
    return [*colours, *(Line2D([], [], label=name, **_of_schedule(style.GREY, name)) for name in present)]
