"""What was spent on what: the search on one side, the proof on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prune_nas.report.figures import style
from prune_nas.report.tables import duration, quantity

PROBE, SUPERNET, STUDY, FOUND, BASE, RIVALS = (
    "probe", "supernet", "study", "finals: {}", "finals: base", "finals: rivals",
)  # fmt: skip
COLOURS = {PROBE: style.GREEN, SUPERNET: style.BLUE, STUDY: style.SKY, FOUND: style.VERMILION, BASE: style.GREY,
           RIVALS: style.LIGHT}  # fmt: skip
_LEGIBLE = 0.07  # of the bar: a part must be so wide to have its number written into it


def parts(ledger: pd.DataFrame, subject: str = "found") -> pd.DataFrame:
    """The ledger in six parts.

    Args:
        ledger: `ledger.csv` or `tables.ledger_table`; a line for the total is left out.
        subject: the arm whose finals stand apart: found, or transferred, or pruned.

    Returns:
        `part, trainings, train_macs, seconds`, in the order of the bar.
    """
    rows = ledger[ledger["phase"] != "total"].astype(
        {"train_macs": float}
    )  # of many long trainings they overflow 64 bits
    finals = rows["phase"] == "finals"
    part = rows["phase"].where(~finals, RIVALS)
    part = part.mask(finals & (rows["arm"] == subject), FOUND.format(subject)).mask(
        finals & (rows["arm"] == "base"), BASE
    )
    sums = rows.assign(part=part).groupby("part", sort=False)[["trainings", "train_macs", "seconds"]].sum()
    known = [name.format(subject) for name in COLOURS]
    order = [*known, *(name for name in sums.index if name not in known)]
    return sums.loc[[name for name in order if name in sums.index]].reset_index()


def ledger(frame: pd.DataFrame, base: float | None = None) -> Figure:
    """Two bars, compute and time, each divided among what they were spent on.

    Args:
        frame: what `parts` returns.
        base: macs of one training of the base, the unit of the first bar; without it that is in macs.
    """
    figure = style.figure(9, 2.9)
    above, below = figure.subplots(2, 1)
    unit = "in trainings of the base" if base else "in macs"
    speak = (lambda macs: f"{macs / base:.1f}") if base else quantity
    _bar(above, frame, "train_macs", _words(frame, "train_macs", speak))
    _bar(below, frame, "seconds", _words(frame, "seconds", duration))
    total, time = frame["train_macs"].sum(), frame["seconds"].sum()
    above.set_title(f"training compute, {unit}: {speak(total)}")
    below.set_title(f"time of all trainings, one after another: {duration(time)}")
    figure.suptitle("What the run spent, and on what", x=0.01, ha="left", fontsize=11)
    handles, labels = above.get_legend_handles_labels()
    spoken = _words(frame, "train_macs", speak)
    style.legend_below(figure, handles, labels=[f"{label} ({spoken[label]})" for label in labels], ncols=5)
    return figure


def _of(frame: pd.DataFrame, column: str) -> dict[str, float]:
    return {str(part): float(value) for part, value in zip(frame["part"], frame[column], strict=True)}


def _words(frame: pd.DataFrame, column: str, speak: Callable[[float], str]) -> dict[str, str]:
    return {part: speak(value) for part, value in _of(frame, column).items()}


def _bar(axes: Axes, frame: pd.DataFrame, column: str, words: Mapping[str, str]) -> None:
    values = _of(frame, column)
    whole, left = sum(values.values()) or 1.0, 0.0
    for part, value in values.items():
        share = value / whole
        colour = COLOURS.get(part, COLOURS[FOUND])
        axes.barh(0, share, left=left, color=colour, edgecolor="white", label=part)
        if share >= _LEGIBLE:
            # The greys change on a dark page, and so must what is written on them; the colours stay.
            ink = {STUDY: style.ON_LIGHT, RIVALS: style.BLACK, BASE: "#ffffff"}.get(part, style.ON_DARK)
            axes.text(left + share / 2, 0, words[part], ha="center", va="center", color=ink)
        left += share
    axes.set_xlim(0, 1)
    axes.set_axis_off()
