"""The study, trial by trial: what each candidate reached and how much of the budget it used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from prune_nas.design.records import TrialRow
from prune_nas.report.figures import style

PROPOSED = "proposed"


def study(
    trials: Sequence[TrialRow], origins: Mapping[int, str], shares: Mapping[str, Mapping[int, float]], budget: str
) -> Figure:
    """Validation accuracy by trial and the first rung's running best above, the share of each bound used below.

    Args:
        trials: the trials of one budget.
        origins: trial number -> the arm whose widths it was seeded with; others were proposed by the sampler.
        shares: bounded cost -> trial number -> the share of the bound used; without any there is no lower panel.
        budget: its text, for the title.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    figure = style.figure(7.5, 5.2 if shares else 3.8)
    panels = figure.subplots(
        2 if shares else 1, 1, sharex=True, squeeze=False, height_ratios=(3, 1.3)[: 1 + bool(shares)]
    )
    values, lower = panels[0, 0], panels[-1, 0]
    _values(values, trials, origins)
    if shares:
        _fill(lower, shares)
    for axes in panels[:, 0]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.grid(axes)
    lower.set_xlabel("trial")
    done = sum(trial.value is not None and trial.state != "REPEAT" for trial in trials)
    title = f"{done} trainings of the study under {budget}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside right upper")
    return figure


def origins(trials: Sequence[TrialRow], widths: pd.DataFrame) -> dict[int, str]:
    """Trial number -> the arm of `widths.csv` that has the trial's widths; `found` and `base` seed nothing.

    Args:
        trials: the trials of one budget.
        widths: the lines of `widths.csv` of that budget.
    """
    known: dict[tuple[tuple[str, int], ...], str] = {}
    for arm in widths.columns.difference(["budget", "slot", "stage", "depth", "ceiling", "base", "found"], sort=False):
        if len(widths) and widths[arm].notna().all():
            known.setdefault(_key(dict(zip(widths["slot"], widths[arm], strict=True))), arm)
    seeded = {trial.number: known.get(_key(json.loads(trial.widths or "{}"))) for trial in trials}
    return {number: arm for number, arm in seeded.items() if arm}


def _key(widths: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((slot, int(n)) for slot, n in widths.items()))


def _values(axes: Axes, trials: Sequence[TrialRow], origins: Mapping[int, str]) -> None:
    short = min((trial.epochs for trial in trials if trial.epochs), default=0)
    done = [(trial.number, 100 * trial.value) for trial in trials if trial.value is not None and trial.epochs <= short]
    longer = [(trial.number, 100 * trial.value) for trial in trials if trial.value is not None and trial.epochs > short]
    if done:
        numbers, values = zip(*done, strict=True)
        best = np.maximum.accumulate(values)
        axes.step(numbers, best, where="post", color=style.BLACK, linewidth=1, label="best so far", zorder=1)
    groups: dict[str, list[tuple[int, float]]] = {}
    for number, value in done:
        groups.setdefault(origins.get(number, PROPOSED), []).append((number, value))
    for name in sorted(groups, key=lambda name: name == PROPOSED):
        colour, marker = (style.VERMILION, "o") if name == PROPOSED else style.look(name)
        label = "proposed by\nthe sampler" if name == PROPOSED else f"seeded: {name}"
        x, y = zip(*groups[name], strict=True)
        axes.scatter(x, y, color=colour, marker=marker, s=42, label=label, zorder=2)
    if longer:
        x, y = zip(*longer, strict=True)
        label = "finalists, trained\nas long as the base"
        axes.scatter(x, y, facecolor="none", edgecolor=style.BLACK, marker="s", s=48, label=label, zorder=2)
    failed = [trial.number for trial in trials if trial.value is None]
    if failed:
        low = [0.03] * len(failed)
        axes.scatter(
            failed, low, transform=axes.get_xaxis_transform(), color=style.GREY, marker="x", s=30, label="not finished"
        )
    axes.set_ylabel("validation accuracy, %")


def _fill(axes: Axes, shares: Mapping[str, Mapping[int, float]]) -> None:
    each = 0.8 / len(shares)
    for i, (cost, used) in enumerate(shares.items()):
        numbers = np.array(list(used))
        colour = (style.GREY, style.LIGHT)[i % 2]
        axes.bar(numbers + (i - (len(shares) - 1) / 2) * each, list(used.values()), each, color=colour, label=cost)
    axes.axhline(1, color=style.BLACK, linewidth=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("of the bound")
