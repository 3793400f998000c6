"""Widths slot by slot: where each arm keeps channels and where it gives them up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prune_nas.design.arms import UNIFORM_ARMS
from prune_nas.report.figures import style
from prune_nas.report.tables import ARMS

BARS = ("found", "pruned", "guided", "transferred", "taper")
Span = tuple["pd.Series[float]", "pd.Series[float]"]
GROUP = 0.8  # the share of a slot's room that its bars fill
DASHES = {"uniform": "-", "uniform@macs": "-", "uniform@params": ":", "uniform@latency": "--"}


def widths(frame: pd.DataFrame, budget: str, stage_names: Sequence[str] = ()) -> Figure:
    """Bars of every slot's width above, keep ratios below, slots grouped by stage.

    Args:
        frame: the lines of `widths.csv` of one budget, in the network's order.
        budget: its text, for the title.
        stage_names: the name of each stage; by default its number.
    """
    frame, spread = _averaged(frame)
    slots = len(frame)
    size = float(np.clip(1.2 + 0.56 * slots, 7.0, 15.0))
    figure = style.figure(size, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _channels(top, frame, spread)
    _ratios(bottom, frame)
    for axes in (top, bottom):
        axes.set_xlim(-0.6, slots - 0.4)
        axes.tick_params(axis="x", length=0)
        style.grid(axes)
    _stages(top, bottom, frame, stage_names, size)
    fits = 0.08 * frame["slot"].str.len().max() < _room(size, slots)
    labelled = slice(None, None, math.ceil(0.14 / _room(size, slots)))  # of many hundred slots, not all fit
    bottom.set_xticks(range(slots)[labelled], frame["slot"][labelled], rotation=0 if fits else 90, fontsize=9)
    several = "\nMeans over seeds. Whiskers: smallest and largest." if spread else ""
    bottom.set_xlabel(f"slot, from input to output{several}")
    figure.suptitle(f"Width of every slot under {budget}", x=0.01, ha="left", fontsize=11)
    handles, labels = top.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: ARMS.index(labels[i]))
    style.legend_below(figure, [handles[i] for i in order], labels=[labels[i] for i in order], ncols=7)
    return figure


def _averaged(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Span]]:
    """The lines with the mean of an arm's several nets (`pruned1`, `pruned2`, ...) in its place, and their span."""
    frame, spread = frame.copy(), {}
    for arm in (*BARS, *UNIFORM_ARMS):
        several = frame.filter(regex=f"^{arm}[0-9]+$").dropna(axis=1, how="all")
        if not _drawn(frame, arm) and len(several.columns):
            frame[arm] = several.mean(axis=1)
            spread[arm] = (several.min(axis=1), several.max(axis=1))
    return frame, spread


def _channels(axes: Axes, frame: pd.DataFrame, spread: Mapping[str, Span]) -> None:
    x = np.arange(len(frame))
    if _drawn(frame, "base"):
        axes.bar(x, frame["base"], GROUP + 0.08, fill=False, edgecolor=style.GREY, linewidth=0.9, label="base")
    arms = [arm for arm in BARS if _drawn(frame, arm)]
    each = GROUP / max(1, len(arms))
    for i, arm in enumerate(arms):
        offset = (i - (len(arms) - 1) / 2) * each
        axes.bar(x + offset, frame[arm], each, color=style.look(arm).colour, label=arm)
        if arm in spread:
            least, most = spread[arm]
            ends = [frame[arm] - least, most - frame[arm]]
            axes.errorbar(x + offset, frame[arm], yerr=ends, fmt="none", ecolor=style.BLACK, elinewidth=1, capsize=2)
    for arm in (arm for arm in UNIFORM_ARMS if _drawn(frame, arm)):
        half = (GROUP + 0.08) / 2
        line = DASHES[arm]
        axes.hlines(frame[arm], x - half, x + half, color=style.BLACK, linewidth=1.4, linestyle=line, label=arm)
    axes.set_ylabel("channels")


def _ratios(axes: Axes, frame: pd.DataFrame) -> None:
    x = np.arange(len(frame))
    for size, arm in enumerate(BARS):  # where lines meet, larger open marks show those below
        if _drawn(frame, arm):
            colour, marker = style.look(arm)
            look: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "markerfacecolor": colour if arm == "found" else "none",
            }
            axes.plot(x, frame[arm] / frame["ceiling"], markersize=4 + size, linewidth=1.2, **look)
    for arm in UNIFORM_ARMS:
        if _drawn(frame, arm):
            axes.plot(x, frame[arm] / frame["ceiling"], color=style.BLACK, linewidth=1, linestyle=DASHES[arm])
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("kept of ceiling")


def _stages(top: Axes, bottom: Axes, frame: pd.DataFrame, names: Sequence[str], size: float) -> None:
    """A line between stages and a name over each; numbers where a name would run into the next."""
    runs = list(runs_of(frame["stage"].astype(int).tolist()))
    room = _room(size, len(frame))
    full = {stage: names[stage] if stage < len(names) else f"stage {stage + 1}" for stage, _, _ in runs}
    fits = all(0.085 * len(full[stage]) < room * (last - first + 1) for stage, first, last in runs)
    for stage, first, last in runs:
        label = full[stage] if fits else str(stage + 1)
        top.text(
            (first + last) / 2,
            1.01,
            label,
            transform=top.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=style.DIM,
        )
        if first > 0:
            for axes in (top, bottom):
                axes.axvline(first - 0.5, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    if not fits:
        top.text(-0.01, 1.01, "stage", transform=top.transAxes, ha="right", va="bottom", color=style.DIM)


def runs_of(stages: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(stage, first slot, last slot) of every run of slots in one stage."""
    for stage, group in groupby(enumerate(stages), key=lambda item: item[1]):
        places = [place for place, _ in group]
        yield stage, places[0], places[-1]


def _room(size: float, slots: int) -> float:
    """Inches of axis a slot, in a figure `size` inches wide."""
    return (size - 0.9) / (slots + 0.2)


def _drawn(frame: pd.DataFrame, arm: str) -> bool:
    return arm in frame and bool(frame[arm].notna().any())
