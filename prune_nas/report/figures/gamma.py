"""What the sparse training left: the channels' |gamma|, stage by stage and slot by slot, and where the budget cuts.

The axis is logarithmic, since a channel that the penalty took lies powers of ten below the others; what lies farther
below the largest than `DECADES` is drawn at the axis' left end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from prune_nas.design.space import Space
from prune_nas.report.figures import style

BINS = 50
DECADES = 4
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))
CUTS = ("budget", "slot", "stage", "kept", "score")
_FEWER = 25  # bins of a slot's panel


def channels(scores: Mapping[str, NDArray[np.floating[Any]]], space: Space) -> pd.DataFrame:
    """The scores as a table, `slot, stage, channel, score`, slots in the network's order."""
    parts = [
        pd.DataFrame(
            {
                "slot": slot.name,
                "stage": slot.stage,
                "channel": range(len(scores[slot.name])),
                "score": scores[slot.name],
            }
        )
        for slot in space.slots
        if len(scores.get(slot.name, ()))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["slot", "stage", "channel", "score"])


def cuts_of(recorded: Mapping[str, Sequence[Mapping[str, Any]]], space: Space) -> pd.DataFrame:
    """The cuts that `run.json` records, as a table of `CUTS`."""
    stages = {slot.name: slot.stage for slot in space.slots}
    rows = [
        (budget, cut["slot"], stages[cut["slot"]], cut["kept"], cut["score"])
        for budget, slots in recorded.items()
        for cut in slots
        if cut["slot"] in stages
    ]
    return pd.DataFrame(rows, columns=list(CUTS))


def gamma(frame: pd.DataFrame, cuts: pd.DataFrame, names: Sequence[str] = ()) -> Figure:
    """A histogram of |gamma| a stage over one axis, with a line where each budget cuts: the median over its slots.

    Args:
        frame: `slot, stage, channel, score`, as `channels` gives them.
        cuts: `CUTS`: channels kept and the smallest |gamma| among them; may be empty.
        names: the name of each stage; by default its number.
    """
    stages = sorted(frame["stage"].unique())
    figure = style.figure(7.5, 1.3 + 1.3 * len(stages))
    panels = figure.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
    edges = _edges(frame, BINS)
    budgets = list(cuts["budget"].unique())
    for axes, stage in zip(panels, stages, strict=True):
        values, own = frame.loc[frame["stage"] == stage, "score"], cuts[cuts["stage"] == stage]
        _histogram(axes, values, edges)
        for line, budget in zip(_styles(len(budgets)), budgets, strict=True):
            places = own.loc[own["budget"] == budget, "score"]
            if len(places):
                axes.axvline(max(places.median(), edges[0]), color=style.VERMILION, linewidth=1.4, linestyle=line)
                _below(axes, places.median(), edges)
        name = names[stage] if stage < len(names) else f"stage {stage + 1}"
        kept = [f"{own.loc[own['budget'] == budget, 'kept'].sum():g}" for budget in budgets]
        axes.set_title(f"{name}: {len(values)} channels" + (f", {' or '.join(kept)} kept" if kept else ""))
        style.grid(axes)
    panels[-1].set_xlabel(f"|gamma| of a channel, log scale (all below {edges[0]:.1g} at the left end)")
    figure.supylabel("channels (log scale)", fontsize=10)
    figure.suptitle("What the penalty left of |gamma|, stage by stage", x=0.01, ha="left", fontsize=11)
    _legend(figure, budgets)
    return figure


def gamma_of_slots(frame: pd.DataFrame, cuts: pd.DataFrame) -> Figure:
    """A small histogram of |gamma| a slot, all over one axis, with a line where each budget cuts.

    Args:
        frame: `slot, stage, channel, score`, as `channels` gives them.
        cuts: `CUTS`; may be empty.
    """
    slots = list(frame["slot"].unique())
    columns = min(len(slots), max(4, math.ceil(math.sqrt(1.4 * len(slots)))))
    rows = math.ceil(len(slots) / columns)
    figure = style.figure(min(1.9 * columns + 0.4, 14), 1.25 * rows + 1)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    edges = _edges(frame, _FEWER)
    budgets = list(cuts["budget"].unique())
    room = 13 * min(1.9 * columns, 13.6) / columns  # letters of 9 pt over a panel
    for axes, slot in zip(panels, slots, strict=False):
        _histogram(axes, frame.loc[frame["slot"] == slot, "score"], edges)
        for line, budget in zip(_styles(len(budgets)), budgets, strict=True):
            for score in cuts.loc[(cuts["slot"] == slot) & (cuts["budget"] == budget), "score"]:
                axes.axvline(max(score, edges[0]), color=style.VERMILION, linewidth=1.2, linestyle=line)
                _below(axes, score, edges)
        short = slot if len(slot) <= room else "…" + slot[-int(room) + 1 :]
        axes.set_title(short, fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[max(len(slots) - columns, 0) : len(slots)]:  # the last of each column
        axes.tick_params(labelbottom=True)
    for axes in panels[len(slots) :]:
        axes.set_axis_off()
    figure.supylabel("channels (log scale)", fontsize=10)
    figure.suptitle(
        "What the penalty left of |gamma| (log scale), slot by slot, each over the same axis",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    _legend(figure, budgets)
    return figure


def _below(axes: Axes, cut: float, edges: NDArray[np.float64]) -> None:
    """Say of a cut that it lies left of the axis, where its line can hardly be seen."""
    if cut <= edges[0]:
        axes.text(0.97, 0.97, "cut: left edge", transform=axes.transAxes, va="top", ha="right", color=style.VERMILION,
                  fontsize=8)  # fmt: skip


def _edges(frame: pd.DataFrame, bins: int) -> NDArray[np.float64]:
    top = float(frame["score"].max()) or 1.0
    return np.geomspace(top / 10**DECADES, top, bins + 1)


def _histogram(axes: Axes, values: pd.Series[float], edges: NDArray[np.float64]) -> None:
    shown = values.clip(edges[0], edges[-1])
    axes.hist(shown, edges.tolist(), histtype="stepfilled", facecolor=style.SKY, edgecolor=style.BLUE, linewidth=0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(12, 1.3 * float(np.histogram(shown, edges)[0].max())))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(edges[0], edges[-1])


def _legend(figure: Figure, budgets: Sequence[str]) -> None:
    if budgets:
        handles = [
            Line2D([], [], color=style.VERMILION, linewidth=1.4, linestyle=line, label=f"cut at {budget}")
            for line, budget in zip(_styles(len(budgets)), budgets, strict=True)
        ]
        style.legend_below(figure, handles, ncols=2)


def _styles(n: int) -> list[Any]:
    return [LINES[i % len(LINES)] for i in range(n)]
