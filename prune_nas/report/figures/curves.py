"""How the trainings went: accuracy and loss, epoch by epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from prune_nas.design.evidence import FORMER
from prune_nas.report.figures import style
from prune_nas.report.tables import ARMS, SCHEDULES

LINES: dict[str, Any] = {
    "scratch-e": "-",
    "scratch-b": (0, (5, 2)),
    "rewind": (0, (5, 1, 1, 1)),
    "fine-tune": (0, (1, 1.2)),
}
_LONG = 3  # times the shortest training
COLUMNS = {"val_accuracy": "validation accuracy, %", "train_loss": "training loss"}


def series(curves: pd.DataFrame, budget: str, finals: pd.DataFrame | None = None) -> pd.DataFrame:
    """The curves of one budget and of what all budgets share, each with the arm and the schedule that it belongs to.

    Args:
        curves: `curves.csv`.
        budget: as the table has it.
        finals: `finals.csv`; where it is given, candidates that are not in it any more are left out.

    Returns:
        `arm, schedule, trial, epoch, train_loss, val_accuracy`; where no arm was trained, arm is `supernet`, `study` or
        `origin`, a network that methods prune.
    """
    own = curves[curves["budget"].isin(["", budget])]
    method, _, ratio = budget.partition("=")
    origins = {"slimming": "l1", "sss": f"sss-{ratio}", "sss-blocks": f"sss-blocks-{ratio}"}
    mine = f"origin/{origins.get(method, 'none')}/"  # what this case's method prunes
    own = own[~own["trial"].str.startswith("origin/") | own["trial"].str.startswith(mine)]
    parts = own["trial"].str.split("/")
    arm, schedule = parts.str[0], parts.str[1].where(parts.str[0].isin(ARMS), "")
    arm = arm.where(arm.isin((*ARMS, "origin", "supernet")), "study")
    frame = own.assign(arm=arm, schedule=schedule.fillna(""))
    if finals is not None:
        stayed = finals["candidate"][~finals["arm"].str.startswith(FORMER)].unique()
        frame = frame[~arm.isin(ARMS) | parts.str[2].isin(stayed)]
    return frame[["arm", "schedule", "trial", "epoch", "train_loss", "val_accuracy"]].reset_index(drop=True)


def curves(frame: pd.DataFrame, budget: str) -> Figure:
    """Validation accuracy and training loss by epoch: a line an arm and schedule, a band over its seeds.

    Args:
        frame: what `series` returns.
        budget: its text, for the title.
    """
    figure = style.figure(10, 4.6)
    panels = figure.subplots(1, 2)
    for axes, (column, words) in zip(panels, COLUMNS.items(), strict=True):
        _panel(axes, frame, column, 100 if column == "val_accuracy" else 1)
        axes.set_ylabel(words)
        axes.set_xlabel("epoch")
        _epochs(axes, frame)
        style.grid(axes)
    figure.suptitle(f"Every training under {budget}, epoch by epoch", x=0.01, ha="left", fontsize=11)
    figure.legend(handles=_legend(frame), loc="outside right upper")
    style.note(
        figure, "Lines: mean over the trainings of an arm, as far as all of them go. Bands: from the least to the most."
    )
    return figure


def _epochs(axes: Axes, frame: pd.DataFrame) -> None:
    """An axis of epochs; logarithmic where some trainings are many times as long as others."""
    lengths = frame.groupby("trial")["epoch"].max()
    if lengths.max() <= _LONG * lengths.min():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch (log scale)")


def _groups(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Arms with their schedules, in the order of the tables."""
    found = frame.loc[frame["arm"].isin(ARMS), ["arm", "schedule"]].drop_duplicates().itertuples(index=False)
    rank = {name: place for place, name in enumerate((*ARMS, *SCHEDULES))}
    return sorted(((str(a), str(s)) for a, s in found), key=lambda pair: [rank.get(name, 99) for name in pair])


def _panel(axes: Axes, frame: pd.DataFrame, column: str, scale: float) -> None:
    for kind, line in (("study", "-"), ("origin", "--")):
        for _, one in frame[frame["arm"] == kind].groupby("trial"):
            axes.plot(one["epoch"], scale * one[column], color=style.LIGHT, linewidth=0.8, linestyle=line, zorder=1)
    supernet = frame[frame["arm"] == "supernet"]
    axes.plot(supernet["epoch"], scale * supernet[column], color=style.BLACK, linewidth=1.2, linestyle=":", zorder=2)
    for place, (arm, schedule) in enumerate(_groups(frame)):
        own = frame[(frame["arm"] == arm) & (frame["schedule"] == schedule)]
        every = own["trial"].nunique()
        by_epoch = scale * own.groupby("epoch")[column].agg(["mean", "min", "max", "count"])
        by_epoch = by_epoch[by_epoch["count"] == scale * every]  # a mean of fewer would jump where some end
        colour, x = style.look(arm).colour, by_epoch.index.to_numpy()
        axes.fill_between(x, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.15, linewidth=0, zorder=2)
        apart = max(len(x) // 4, 1)  # marks along the line, at other epochs for each arm: some share a colour
        axes.plot(x, by_epoch["mean"], color=colour, linewidth=1.5, linestyle=LINES.get(schedule, "-"), zorder=3,
                  marker=style.look(arm).marker, markersize=4, markevery=(place % apart, apart))  # fmt: skip
        axes.plot(x[-1], by_epoch["mean"].iloc[-1], color=colour, marker=style.look(arm).marker, zorder=4)


def _legend(frame: pd.DataFrame) -> list[Line2D]:
    groups = _groups(frame)
    handles = []
    for arm in dict.fromkeys(arm for arm, _ in groups):
        look = style.look(arm)
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.5, label=arm))
    handles += [
        Line2D([], [], color=style.GREY, linestyle=LINES.get(schedule, "-"), label=schedule)
        for schedule in dict.fromkeys(schedule for _, schedule in groups)
    ]
    if (frame["arm"] == "supernet").any():
        handles.append(Line2D([], [], color=style.BLACK, linewidth=1.2, linestyle=":", label="supernet"))
    if (frame["arm"] == "origin").any():
        handles.append(Line2D([], [], color=style.LIGHT, linewidth=0.8, linestyle="--", label="to be pruned"))
    if (frame["arm"] == "study").any():
        handles.append(Line2D([], [], color=style.LIGHT, linewidth=0.8, label="trials"))
    return handles
