"""The verdict of a budget: how what was found stands against its rivals, and what to deploy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from prune_nas.design.arms import UNIFORM_ARMS
from prune_nas.design.budget import Limits
from prune_nas.design.evidence import (
    EQUIVALENCE,
    FEWEST,
    RANDOM_BEST,
    Comparison,
    Summary,
    by_arm,
    compare,
    seeds_needed,
    summarise,
)
from prune_nas.design.learning import Chance
from prune_nas.design.records import SCHEMA, Expense, Final
from prune_nas.design.space import Space
from prune_nas.design.words import capital, percent, spoken

_FLOORED = 0.3  # of the slots, from which their floors are named
_BEST = RANDOM_BEST.removeprefix("random")
_MAIN, _LONG, _REWIND = "scratch-e", "scratch-b", "rewind"
_RIVALS = ("transferred", "guided", "pruned", "taper", "random", "inherited")
_PLAIN = (*UNIFORM_ARMS, "taper")  # the shapes that need no search
FAILED = " failed, so no comparison contains it: "
_NONE = Chance(0.0, 1)
PROBED = "choice of the optimiser"
_MANY = 30  # seeds: more than anybody trains
_NO_SCRATCH_B = (
    "Not tested: {rivals} with the training compute of the unpruned network, the fairest comparison. Add it: repeat "
    "the command with --schedules scratch-b --arms {arms}."
)
OF_SUPERNET = ("pruned", "guided", "inherited")  # the arms whose widths are read from the supernet's scores
Groups = Mapping[tuple[str, str], Sequence[Final]]


def verdict(
    budget: str,
    limits: Limits,
    finals: Sequence[Final],
    within: Collection[str],
    failures: Mapping[str, str] = MappingProxyType({}),
    subject: str = "found",
    *,
    chance: Chance = _NONE,
    noise: str = "",
) -> dict[str, Any]:
    """An element of `verdict.json`.

    Args:
        budget: canonical text.
        limits: the budget made absolute.
        finals: all rows of `finals.csv`.
        within: the arms that meet the budget; one of them may be deployed.
        failures: final trainings that failed, and why.
        subject: the arm that is compared with all others: `found`; where nothing was searched `transferred`; where
            nothing was transferred `pruned`.
        chance: what guessing reaches on the validation images.
        noise: that the supernet did not learn, in a sentence; then no arm is deployed whose widths come from it.
    """
    own = [row for row in finals if row.budget in (budget, "")]
    summaries = summarise(own)
    best = max((line.val_accuracy for line in summaries), default=1.0)
    if not chance.is_beaten(best):
        return withheld(budget, subject, best, chance, failures)
    groups = {(arm, schedule): rows for (_, arm, schedule), rows in by_arm(own).items()}
    against, longer = _comparisons(groups, limits, subject), _at_equal_compute(groups, subject)
    lacking = [] if any((arm, _LONG) in groups for arm in _PLAIN) else [_no_scratch_b(subject, budget)]
    chosen = [line for line in summaries if line.arm in within or line.arm.removesuffix(_BEST) in within]
    allowed = [
        line for line in chosen if chance.is_beaten(line.val_accuracy) and not (noise and line.arm in OF_SUPERNET)
    ]
    return {
        "schema": SCHEMA,
        "budget": budget,
        "subject": subject,
        "headline": " ".join(filter(None, [noise, _headline(against, subject)])),
        "sentences": [
            *(comparison.sentence() for comparison in against[1:]),
            *(comparison.sentence() for comparison in longer),
            *lacking,
            *_about_seeds([*against, *longer]),
            *about_failures(failures),
            *_about_larger(own, within, limits),
        ],
        "comparisons": [{**asdict(c), "outcome": c.outcome} for c in (*against, *longer)],
        "deploy": _deploy(allowed, subject),
        "learnt": True,
    }


def withheld(budget: str, subject: str, best: float, chance: Chance, failures: Mapping[str, str]) -> dict[str, Any]:
    """The verdict where no network is better than guessing: those that learnt nothing are all alike."""
    return {
        "schema": SCHEMA,
        "budget": budget,
        "subject": subject,
        "headline": (
            f"Nothing can be compared: no network learnt to tell the classes apart. The best has {percent(best)} on "
            f"validation, guessing gives {percent(chance.guessing)}. Train longer (--epochs), or with another "
            "--optimizer."
        ),
        "sentences": about_failures(failures),
        "comparisons": [],
        "deploy": None,
        "learnt": False,
    }


def _comparisons(groups: Groups, limits: Limits, subject: str) -> list[Comparison]:
    """The subject against every rival under one schedule: scratch-e where it was trained, else scratch-b.

    The uniform network of the budgeted cost comes first. Rivals that are one network are compared once, under the first
    of their names.
    """
    bounded = limits.bounds[0][0]
    uniform = sorted(UNIFORM_ARMS, key=lambda arm: arm not in ("uniform", f"uniform@{bounded}"))
    schedule = _MAIN if (subject, _MAIN) in groups else _LONG
    own = groups.get((subject, schedule), ())
    rivals = [
        groups.get((arm, _REWIND if arm == "inherited" else schedule), ())
        for arm in (*uniform, *_RIVALS)
        if arm != subject
    ]
    seen: set[frozenset[tuple[str, int, str]]] = set()
    found = []
    for rival in rivals:
        trainings = frozenset((row.candidate, row.seed, row.schedule) for row in rival)
        if trainings not in seen and (comparison := compare(own, rival)) is not None:
            seen.add(trainings)
            found.append(comparison)
    return found


def _headline(comparisons: Sequence[Comparison], subject: str) -> str:
    if not comparisons:
        return f"No comparison yet: the finals hold no seed on which both {spoken(subject)} and a rival were trained."
    first = comparisons[0]
    if not first.right.startswith("uniform"):
        return first.sentence()
    if first.same:
        return "The search ended at uniform scaling: both have the same widths, so they were trained once."
    if subject == "transferred" and first.outcome in ("undecided", "worse", "equivalent"):
        return f"{first.sentence()} No gain over uniform scaling was shown."
    return first.sentence()


def _at_equal_compute(groups: Groups, subject: str) -> list[Comparison]:
    """What the base's whole compute makes of shapes that need no search: at equal epochs a small net trains on less."""
    own = [(subject, _LONG if (subject, _LONG) in groups else _MAIN)] if (subject, _MAIN) in groups else []
    against = (*own, ("base", _MAIN))  # under scratch-b alone the subject was compared already
    found, seen = [], set()
    for arm in _PLAIN:
        rows = groups.get((arm, _LONG), ())
        trainings = frozenset((row.candidate, row.seed) for row in rows)
        if trainings in seen:  # another name of a network that was compared already
            continue
        seen.add(trainings)
        found += [compare(rows, groups[rival]) for rival in against if rival in groups]
    return [pair for pair in found if pair is not None and not pair.same]


def _no_scratch_b(subject: str, budget: str) -> str:
    masks = budget.startswith("weights")  # there is no taper of single weights
    rivals = "an even share of weights" if masks else "uniform scaling and the taper"
    return _NO_SCRATCH_B.format(rivals=rivals, arms=f"{subject},uniform" if masks else f"{subject},uniform,taper")


def _about_seeds(comparisons: Sequence[Comparison]) -> list[str]:
    """How many seeds would decide a difference of a point, said once for all that is undecided."""
    open_ones = [one for one in comparisons if one.outcome == "undecided"]
    if not open_ones:
        return []
    n, needed = min(one.n for one in open_ones), seeds_needed(open_ones)
    many = "1 comparison is" if len(open_ones) == 1 else f"{len(open_ones)} comparisons are"
    if needed is None and n < FEWEST:
        return [f"{many} undecided at n = {n}. Repeat the command with --seeds {FEWEST} or more."]
    if needed is None:
        return [f"{many} undecided at n = {n}. How many seeds would decide a difference of one point is not known."]
    if needed <= n:
        return [f"{many} undecided at n = {n}, though n is enough to decide a difference of one point."]
    if needed > _MANY:
        return [
            f"{many} undecided at n = {n}. Seeds alone will hardly decide a difference of one point: about {needed} "
            "would be needed. More validation and test images make the spread smaller."
        ]
    return [
        f"{many} undecided at n = {n}. To decide a difference of one point, about {needed} seeds are needed: repeat "
        f"the command with --seeds {needed}."
    ]


def _about_larger(own: Iterable[Final], within: Collection[str], limits: Limits) -> list[str]:
    """Which arms are over the budget: they were asked for, and are matched to the subject by another cost."""
    bounds = [(kind, limit) for kind, limit in limits.bounds if kind in ("macs", "params")]
    over = {
        row.arm: ", ".join(f"{getattr(row, kind):,} of {limit:,.0f} {kind}" for kind, limit in bounds)
        for row in own
        if row.arm in UNIFORM_ARMS and row.arm not in within
    }
    return [
        capital(f"{spoken(arm)} is over the budget{f' ({cost})' if cost else ''}. It is a rival only, and never used.")
        for arm, cost in over.items()
    ]


def about_failures(failures: Mapping[str, str]) -> list[str]:
    """A sentence for every training that failed, and why."""
    return [f"{name}{FAILED}{why}" for name, why in failures.items()]


def about_floors(space: Space, widths: Mapping[str, int]) -> list[str]:
    """Where a good part of the slots lie at their floor: that the budget, and not the shape, decides their widths."""
    room = [slot for slot in space.slots if slot.floor < slot.ceiling]
    floored = sum(widths[slot.name] <= slot.floor for slot in room)
    if floored < _FLOORED * len(room) or not floored:
        return []
    return [
        f"{floored} of {len(room)} widths lie at their floor, so the budget leaves little to choose. Take a wider "
        "network, a looser budget, or lower floors in a --space file."
    ]


def about_shape(keeps: Sequence[float], subject: str) -> str:
    """How unevenly a shape keeps the channels of its layers.

    Args:
        keeps: share of the channels that each slot keeps.
        subject: the arm.
    """
    mean = sum(keeps) / len(keeps)
    return (
        f"The layers of {spoken(subject)} keep {100 * min(keeps):.0f} % to {100 * max(keeps):.0f} % of their channels, "
        f"{100 * mean:.0f} % on average."
    )


def search_cost(budget: str, expenses: Iterable[Expense]) -> tuple[int, float, str]:
    """Training macs and seconds of a budget's search, and its phases in words."""
    costs = [e for e in expenses if e.phase in ("supernet", "probe") or (e.phase == "study" and e.budget == budget)]
    names = {"probe": PROBED, "supernet": "supernet", "study": "study"}
    phases = [word for phase, word in names.items() if any(e.phase == phase and e.train_macs for e in costs)]
    return sum(e.train_macs for e in costs), sum(e.seconds for e in costs), ", ".join(phases)


def _deploy(lines: Sequence[Summary], subject: str) -> dict[str, Any] | None:
    """The arm to use: the best mean validation accuracy; the test split has no say.

    Of arms within half a point of the best the subject is taken, then uniform scaling, random widths last: less than
    that says nothing. `random` stands for the median of several nets and is no net itself; its best one may be chosen.
    """
    own = [s for s in lines if s.budget and s.candidates == 1]
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
