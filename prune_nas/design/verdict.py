"""The verdict of a budget: what was found, how it stands against its rivals, and what to deploy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prune_nas.design.evidence import (
    UNIFORM_ARMS,
    Comparison,
    Summary,
    by_arm,
    compare,
    summarise,
)
from prune_nas.design.records import SCHEMA, Expense, Final

RIVALS = (*UNIFORM_ARMS, "taper", "random", "pruned", "guided", "inherited")
_FLAT = 0.1  # below this non-uniformity a shape is uniform scaling but for rounding and noise
_MAIN = "scratch-e"
_LONG = "scratch-b"


def verdict(budget: str, finals: Sequence[Final], expenses: Iterable[Expense], non_uniformity: float) -> dict[str, Any]:
    """An element of `verdict.json`.

    Args:
        budget: canonical text.
        finals: all rows of `finals.csv`.
        expenses: all rows of `ledger.csv`.
        non_uniformity: of the found shape (`rules.non_uniformity`).
    """
    own = [row for row in finals if row.budget in (budget, "")]
    groups = {(arm, schedule): rows for (_, arm, schedule), rows in by_arm(own).items()}
    against = _comparisons(groups)
    summaries = summarise(own)
    return {
        "schema": SCHEMA,
        "budget": budget,
        "headline": _headline(against),
        "sentences": [
            *(comparison.sentence() for comparison in against[1:]),
            *_about_equal_compute(groups),
            _about_shape(non_uniformity),
            *_about_search(budget, finals, expenses),
        ],
        "non_uniformity": round(non_uniformity, 4),
        "comparisons": [{**asdict(c), "outcome": c.outcome} for c in against],
        "deploy": _deploy(summaries),
    }


def _comparisons(groups: Mapping[tuple[str, str], Sequence[Final]]) -> list[Comparison]:
    found = groups.get(("found", _MAIN))
    if found is None:
        return []
    rivals = [groups.get((arm, "rewind" if arm == "inherited" else _MAIN)) for arm in RIVALS]
    return [c for rival in rivals if rival is not None and (c := compare(found, rival)) is not None]


def _headline(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "no comparison yet: the finals hold no seed on which both found and a rival were trained"
    first = comparisons[0]
    if first.outcome in ("equivalent", "same"):
        return f"{first.sentence()}; scale this network uniformly"
    return first.sentence()


def _about_equal_compute(groups: Mapping[tuple[str, str], Sequence[Final]]) -> list[str]:
    """What training uniform for the base's whole compute changes: at equal epochs a small net trains on less."""
    sentences = []
    for arm in UNIFORM_ARMS:
        long = groups.get((arm, _LONG))
        if long is None:
            continue
        for rival in (("found", _MAIN), ("found", _LONG), ("base", _MAIN)):
            comparison = compare(long, groups[rival]) if rival in groups else None
            if comparison is not None:
                sentences.append(comparison.sentence())
    if not sentences:
        sentences.append(
            "what uniform reaches with the base's whole training compute (scratch-b) was not trained here; "
            "add it with --schedules scratch-b --arms found,uniform"
        )
    return sentences


def _about_shape(non_uniformity: float) -> str:
    tail = ": within rounding of uniform scaling" if non_uniformity < _FLAT else ""
    return f"non-uniformity of the found shape: {non_uniformity:.2f} (stage keep ratios, deviation over mean){tail}"


def _about_search(budget: str, finals: Sequence[Final], expenses: Iterable[Expense]) -> list[str]:
    """What finding it cost, in trainings of the base."""
    base = next((row.train_macs for row in finals if row.arm == "base"), 0)
    costs = [e for e in expenses if e.phase == "supernet" or (e.phase == "study" and e.budget == budget)]
    spent = sum(e.train_macs for e in costs)
    if not base or not spent:
        return []
    return [f"the search (supernet and this budget's study) cost {spent / base:.1f} trainings of the base"]


def _deploy(summaries: Iterable[Summary]) -> dict[str, Any] | None:
    """The arm to use: the best mean validation accuracy among the budget's own arms; the test split has no say."""
    own = [s for s in summaries if s.budget]
    if not own:
        return None
    best = max(own, key=lambda s: s.val_accuracy)
    return {
        "arm": best.arm,
        "schedule": best.schedule,
        "val_accuracy": best.val_accuracy,
        "macs": best.macs,
        "params": best.params,
    }
