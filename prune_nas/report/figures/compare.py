"""Several runs over each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
            notes.append(f"no figure of {kind} over all of {', '.join(names)}: they have none in common")
    return drawings, notes


def _names(runs: Sequence[RunData]) -> list[str]:
    """What each run is called: the name of its directory, with its parent's where two are alike."""
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UsageError("--compare names a run twice")
    alone = [path.name for path in paths]
    return [
        name if alone.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(alone, paths, strict=True)
    ]


def _accuracy(runs: dict[str, RunData]) -> Iterator[Drawing]:
    first = next(iter(runs.values())).space
    if any(run.space is None or first is None or run.space.model != first.model for run in runs.values()):
        return
    parts = []
    for name, run in runs.items():
        own = run.results[run.results["arm"] != "base"]
        parts.append(own.assign(budget=name + ": " + own["budget"]))
    frame = pd.concat(parts, ignore_index=True)
    if len(frame):
        alt = f"Points: test accuracy of the arms of {len(runs)} runs against what they cost"
        yield Drawing("compare-accuracy", accuracy(frame), alt, frame)


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
    frame = patterns.table([(b if shared else "", p) for b, p in found if b in shared or not shared])
    if frame["pattern"].nunique() > 1:
        alt = f"Lines: what is kept of every slot by {frame['pattern'].nunique()} runs, by stage"
        yield Drawing("compare-widths", patterns.patterns(frame, "What is kept of every slot, run by run"), alt, frame)


COMPARED: dict[str, Callable[[dict[str, RunData]], Iterator[Drawing]]] = {"accuracy": _accuracy, "widths": _widths}
