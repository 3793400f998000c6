"""Which figures a run has, and what each needs from its files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from prune_nas.design.answer import Timing
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.kernels import kernel_mean_from_dict
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import uniform_widths
from prune_nas.design.rules import rule_from_dict
from prune_nas.errors import PruneNasError
from prune_nas.report.figures import curves, gamma, kernels, ledger, parallel, patterns, rule, study, style
from prune_nas.report.figures.accuracy import accuracy
from prune_nas.report.figures.methods import methods
from prune_nas.report.figures.widths import widths
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import percent


@dataclass(frozen=True)
class Drawing:
    """A figure, the stem of its file, what it shows in words for those who cannot see it, and the data behind it."""

    name: str
    figure: Figure
    alt: str
    data: pd.DataFrame

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, which is a file and a part of the page too."""
        return style.render(self.figure, "svg")


_PANELS = 60  # of more slots the histograms would be too small to read, and slow to draw


def kinds_of(run: RunData) -> tuple[str, ...]:
    """The kinds that fit a run: of widths, of single weights, or of pruning methods, with what it skipped left out."""
    config = run.run.get("config") or {}
    if cases := config.get("cases"):
        masked = any(case.startswith("magnitude=") for case in cases)
        return ("methods", "widths", *(["kernels"] if masked else []), "stability", "curves", "ledger")
    if any(budget.startswith("weights=") for budget in config.get("budget", ())):
        return ("accuracy", "kernels", "curves", "ledger")
    left_out = {"kernels", "methods", "stability"}
    if (run.run.get("phases") or {}).get("study") == "skipped":
        left_out |= {"study", "parallel"}
    if (run.run.get("phases") or {}).get("supernet") == "skipped":
        left_out |= {"gamma"}
    return tuple(kind for kind in KINDS if kind not in left_out)


def _widths(run: RunData) -> Iterator[Drawing]:
    names = run.space.stage_names if run.space else ()
    for number, budget in enumerate(run.budgets, start=1):
        frame = _lines(run, budget)
        if len(frame):
            alt = f"Bars: the width of each of {len(frame)} slots under {budget}, for the base and the arms"
            yield Drawing(f"widths-{number}", widths(frame, budget, names), alt, frame)


def _accuracy(run: RunData) -> Iterator[Drawing]:
    table = run.results
    if (table["arm"] != "base").any():
        times = {
            (verdict.get("budget"), arm): float(measured["median_ms"])
            for verdict in run.verdicts
            for arm, measured in (verdict.get("latency") or {}).items()
            if Timing(float(measured["median_ms"]), float(measured["iqr_ms"])).reliable
        }
        keys = zip(table["budget"], table["arm"], strict=True)
        table = table.assign(latency=[times.get(key, math.nan) for key in keys])
        best = table[table["arm"] != "base"].nlargest(1, "test_accuracy").iloc[0]
        most = f"{best['arm']} ({best['schedule']}) at {percent(best['test_accuracy'])} %"
        alt = f"Points: test accuracy of every arm against its cost. The highest is {most}"
        yield Drawing("accuracy", accuracy(table), alt, table)


def _methods(run: RunData) -> Iterator[Drawing]:
    table = run.results
    if run.space is not None and (table["arm"] == "pruned").any():
        cases = ", ".join(table["budget"][table["budget"] != ""].unique())
        alt = f"Points: test accuracy of pruned nets under every schedule against macs and params, for {cases}"
        yield Drawing("methods", methods(table, run.space.cost(run.space.base)), alt, table)


def _gamma(run: RunData) -> Iterator[Drawing]:
    if run.space is None:
        return
    frame = gamma.channels(run.scores, run.space)
    if len(frame):
        cuts = gamma.cuts_of(run.run.get("cuts") or {}, run.space)
        alt = f"Histograms: |gamma| of the channels of {frame['stage'].nunique()} stages, with the cut of each budget"
        yield Drawing("gamma", gamma.gamma(frame, cuts, run.space.stage_names), alt, frame)
        alt = f"Histograms: |gamma| of the channels of {frame['slot'].nunique()} slots, with the cut of each budget"
        if frame["slot"].nunique() <= _PANELS:
            yield Drawing("gamma-slots", gamma.gamma_of_slots(frame, cuts), alt, frame)


def _kernels(run: RunData) -> Iterator[Drawing]:
    rows = [
        (f"{rule.get('budget', '')}, {origin}", kernel_mean_from_dict(rule, str(run.path)))
        for origin, rules in (("source", run.priors), ("own", run.rules))
        for rule in rules
        if rule.get("kind") == "kernel-mean"
    ]
    if rows:
        frame = kernels.places(rows)
        alt = f"Heat maps: the shares of weights kept at each place of 3x3 kernels, a row each for {len(rows)} rules"
        yield Drawing("kernels", kernels.kernels(frame), alt, frame)


def _study(run: RunData) -> Iterator[Drawing]:
    for number, budget in enumerate(run.budgets, start=1):
        trials = [trial for trial in run.trials if trial.budget == budget]
        if trials:
            frame = study.trials_table(trials, _with_uniform(run, budget), run.space, _limits(run, budget))
            alt = f"Points: validation accuracy of {len(trials)} trials under {budget}, with the best so far"
            yield Drawing(f"study-{number}", study.study(frame, budget), alt, frame)


def _parallel(run: RunData) -> Iterator[Drawing]:
    for number, budget in enumerate(run.budgets, start=1):
        if run.space is None:
            return
        trials = [trial for trial in run.trials if trial.budget == budget]
        frame = parallel.candidates(trials, run.space, _found(run, budget))
        if len(frame):
            alt = f"Lines: what each of {len(frame)} candidates under {budget} keeps of every stage, by its accuracy"
            yield Drawing(f"parallel-{number}", parallel.parallel(frame, budget, run.space.stage_names), alt, frame)


def _rule(run: RunData) -> Iterator[Drawing]:
    for number, budget in enumerate(run.budgets, start=1):
        lines, slots = [], _lines(run, budget)
        for name, rules in (("transferred", run.priors), ("guided", run.rules)):
            for one in rules:
                if one.get("budget") == budget and "parameters" in one and one.get("kind") != "kernel-mean":
                    fit = one.get("fit") or {}
                    made = rule_from_dict(one, str(run.path))
                    stages = made.stages or (run.space.stages if run.space else 1)
                    lines.append(rule.line(name, made, stages, fit.get("spread") or (), fit.get("residual") or 0.0))
        if lines and len(slots):
            frame = pd.concat(lines, ignore_index=True)
            alt = f"Lines: the rule of each stage under {budget} with its uncertainty, and the slots that it stands for"
            names = run.space.stage_names if run.space else ()
            yield Drawing(f"rule-{number}", rule.rule(frame, slots, budget, names), alt, frame)


def _stability(run: RunData) -> Iterator[Drawing]:
    space = run.space
    if space is None:
        return
    found = [
        (str(one["case"]), pattern_of(space, one["widths"], f"seed {one['seed']}"))
        for one in run.pruned
        if one.get("widths")
    ]
    several = {case for case, _ in found if sum(case == other for other, _ in found) > 1}
    frame = patterns.table([(case, pattern) for case, pattern in found if case in several])
    if len(frame):
        alt = f"Lines: what pruning left of every slot, a line a seed, for {len(several)} cases"
        title = "What pruning left, seed by seed"
        yield Drawing("stability", patterns.patterns(frame, title, space.stage_names), alt, frame)


def _curves(run: RunData) -> Iterator[Drawing]:
    if not run.curves:
        return
    whole, finals = run.frame("curves"), run.frame("finals")
    config = run.run.get("config") or {}
    for number, budget in enumerate(run.budgets or config.get("budget") or config.get("cases") or (), start=1):
        frame = curves.series(whole, budget, finals if len(finals) else None)
        if len(frame):
            alt = f"Lines: validation accuracy and loss of every training under {budget} by epoch"
            yield Drawing(f"curves-{number}", curves.curves(frame, budget), alt, frame)


def _ledger(run: RunData) -> Iterator[Drawing]:
    rows = run.frame("ledger")
    if len(rows) and rows["train_macs"].any():
        subject = next((str(verdict["subject"]) for verdict in run.verdicts if "subject" in verdict), "found")
        frame = ledger.parts(rows, subject)
        base = rows[(rows["arm"] == "base") & (rows["trainings"] > 0)]
        each = (base["train_macs"].astype(float) / base["trainings"]).max() if len(base) else None
        shares = 100 * frame["train_macs"] / frame["train_macs"].sum()
        words = ", ".join(f"{part} {share:.0f} %" for part, share in zip(frame["part"], shares, strict=True))
        yield Drawing(
            "ledger", ledger.ledger(frame, each), f"Bars: what the training compute was spent on: {words}", frame
        )


def _lines(run: RunData, budget: str) -> pd.DataFrame:
    """The budget's lines of `widths.csv`."""
    return run.widths[run.widths["budget"] == budget].reset_index(drop=True)


def _found(run: RunData, budget: str) -> dict[str, int] | None:
    """The widths of what the study found; None before its end."""
    frame = _lines(run, budget)
    if "found" not in frame or frame["found"].isna().any():
        return None
    return {slot: int(width) for slot, width in zip(frame["slot"], frame["found"], strict=True)}


def _with_uniform(run: RunData, budget: str) -> pd.DataFrame:
    """The budget's lines of `widths.csv` with the uniform start of the study, which is no arm under a single bound."""
    frame = _lines(run, budget)
    limits = _limits(run, budget)
    if run.space is None or not limits:
        return frame
    even = uniform_widths(run.space, Limits(tuple(limits.items())))
    return frame.assign(uniform=frame["slot"].map(even))


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
    "rule": ("rule.json with a widths.csv", _rule),
    "study": ("trials.csv", _study),
    "parallel": ("trials.csv with a space.json", _parallel),
    "kernels": ("rules of single weights", _kernels),
    "stability": ("nets pruned with several seeds", _stability),
    "curves": ("curves.csv", _curves),
    "ledger": ("ledger.csv", _ledger),
}
KINDS = tuple(MAKERS)
