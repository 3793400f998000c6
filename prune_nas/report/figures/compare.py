"""Several runs over each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from prune_nas.design.patterns import pattern_of
from prune_nas.errors import UsageError, unknown
from prune_nas.report.figures import patterns, style
from prune_nas.report.figures.accuracy import accuracy
from prune_nas.report.figures.of_run import Drawing
from prune_nas.report.run_data import RunData

_SUBJECTS = ("pruned", "transferred", "found")  # whose pattern stands for a run


def side_by_side(runs: Sequence[RunData], kinds: Sequence[str] | None = None) -> tuple[list[Drawing], list[str]]:
    """Figures of several runs over each other: `accuracy` (one network's) and `widths` (of any networks).

    Returns:
        Drawings, and a line for each kind whose data the runs lack.

    Raises:
        UsageError: a kind of which there is no such figure, or a run given twice.
    """
    names = _names(runs)
    drawings, notes = [], []
    for kind in kinds or list(COMPARED):
        if kind not in COMPARED:
            raise unknown("figure of several runs", kind, COMPARED)
        with style.styled():
            made = list(COMPARED[kind](dict(zip(names, runs, strict=True))))
        drawings += made
        if not made:
            notes.append(f"no figure of {kind} over {', '.join(names)}: {_NEEDS[kind]}")
    return drawings, notes


def _names(runs: Sequence[RunData]) -> list[str]:
    """What each run is called: as much of its path's end as tells it from the others."""
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UsageError("--compare names a run twice")
    names: list[str] = []
    for path in paths:
        own = path.parts
        others = [other.parts for other in paths if other != path]
        length = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append("/".join(own[-length:]).lstrip("_"))  # matplotlib hides labels that begin with _
    return names


def _accuracy(runs: dict[str, RunData]) -> Iterator[Drawing]:
    if len({_subject(run) for run in runs.values()}) > 1:
        return
    parts = []
    for name, run in runs.items():
        parts.append(run.results.assign(run=name))
    frame = pd.concat(parts, ignore_index=True)
    if (frame["arm"] != "base").any():
        alt = f"Points: test accuracy of the arms of {len(runs)} runs against what they cost"
        yield Drawing("compare-accuracy", accuracy(frame), alt, frame)


def _subject(run: RunData) -> tuple[object, ...]:
    """What must be the same for accuracies to be compared: the network, its base and the data."""
    space = run.space
    base = None if space is None else (space.model, space.cost(space.base))
    return base, (run.run.get("data") or {}).get("fingerprint")


def _widths(runs: dict[str, RunData]) -> Iterator[Drawing]:
    found = []
    for name, run in runs.items():
        for budget in run.budgets:
            lines = run.widths[run.widths["budget"] == budget]
            arm = next((arm for arm in _SUBJECTS if arm in lines and lines[arm].notna().all()), None)
            if run.space is not None and arm is not None and len(lines):
                own = pattern_of(
                    run.space, dict(zip(lines["slot"], lines[arm].astype(int), strict=True)), f"{name} ({arm})"
                )
                found.append((budget, own))
    shared = {budget for budget, _ in found if len({p.name for b, p in found if b == budget}) > 1}
    if {own.name for _, own in found} == {own.name for budget, own in found if budget in shared}:  # no run is left out
        frame = patterns.table([(budget, own) for budget, own in found if budget in shared])
    else:
        frame = patterns.table([("", replace(own, name=f"{own.name}, {budget}")) for budget, own in found])
    if frame["pattern"].nunique() > 1:
        alt = f"Lines: what is kept of every slot by {frame['pattern'].nunique()} runs, by stage"
        yield Drawing("compare-widths", patterns.patterns(frame, "What is kept of every slot, run by run"), alt, frame)


_NEEDS = {
    "accuracy": "it takes runs of one network, at one width and on the same images (data set, train and val size)",
    "widths": "it takes runs with widths of an arm that was pruned, transferred or found",
}
COMPARED: dict[str, Callable[[dict[str, RunData]], Iterator[Drawing]]] = {"accuracy": _accuracy, "widths": _widths}
