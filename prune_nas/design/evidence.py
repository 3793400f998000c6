"""From the rows of the finals to statements: summaries with n and spread, paired intervals, a verdict.

Every comparison is paired by seed, since two arms trained with one seed see the same batches. The interval is
Student's t over the per-seed differences. A comparison is in one of three states: better or worse (the interval lies
beside 0, from three seeds on), equivalent (it lies within half a point), undecided (anything else). Nothing here
chooses a network: the finals' test accuracies are read here for the first time, and what to deploy is chosen by
validation accuracy alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev

from prune_nas.design.records import KEPT, Final
from prune_nas.design.significance import p_value, spread_of
from prune_nas.design.subject import counts_apart
from prune_nas.design.words import ARMS, capital, span, spoken

CONFIDENCE = 0.95
EQUIVALENCE = 0.005  # accuracies whose interval lies within half a point of each other are called equivalent
FEWEST = 3  # seeds, below which there is no interval
_DECIDING = 0.01  # half the width of an interval that decides a difference of a point
_MOST_SEEDS = 1000
_APART = 0.02  # macs of two sides that differ by more stand in the sentence
RANDOM_BEST = "random (best)"
FORMER = "former "  # the prefix of an arm whose candidate has been replaced


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the finals' table: an arm under a schedule, over its seeds.

    Accuracies are in [0, 1]; `std` is the sample standard deviation of the test accuracy over `n` seeds (None at
    n = 1); `train_macs` is the mean of one training. `candidate` is the digest of its widths, empty where there are
    several.
    """

    budget: str
    arm: str
    schedule: str
    n: int
    candidates: int
    epochs: int
    macs: int
    params: int
    val_accuracy: float
    test_accuracy: float
    std: float | None
    train_macs: int
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference in test accuracy, left minus right.

    Attributes:
        left: arm, with its schedule unless both sides are scratch-e.
        right: the same of the rival.
        schedule: of both sides, or of each.
        n: seeds that both were trained with.
        difference: mean over the seeds.
        low: of the 95 % interval; None below three seeds, and where the differences do not vary.
        high: of the interval.
        same: whether both are one network, trained once.
        p: two-sided p-value under Student's t; None where `low` is.
        left_macs: of the left network.
        right_macs: of the right one.
        spread: standard deviation of the differences; None where they do not vary.
    """

    left: str
    right: str
    schedule: str
    n: int
    difference: float
    low: float | None
    high: float | None
    same: bool = False
    p: float | None = None
    left_macs: int = 0
    right_macs: int = 0
    spread: float | None = None

    @property
    def outcome(self) -> str:
        """`same` (one network), `better`, `worse`, `equivalent` or `undecided`."""
        if self.same:
            return "same"
        if self.low is None or self.high is None:
            return "undecided"
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        if self.low >= -EQUIVALENCE and self.high <= EQUIVALENCE:
            return "equivalent"
        return "undecided"

    def sentence(self) -> str:
        """The comparison in words, with its interval and n, and the macs of both sides where they differ."""
        left, right = _spoken(self.left), _spoken(self.right)
        if self.same:
            return capital(f"{left} and {right} have the same widths, so they were trained once.")
        gap = f"{100 * self.difference:+.1f} points"
        said = f"{left} against {right}: undecided, {gap} (n = {self.n})"
        if self.low is not None and self.high is not None:
            interval_ = span(self.low, self.high, self.n)
            match self.outcome:
                case "better":
                    said = f"{left} is better than {right} by {100 * self.difference:.1f} points ({interval_})"
                case "worse":
                    turned = span(-self.high, -self.low, self.n)
                    said = f"{left} is worse than {right} by {-100 * self.difference:.1f} points ({turned})"
                case "equivalent":
                    within = f"within {100 * EQUIVALENCE:g} points"
                    said = f"{left} and {right} are equivalent: {gap} ({interval_}, {within})"
                case _:
                    said = f"{left} against {right}: undecided, {gap} ({interval_})"
        elif self.n >= FEWEST:
            said = (
                f"{left} against {right}: undecided. The difference is {gap} on each of {self.n} seeds, so no "
                "interval can be computed"
            )
        return capital(f"{said}{self._about_macs()}.")

    def _about_macs(self) -> str:
        if not (self.left_macs and self.right_macs) or abs(self.right_macs / self.left_macs - 1) <= _APART:
            return ""
        right, share = capital(_spoken(self.right)), f"{100 * self.right_macs / self.left_macs:.0f} %"
        theirs, mine = counts_apart(self.right_macs, self.left_macs)
        return f". {right} has {share} of the macs: {theirs} against {mine}"


def _spoken(name: str) -> str:
    """An arm that may have its schedule behind it, in words."""
    if name in ARMS:
        return ARMS[name]
    arm, sign, schedule = name.rpartition(" (")
    return f"{spoken(arm)} ({schedule}" if sign else name


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval of the mean of paired differences of accuracies at 95 %, within what those can differ by.

    None below three of them, and where they have no spread (`significance.spread_of`).
    """
    n, spread = len(differences), spread_of(differences)
    if spread is None or n < FEWEST:
        return None
    half = _half(spread, n)
    return max(fmean(differences) - half, -1.0), min(fmean(differences) + half, 1.0)


def seeds_needed(comparisons: Iterable[Comparison]) -> int | None:
    """Seeds at which a difference of one point would be decided in the most spread of these comparisons.

    None where nothing is known of their spread, or where a thousand seeds are too few.
    """
    spreads = [one.spread for one in comparisons if one.spread is not None]
    if not spreads:
        return None
    enough = (n for n in range(FEWEST, _MOST_SEEDS) if _half(max(spreads), n) <= _DECIDING)
    return next(enough, None)


def _half(spread: float, n: int) -> float:
    """Half the width of the interval of a mean of n differences."""
    from scipy.special import stdtrit  # noqa: PLC0415 - it takes a quarter of a second, and no run begins with it

    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * spread / math.sqrt(n)


def per_seed(finals: Iterable[Final]) -> dict[int, Final]:
    """Seed -> its row; where a seed trained several candidates (random), a row of their medians.

    The medians are taken column by column: such a row stands for the candidates, and is no network that could be
    chosen.
    """
    by_seed: dict[int, list[Final]] = defaultdict(list)
    for row in finals:
        by_seed[row.seed].append(row)
    return {seed: rows[0] if len(rows) == 1 else _medians(rows) for seed, rows in sorted(by_seed.items())}


def _medians(rows: Sequence[Final]) -> Final:
    return replace(
        rows[0],
        candidate="",
        macs=round(median(row.macs for row in rows)),
        params=round(median(row.params for row in rows)),
        val_accuracy=median(row.val_accuracy for row in rows),
        test_accuracy=median(row.test_accuracy for row in rows),
        train_macs=round(median(row.train_macs for row in rows)),
    )


def retire(finals: Iterable[Final], current: Mapping[str, Mapping[str, Collection[str]]]) -> list[Final]:
    """Rename the arm of rows whose candidate is no longer that arm's, as when more trials found a better net.

    Args:
        finals: rows of `finals.csv`.
        current: budget -> arm -> digests of its candidates; what is not named here is left alone.

    Returns:
        The rows, those of former candidates under `former <arm>`: kept, since they were paid for, and in no summary.
    """
    return [
        replace(row, arm=f"{FORMER}{row.arm}")
        if row.candidate not in current.get(row.budget, {}).get(row.arm, (row.candidate,))
        else row
        for row in finals
    ]


def by_arm(finals: Iterable[Final]) -> dict[tuple[str, str, str], list[Final]]:
    """(budget, arm, schedule) -> rows, in the order of first appearance.

    Where an arm has several candidates that seeds share, `random (best)` is added: the candidate with the best mean
    validation accuracy over the seeds.
    """
    groups: dict[tuple[str, str, str], list[Final]] = defaultdict(list)
    for row in finals:
        if not row.arm.startswith(FORMER):
            groups[row.budget, row.arm, row.schedule].append(row)
    for (budget, arm, schedule), rows in list(groups.items()):
        candidates: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            candidates[row.candidate].append(row.val_accuracy)
        shared = len({row.seed for row in rows}) == 1 or any(len(values) > 1 for values in candidates.values())
        if arm == "random" and len(candidates) > 1 and shared:
            best = max(candidates, key=lambda c: (fmean(candidates[c]), c))
            groups[budget, RANDOM_BEST, schedule] = [row for row in rows if row.candidate == best]
    return dict(groups)


def summarise(finals: Iterable[Final]) -> list[Summary]:
    """One summary for each budget, arm and schedule."""
    summaries = []
    for (budget, arm, schedule), rows in by_arm(finals).items():
        picked = list(per_seed(rows).values())
        tests = [row.test_accuracy for row in picked]
        summaries.append(
            Summary(
                budget=budget,
                arm=arm,
                schedule=schedule,
                n=len(picked),
                candidates=len({row.candidate for row in rows}),
                epochs=picked[0].epochs,
                macs=round(median(row.macs for row in picked)),
                params=round(median(row.params for row in picked)),
                val_accuracy=fmean(row.val_accuracy for row in picked),
                test_accuracy=fmean(tests),
                std=stdev(tests) if len(tests) > 1 else None,
                train_macs=round(fmean(row.train_macs for row in picked)),
                candidate=rows[0].candidate if len({row.candidate for row in rows}) == 1 else "",
            )
        )
    return summaries


def compare(left: Iterable[Final], right: Iterable[Final]) -> Comparison | None:
    """The paired comparison of two groups of rows on the seeds they share; None if they share none.

    Each group holds one arm under one schedule. The names carry the schedules unless both are scratch-e.
    """
    ours, theirs = per_seed(left), per_seed(right)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    a, b = ours[seeds[0]], theirs[seeds[0]]
    plain = a.schedule == b.schedule == "scratch-e"
    differences = [ours[seed].test_accuracy - theirs[seed].test_accuracy for seed in seeds]
    low, high = interval(differences) or (None, None)
    return Comparison(
        left=a.arm if plain else f"{a.arm} ({a.schedule})",
        right=b.arm if plain else f"{b.arm} ({b.schedule})",
        schedule=a.schedule if a.schedule == b.schedule else f"{a.schedule} / {b.schedule}",
        n=len(seeds),
        difference=fmean(differences),
        low=low,
        high=high,
        p=p_value(differences) if len(differences) >= FEWEST else None,
        left_macs=a.macs,
        right_macs=b.macs,
        spread=spread_of(differences),
        same=all(ours[s].candidate == theirs[s].candidate != "" and a.epochs == b.epochs for s in seeds)
        and not {a.schedule, b.schedule} & set(KEPT),
    )
