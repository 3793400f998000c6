"""Patterns over each other: of several seeds, of several runs, of several networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prune_nas.design.patterns import Pattern, Ratio, stability
from prune_nas.errors import UsageError
from prune_nas.report.figures import style

_LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
_MARKERS = "osD^vXP*"
_LONG = 24  # letters of a name, from which the legend stands below the panels
COLUMNS = ("group", "pattern", "slot", "stage", "depth", "keep")


def table(patterns: Sequence[tuple[str, Pattern]]) -> pd.DataFrame:
    """Patterns, each with the group that it is compared within, as a data frame of `COLUMNS`."""
    rows = [
        (group, pattern.name, ratio.slot, ratio.stage, ratio.depth, ratio.keep)
        for group, pattern in patterns
        for ratio in pattern.ratios
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def patterns(frame: pd.DataFrame, title: str, stages: Sequence[str] = ()) -> Figure:
    """Keep ratios by place, a panel a group and a line a pattern; of one network's several the range is shaded.

    Networks of different depth are drawn over each other by stage and depth within it.

    Args:
        frame: `COLUMNS`, as `table` gives them.
        title: of the figure.
        stages: the name of each stage; by default its number.
    """
    groups = list(frame["group"].unique())
    deep = int(frame["stage"].max()) + 1
    called = list(frame["pattern"].unique())
    below = 0.22 * len(called) if max(map(len, called)) > _LONG else 0.0
    figure = style.figure(max(7.5, 1.1 * deep + 2.5), 1.3 + below + 2.3 * len(groups))
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        own = frame[frame["group"] == group]
        _panel(axes, own)
        axes.set_title(f"{group}: {_agreement(own)}" if group else _agreement(own))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.05)
        for stage in range(1, deep):
            axes.axvline(stage, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        style.grid(axes)
    names = [stages[i] if i < len(stages) else str(i + 1) for i in range(deep)]
    panels[-1].set_xticks([stage + 0.5 for stage in range(deep)], names)
    panels[-1].tick_params(axis="x", length=0)
    panels[-1].set_xlabel("stage, from input to output")
    figure.supylabel("kept of ceiling", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if below:
        style.legend_below(figure, list(handles.values()), labels=list(handles))
    else:
        figure.legend(list(handles.values()), list(handles), loc="outside right upper")
    return figure


def _panel(axes: Axes, own: pd.DataFrame) -> None:
    names = list(own["pattern"].unique())
    for number, name in enumerate(names):
        one = own[own["pattern"] == name]
        x = one["stage"] + 0.1 + 0.8 * one["depth"]
        look = number % len(_COLOURS)
        axes.plot(x, one["keep"], color=_COLOURS[look], marker=_MARKERS[number % len(_MARKERS)], markersize=4,
                  linewidth=1.2, linestyle=_LINES[number % len(_LINES)], label=name)  # fmt: skip
    if len(names) > 1 and own.groupby("slot")["pattern"].nunique().eq(len(names)).all():
        span = own.groupby("slot", sort=False)[["stage", "depth", "keep"]].agg(["min", "max"])
        x = span["stage"]["min"] + 0.1 + 0.8 * span["depth"]["min"]
        axes.fill_between(x, span["keep"]["min"], span["keep"]["max"], color=style.LIGHT, alpha=0.6, linewidth=0)


def _agreement(own: pd.DataFrame) -> str:
    """How far the patterns of a group agree, in words."""
    found = [
        Pattern(
            str(name),
            int(np.max(one["stage"])) + 1,
            tuple(
                Ratio(str(r.slot), int(str(r.stage)), float(str(r.depth)), float(str(r.keep)))
                for r in one[["slot", "stage", "depth", "keep"]].itertuples(index=False)
            ),
        )
        for name, one in own.groupby("pattern", sort=False)
    ]
    try:
        agree = stability(found)
    except UsageError:
        return f"{len(found)} patterns of different networks"
    if agree.rank_correlation is None:
        return f"{len(found)} pattern{'s' if len(found) > 1 else ''}"
    return f"{len(found)} patterns, rank correlation {agree.rank_correlation:.2f}, spread {agree.noise or 0:.2f}"
