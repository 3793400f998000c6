"""The study, trial by trial: what each candidate reached and how much of the budget it used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from prune_nas.design.records import TrialRow
from prune_nas.design.space import Space
from prune_nas.report.figures import style

PROPOSED = "proposed"
SHARE = "share of "


def trials_table(
    trials: Iterable[TrialRow],
    widths: pd.DataFrame,
    space: Space | None = None,
    limits: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """`trials.csv` of one budget by number, with the arm that seeded a trial and the share of each bound that it takes.

    Args:
        trials: of one budget.
        widths: the lines of `widths.csv` of that budget.
        space: prices the candidates; without it there are no shares.
        limits: bounded cost -> bound.

    Returns:
        The columns of `trials.csv`, `origin` (an arm, or `PROPOSED` by the sampler), `found` (whether it is the net
        that the study found), and a `share of <cost>` a bound.
    """
    frame = pd.DataFrame([asdict(trial) for trial in trials]).sort_values("number", ignore_index=True)
    frame["value"] = frame["value"].astype(float)
    known: dict[tuple[tuple[str, int], ...], str] = {}
    for arm in widths.columns.difference(["budget", "slot", "stage", "depth", "ceiling", "base", "found"], sort=False):
        if len(widths) and widths[arm].notna().all():
            known.setdefault(_key(dict(zip(widths["slot"], widths[arm], strict=True))), arm)
    read = [json.loads(text or "{}") for text in frame["widths"]]
    frame["origin"] = [known.get(_key(one), PROPOSED) for one in read]
    found = _key(dict(zip(widths["slot"], widths["found"], strict=True))) if "found" in widths else None
    frame["found"] = [_key(one) == found for one in read]
    if space is not None:
        costs = [space.cost(one) if one else None for one in read]
        for kind, limit in (limits or {}).items():
            frame[SHARE + kind] = [float("nan") if cost is None else cost.of(kind) / limit for cost in costs]
    return frame


def _key(widths: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((slot, int(n)) for slot, n in widths.items()))


def study(frame: pd.DataFrame, budget: str) -> Figure:
    """Validation accuracy by trial and the first rung's running best above, the share of each bound used below.

    Args:
        frame: what `trials_table` returns; without shares there is no lower panel.
        budget: its text, for the title.
    """
    shares = [column for column in frame if str(column).startswith(SHARE)]
    figure = style.figure(7.5, 5.2 if shares else 3.8)
    panels = figure.subplots(
        2 if shares else 1, 1, sharex=True, squeeze=False, height_ratios=(3, 1.3)[: 1 + bool(shares)]
    )
    values, lower = panels[0, 0], panels[-1, 0]
    _values(values, frame)
    if shares:
        _fill(lower, frame.set_index("number")[shares])
    for axes in panels[:, 0]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.grid(axes)
    lower.set_xlabel("trial")
    done = (frame["value"].notna() & (frame["state"] != "REPEAT")).sum()
    title = f"{done} trainings of the study under {budget}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside right upper")
    return figure


def _values(axes: Axes, frame: pd.DataFrame) -> None:
    valued = frame[frame["value"].notna()]
    finalist = valued["seed"] > valued["seed"].min()  # they have seeds of their own, which are higher
    done, longer = valued[~finalist], valued[finalist]
    if len(done):
        best = np.maximum.accumulate(100 * done["value"])
        axes.step(done["number"], best, where="post", color=style.BLACK, linewidth=1, label="best so far", zorder=1)
    for name in sorted(done["origin"].unique(), key=lambda name: (name == PROPOSED, list(done["origin"]).index(name))):
        colour, marker = (style.VERMILION, "o") if name == PROPOSED else style.look(name)
        label = "proposed by\nthe sampler" if name == PROPOSED else f"seeded: {name}"
        own = done[done["origin"] == name]
        axes.scatter(own["number"], 100 * own["value"], color=colour, marker=marker, s=42, label=label, zorder=2)
    if len(longer):
        label = "finalists, trained\nas long as the base"
        edges = [style.VERMILION if name == PROPOSED else style.look(name).colour for name in longer["origin"]]
        axes.scatter(longer["number"], 100 * longer["value"], facecolor="none", edgecolor=edges, marker="s", s=48,
                     linewidth=1.6, zorder=2)  # fmt: skip
        axes.scatter([], [], facecolor="none", edgecolor=style.BLACK, marker="s", s=48, linewidth=1.6, label=label)
    found = valued[valued["found"] & (valued["state"] != "REPEAT")]
    found = found[(found["seed"] > frame["seed"].min()) | ~finalist.any()]  # where it was decided
    if len(found):
        axes.scatter(found["number"], 100 * found["value"], facecolor="none", edgecolor=style.BLACK, marker="o", s=190,
                     linewidth=1, label="what was found", zorder=3)  # fmt: skip
    failed = frame.loc[frame["value"].isna(), "number"]
    if len(failed):
        low = [0.03] * len(failed)
        axes.scatter(
            failed, low, transform=axes.get_xaxis_transform(), color=style.GREY, marker="x", s=30, label="not finished"
        )
    axes.set_ylabel("validation accuracy, %")


def _fill(axes: Axes, shares: pd.DataFrame) -> None:
    each = 0.8 / len(shares.columns)
    for i, name in enumerate(shares):
        offset = (i - (len(shares.columns) - 1) / 2) * each
        colour = (style.GREY, style.LIGHT)[i % 2]
        axes.bar(shares.index + offset, shares[name], each, color=colour, label=str(name).removeprefix(SHARE))
    axes.axhline(1, color=style.BLACK, linewidth=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("of the bound")
