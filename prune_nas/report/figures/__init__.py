"""The figures of a run: which there are, what each needs from the run, and how they become files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prune_nas.design.budget import Budget, Limits
from prune_nas.design.files import write_bytes
from prune_nas.design.kernels import kernel_mean_from_dict
from prune_nas.design.projection import project
from prune_nas.design.records import TrialRow
from prune_nas.errors import PruneNasError, unknown
from prune_nas.report.figures import style
from prune_nas.report.figures.accuracy import accuracy
from prune_nas.report.figures.gamma import gamma
from prune_nas.report.figures.kernels import kernels
from prune_nas.report.figures.methods import methods
from prune_nas.report.figures.study import origins, study
from prune_nas.report.figures.widths import widths
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import percent

FORMATS = ("svg", "png", "pdf")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """A figure, the stem of its file, and what it shows in words for those who cannot see it."""

    name: str
    figure: Figure
    alt: str

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, which is a file and a part of the page too."""
        return style.render(self.figure, "svg")


Made = tuple[list[Drawing], list[str]]
"""Drawings, and a line for each kind that lacks its data."""


def draw(
    run: RunData, kinds: Sequence[str] | None, formats: Sequence[str] = ("svg", "png"), *, out: Path
) -> list[Path]:
    """Write figures into the directory `out`; a kind that lacks its data is left out with a line in the log.

    Args:
        run: the run to draw.
        kinds: some of `KINDS`; all by default.
        formats: some of `FORMATS`.
        out: where to; made if it is missing.

    Returns:
        The files, kind by kind.

    Raises:
        UsageError: a kind or a format that does not exist.
    """
    for form in formats:
        if form not in FORMATS:
            raise unknown("figure format", form, FORMATS)
    return save(make(run, kinds), formats, out=out)


def save(made: Made, formats: Sequence[str] = ("svg", "png"), *, out: Path) -> list[Path]:
    """Write figures that `make` made into the directory `out`, and log what is missing; returns the files."""
    drawings, notes = made
    for note in notes:
        log.warning(note)
    paths = []
    for drawing in drawings:
        for form in formats:
            path = out / f"{drawing.name}.{form}"
            write_bytes(path, drawing.svg if form == "svg" else style.render(drawing.figure, form))
            paths.append(path)
    return paths


def make(run: RunData, kinds: Sequence[str] | None = None) -> Made:
    """The figures of some of `KINDS` (all that fit the run by default), and a line for each whose data the run lacks.

    Raises:
        UsageError: a kind that does not exist.
    """
    drawings: list[Drawing] = []
    notes = []
    for kind in _of(run) if kinds is None else kinds:
        if kind not in MAKERS:
            raise unknown("figure", kind, KINDS)
        needs, maker = MAKERS[kind]
        with style.styled():
            made = list(maker(run))
        drawings += made
        if not made:
            notes.append(f"no figure of {kind}: the run has no {needs} yet")
    return drawings, notes


def _of(run: RunData) -> tuple[str, ...]:
    """The kinds that fit a run: of widths, of single weights, or of pruning methods."""
    if cases := (run.run.get("config") or {}).get("cases"):
        masked = any(case.startswith("magnitude=") for case in cases)
        return ("methods", "widths", *(["kernels"] if masked else []))
    if any(budget.startswith("weights=") for budget in (run.run.get("config") or {}).get("budget", ())):
        return ("accuracy", "kernels")
    return tuple(kind for kind in KINDS if kind not in ("kernels", "methods"))


def _widths(run: RunData) -> Iterator[Drawing]:
    names = run.space.stage_names if run.space else ()
    for number, budget in enumerate(run.budgets, start=1):
        frame = run.widths[run.widths["budget"] == budget].reset_index(drop=True)
        if len(frame):
            alt = f"Bars: the width of each of {len(frame)} slots under {budget}, for the base and the arms"
            yield Drawing(f"widths-{number}", widths(frame, budget, names), alt)


def _accuracy(run: RunData) -> Iterator[Drawing]:
    table = run.results
    if (table["arm"] != "base").any():
        best = table[table["arm"] != "base"].nlargest(1, "test_accuracy").iloc[0]
        most = f"{best['arm']} ({best['schedule']}) at {percent(best['test_accuracy'])} %"
        alt = f"Points: test accuracy of every arm against macs and against params; the highest is {most}"
        yield Drawing("accuracy", accuracy(table), alt)


def _methods(run: RunData) -> Iterator[Drawing]:
    table = run.results
    if run.space is not None and (table["arm"] == "pruned").any():
        cases = ", ".join(table["budget"][table["budget"] != ""].unique())
        alt = f"Points: test accuracy of pruned nets under every schedule against macs and params, for {cases}"
        yield Drawing("methods", methods(table, run.space.cost(run.space.base)), alt)


def _gamma(run: RunData) -> Iterator[Drawing]:
    if not run.scores or run.space is None:
        return
    stages = {slot.name: slot.stage for slot in run.space.slots}
    scores = {name: values for name, values in run.scores.items() if name in stages and len(values)}
    recorded = run.run.get("cuts") or {}
    cuts = {b: {cut["slot"]: (cut["kept"], cut["score"]) for cut in slots} for b, slots in recorded.items()}
    if scores:
        alt = f"Histograms: |gamma| of the channels of {len(set(stages.values()))} stages, with the cut of each budget"
        yield Drawing("gamma", gamma(scores, stages, cuts, run.space.stage_names), alt)


def _kernels(run: RunData) -> Iterator[Drawing]:
    rows = [
        (f"{rule.get('budget', '')}, {origin}", kernel_mean_from_dict(rule, str(run.path)))
        for origin, rules in (("source", run.priors), ("own", run.rules))
        for rule in rules
        if rule.get("kind") == "kernel-mean"
    ]
    if rows:
        alt = f"Heat maps: the shares of weights kept at each place of 3x3 kernels, a row each for {len(rows)} rules"
        yield Drawing("kernels", kernels(rows), alt)


def _study(run: RunData) -> Iterator[Drawing]:
    for number, budget in enumerate(run.budgets, start=1):
        trials = [trial for trial in run.trials if trial.budget == budget]
        if trials:
            seeds = origins(trials, _with_uniform(run, budget))
            alt = f"Points: validation accuracy of {len(trials)} trials under {budget}, with the best so far"
            yield Drawing(f"study-{number}", study(trials, seeds, _shares(run, trials, budget), budget), alt)


def _with_uniform(run: RunData, budget: str) -> pd.DataFrame:
    """The budget's lines of `widths.csv` with the uniform start of the study, which is no arm under a single bound."""
    frame = run.widths[run.widths["budget"] == budget]
    limits = _limits(run, budget)
    if run.space is None or not limits:
        return frame
    even = project(run.space, {slot.name: 1.0 for slot in run.space.slots}, Limits(tuple(limits.items())))
    return frame.assign(uniform=frame["slot"].map(even))


def _shares(run: RunData, trials: Sequence[TrialRow], budget: str) -> dict[str, dict[int, float]]:
    """Bounded cost -> trial number -> the share of the bound that its network takes."""
    limits, space = _limits(run, budget), run.space
    if space is None:
        return {}
    costs = {trial.number: space.cost(json.loads(trial.widths)) for trial in trials if trial.widths}
    return {kind: {n: cost.of(kind) / limit for n, cost in costs.items()} for kind, limit in limits.items()}


def _limits(run: RunData, budget: str) -> dict[str, float]:
    """Cost -> bound; empty where the run has no space, or its budget names a cost that is not ours."""
    if run.space is None:
        return {}
    try:
        return dict(Budget.parse(budget).limits(run.space).bounds)
    except PruneNasError:
        return {}


Maker = Callable[[RunData], Iterator[Drawing]]
MAKERS: dict[str, tuple[str, Maker]] = {
    "accuracy": ("finals.csv", _accuracy),
    "widths": ("widths.csv", _widths),
    "methods": ("finals.csv with a space.json", _methods),
    "gamma": ("scores.safetensors with a space.json", _gamma),
    "study": ("trials.csv", _study),
    "kernels": ("rules of single weights", _kernels),
}
KINDS = tuple(MAKERS)

__all__ = ["FORMATS", "KINDS", "Drawing", "draw", "make"]
