"""The verdict of a budget: what was found, how it stands against its rivals, and what to deploy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from prune_nas.design.budget import Limits
from prune_nas.design.evidence import (
    EQUIVALENCE,
    RANDOM_BEST,
    UNIFORM_ARMS,
    Comparison,
    Summary,
    by_arm,
    compare,
    summarise,
)
from prune_nas.design.records import SCHEMA, Expense, Final
from prune_nas.design.space import Space

_LEARNT = 0.02  # an accuracy that makes up less of the way from guessing to certainty is guessing
_FLOORED = 0.3  # of the slots, from which their floors are named
_FLAT = 0.1  # below this non-uniformity a shape is uniform scaling but for rounding and noise
_BEST = RANDOM_BEST.removeprefix("random")
_MAIN, _LONG, _REWIND = "scratch-e", "scratch-b", "rewind"
_RIVALS = ("transferred", "guided", "pruned", "taper", "random", "inherited")
_PLAIN = (*UNIFORM_ARMS, "taper")  # the shapes that need no search
_NO_SCRATCH_B = (
    "what uniform and the taper, which need no search, reach with the base's whole training compute (scratch-b) was "
    "not trained here; add it with --schedules scratch-b --arms {},uniform,taper"
)
Groups = Mapping[tuple[str, str], Sequence[Final]]


def verdict(
    budget: str,
    limits: Limits,
    finals: Sequence[Final],
    non_uniformity: float,
    within: Collection[str],
    failures: Mapping[str, str] = MappingProxyType({}),
    subject: str = "found",
) -> dict[str, Any]:
    """An element of `verdict.json`.

    Args:
        budget: canonical text.
        limits: the budget made absolute; decides which uniform net is the rival.
        finals: all rows of `finals.csv`.
        non_uniformity: of the subject's shape (`patterns.non_uniformity`).
        within: the arms that meet the budget; one of them may be deployed.
        failures: final trainings that failed, and why.
        subject: the arm that is compared with all others: `found`; where nothing was searched `transferred`; where
            nothing was transferred `pruned`.
    """
    own = [row for row in finals if row.budget in (budget, "")]
    groups = {(arm, schedule): rows for (_, arm, schedule), rows in by_arm(own).items()}
    against, longer = _comparisons(groups, limits, subject), _at_equal_compute(groups, subject)
    lacking = [] if any((arm, _LONG) in groups for arm in _PLAIN) else [_NO_SCRATCH_B.format(subject)]
    return {
        "schema": SCHEMA,
        "budget": budget,
        "subject": subject,
        "headline": _headline(against, subject, "weights" if limits.bounds[0][0] == "weights" else "widths"),
        "sentences": [
            *(comparison.sentence() for comparison in against[1:]),
            *(comparison.sentence() for comparison in longer),
            *lacking,
            *about_failures(failures),
            *_about_larger(own, within, limits),
            _about_shape(non_uniformity, subject, same=bool(against) and against[0].same),
        ],
        "non_uniformity": round(non_uniformity, 4),
        "comparisons": [{**asdict(c), "outcome": c.outcome} for c in (*against, *longer)],
        "deploy": _deploy(summarise(own), within, subject),
    }


def unless_untrained(said: dict[str, Any], finals: Iterable[Final], classes: int) -> dict[str, Any]:
    """The verdict as it is, or withheld where no arm is better than guessing: nets that learnt nothing are all alike.

    Args:
        said: from `verdict`.
        finals: all rows of `finals.csv`.
        classes: of the data set; guessing is right once in so many.
    """
    own = summarise(row for row in finals if row.budget in (said["budget"], ""))
    best = max((line.test_accuracy for line in own), default=1.0)
    if best - 1 / classes >= _LEARNT * (1 - 1 / classes):
        return said
    headline = (
        f"nothing can be compared: no arm learnt to tell the classes apart (the best has {100 * best:.1f} %, guessing "
        f"{100 / classes:.1f} %); train longer (--epochs), on more images (--train-size) or a wider net (--base-width)"
    )
    failed = [sentence for sentence in said["sentences"] if _FAILED in sentence]
    return {**said, "headline": headline, "sentences": failed, "comparisons": [], "deploy": None}


def _comparisons(groups: Groups, limits: Limits, subject: str) -> list[Comparison]:
    """The subject against every rival under one schedule: scratch-e where it was trained, else scratch-b.

    The uniform net that is matched on the bounded cost comes first: it is the headline's rival.
    """
    schedule = _MAIN if (subject, _MAIN) in groups else _LONG
    own = groups.get((subject, schedule), ())
    bounded = limits.bounds[0][0]
    uniform = sorted(UNIFORM_ARMS, key=lambda arm: arm.endswith(f"@{bounded}") or arm == "uniform", reverse=True)
    rivals = [
        groups.get((arm, _REWIND if arm == "inherited" else schedule), ())
        for arm in (*uniform, *_RIVALS)
        if arm != subject
    ]
    return [comparison for rival in rivals if (comparison := compare(own, rival)) is not None]


_FAILED = "failed and is in no comparison"
_ADVICE = {"widths": "scale this network uniformly", "weights": "spread the weights evenly"}
_RIVAL = {"widths": "uniform scaling", "weights": "an even spread"}


def _headline(comparisons: Sequence[Comparison], subject: str, what: str) -> str:
    if not comparisons:
        return f"no comparison yet: the finals hold no seed on which both {subject} and a rival were trained"
    first = comparisons[0]
    if not first.right.startswith("uniform"):
        return first.sentence()
    if first.outcome in ("equivalent", "same"):
        return f"{first.sentence()}; {_ADVICE[what]}"
    if subject == "transferred" and first.outcome in ("undecided", "loses"):
        return f"{first.sentence()}; no gain over {_RIVAL[what]} was shown"
    return first.sentence()


def _at_equal_compute(groups: Groups, subject: str) -> list[Comparison]:
    """What the base's whole compute makes of shapes that need no search: at equal epochs a small net trains on less."""
    own = [(subject, _LONG if (subject, _LONG) in groups else _MAIN)] if (subject, _MAIN) in groups else []
    against = (*own, ("base", _MAIN))  # under scratch-b alone the subject was compared already
    pairs = [
        compare(groups[arm, _LONG], groups[rival])
        for arm in _PLAIN
        for rival in against
        if (arm, _LONG) in groups and rival in groups
    ]
    return [pair for pair in pairs if pair is not None]


def _about_larger(own: Iterable[Final], within: Collection[str], limits: Limits) -> list[str]:
    """Which arms are over the budget, since they are matched to the subject by another cost."""
    kinds = [kind for kind, _ in limits.bounds]
    over = {
        row.arm: ", ".join(f"{getattr(row, kind):,} {kind}" for kind in kinds if hasattr(row, kind))
        for row in own
        if row.arm in UNIFORM_ARMS and row.arm not in within
    }
    if not over:
        return []
    spoken = "; ".join(f"{arm} ({cost})" if cost else arm for arm, cost in over.items())
    return [f"over the budget, there for comparison at another equal cost, and never to deploy: {spoken}"]


def about_failures(failures: Mapping[str, str]) -> list[str]:
    """A sentence for every training that failed, and why."""
    return [f"{name} {_FAILED}: {why}" for name, why in failures.items()]


def _about_shape(non_uniformity: float, subject: str, *, same: bool) -> str:
    tail = ": within rounding of uniform scaling" if non_uniformity < _FLAT else ""
    if same and not tail:
        tail = "; it is the uniform net all the same: floors and rounding make the difference"
    return (
        f"non-uniformity of the {subject} shape: {non_uniformity:.2f} "
        f"(deviation of its keep ratios over their mean){tail}"
    )


def about_floors(space: Space, widths: Mapping[str, int]) -> list[str]:
    """Where a good part of the slots lie at their floor: that the budget, and not the shape, decides their widths."""
    room = [slot for slot in space.slots if slot.floor < slot.ceiling]
    floored = sum(widths[slot.name] <= slot.floor for slot in room)
    if floored < _FLOORED * len(room) or not floored:
        return []
    return [
        f"{floored} of {len(room)} slots lie at their floor, so that the budget leaves little to choose: take a wider "
        "base, a looser budget, or lower floors in a --space file"
    ]


def about_search(budget: str, base: int, expenses: Iterable[Expense]) -> list[str]:
    """What a budget's search cost, in trainings of the base, which takes `base` training macs."""
    costs = [e for e in expenses if e.phase == "supernet" or (e.phase == "study" and e.budget == budget)]
    spent = sum(e.train_macs for e in costs)
    if not spent:
        return []
    phases = "supernet and this budget's study" if any(e.phase == "supernet" for e in costs) else "this budget's study"
    return [f"the search ({phases}) cost {spent / base:.1f} trainings of the base"]


def _deploy(summaries: Iterable[Summary], within: Collection[str], subject: str) -> dict[str, Any] | None:
    """The arm to use: the best mean validation accuracy among those within the budget; the test split has no say.

    Of arms within half a point of the best the subject is taken, then a uniform net, a random shape last: less than
    that says nothing. `random` stands for the median of several nets and is no net itself; its best one may be chosen.
    """
    own = [s for s in summaries if s.budget and s.arm.removesuffix(_BEST) in within and s.candidates == 1]
    if not own:
        return None
    order = (subject, *UNIFORM_ARMS)
    top = max(s.val_accuracy for s in own) - EQUIVALENCE
    best = min(
        (s for s in own if s.val_accuracy >= top),
        key=lambda s: (order.index(s.arm) if s.arm in order else len(order) + (s.arm == RANDOM_BEST), -s.val_accuracy),
    )
    return {
        "arm": best.arm,
        "schedule": best.schedule,
        "val_accuracy": best.val_accuracy,
        "macs": best.macs,
        "params": best.params,
    }
