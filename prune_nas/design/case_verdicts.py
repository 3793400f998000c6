"""What a comparison of pruning methods shows: schedules and rivals in pairs, corrected for the number of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prune_nas.design.arms import Key, training_of
from prune_nas.design.cases import Net
from prune_nas.design.evidence import Comparison, Summary, by_arm, compare, summarise
from prune_nas.design.learning import Chance
from prune_nas.design.records import SCHEMA, Final
from prune_nas.design.significance import SIGNIFICANT, holm
from prune_nas.design.verdict import FAILED, about_failures, withheld

_E, _B, _TUNED, _REWOUND = "scratch-e", "scratch-b", "fine-tune", "rewind"
_RIVALS = ("uniform@params", "uniform@macs", "uniform", "guided", "taper", "random")
_OWN = ((_E, _TUNED), (_B, _TUNED), (_E, _REWOUND), (_B, _REWOUND), (_REWOUND, _TUNED))
PAIRS = (
    *((("pruned", left), ("pruned", right)) for left, right in _OWN),
    *((("pruned", schedule), ("base", _E)) for schedule in (_E, _B)),
    *((("pruned", schedule), (rival, schedule)) for rival in _RIVALS for schedule in (_E, _B)),
)
"""What is compared with what under every case: (arm, schedule) left and right; the paper's own question first."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison of a case; `adjusted` is its p-value after Holm's correction over all `tests` of the run.

    `again` marks the same question to the very trainings of an earlier case, whose shapes are the same: it is no new
    evidence.
    """

    case: str
    left: tuple[str, str]
    right: tuple[str, str]
    comparison: Comparison
    adjusted: float | None
    tests: int
    again: bool = False

    @property
    def significant(self) -> bool:
        """Whether the difference is more than noise, all pairs of the run considered."""
        return self.adjusted is not None and self.adjusted < SIGNIFICANT

    def sentence(self) -> str:
        """The comparison in words, with the p-value that is corrected for all pairs."""
        own = self.comparison
        if own.same or own.low is None or own.high is None or self.adjusted is None:
            return own.sentence()
        found = "Significant" if self.significant else "Not significant"
        return f"{own.sentence()} {found} over all pairs (p = {self.adjusted:.2g}, {self.tests} pairs)."


def pairs_of(finals: Sequence[Final]) -> list[Pair]:
    """Every pair of `PAIRS` that the finals hold, case by case."""
    groups = by_arm(finals)
    base = groups.get(("", "base", _E), [])
    found: list[tuple[str, tuple[str, str], tuple[str, str], Comparison]] = []
    firsts: dict[frozenset[Key], int] = {}
    first: list[int] = []  # of each pair: which is the first of the same trainings
    for case in dict.fromkeys(row.budget for row in finals if row.budget):
        for left, right in PAIRS:
            ours = groups.get((case, *left), [])
            theirs = base if right[0] == "base" else groups.get((case, *right), [])
            if (pair := compare(ours, theirs)) is not None:
                trainings = frozenset(map(training_of, (*ours, *theirs)))
                first.append(firsts.setdefault(trainings, len(found)))
                found.append((case, left, right, pair))
    own = [i for i, (*_, pair) in enumerate(found) if first[i] == i and pair.p is not None and not pair.same]
    adjusted = dict(zip(own, holm([found[i][3].p or 0.0 for i in own]), strict=True))
    asked_again = [found[j][0] != one[0] and found[j][1:3] == one[1:3] for j, one in zip(first, found, strict=True)]
    return [
        Pair(*one, adjusted.get(j), len(own), again) for one, j, again in zip(found, first, asked_again, strict=True)
    ]


def conclusions(pairs: Iterable[Pair]) -> list[str]:
    """For every question that several cases answer, in how many of them which side is ahead, and significantly so."""
    by_question: dict[tuple[tuple[str, str], tuple[str, str]], list[Pair]] = {}
    for pair in pairs:
        if not pair.comparison.same and not pair.again:
            by_question.setdefault((pair.left, pair.right), []).append(pair)
    said = []
    for (left, right), own in by_question.items():
        ahead = sum(pair.comparison.difference > 0 for pair in own)
        better = sum(pair.significant and pair.comparison.difference > 0 for pair in own)
        worse = sum(pair.significant and pair.comparison.difference < 0 for pair in own)
        mean = 100 * sum(pair.comparison.difference for pair in own) / len(own)
        seeds = sorted({pair.comparison.n for pair in own})
        said.append(
            f"{_spoken(*left)} against {_spoken(*right)}: ahead in {ahead} of {len(own)} cases, by {mean:+.1f} points "
            f"on average (n = {f'{seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else seeds[0]}). Significantly better in "
            f"{better}, worse in {worse}"
        )
    return said


def _spoken(arm: str, schedule: str) -> str:
    return arm if arm == "base" else f"{arm} ({schedule})"


def verdicts(
    finals: Sequence[Final],
    nets: Sequence[Net],
    non_uniformity: Mapping[str, float],
    failures: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """The elements of `verdict.json`, one a case.

    Args:
        finals: all rows of `finals.csv`.
        nets: all lines of `pruned.json`.
        non_uniformity: case -> of the pruned shape.
        failures: case -> its trainings that failed, and why; it names every case that was asked for.
    """
    pairs, summaries = pairs_of(finals), summarise(finals)
    said = []
    for case in failures:
        left = [net for net in nets if net.case == case]
        if not left:
            said.append(_nothing_left(case, failures[case]))
            continue
        own = [pair for pair in pairs if pair.case == case]
        sentences = [pair.sentence() for pair in own]
        said.append(
            {
                "schema": SCHEMA,
                "budget": case,
                "subject": "pruned",
                "headline": sentences[0] if sentences else "No comparison yet: no two arms share a seed.",
                "sentences": [
                    *sentences[1:],
                    *about_failures(failures[case]),
                    *_about(case, left),
                ],
                "non_uniformity": round(non_uniformity[case], 4),
                "comparisons": [
                    {
                        **asdict(pair.comparison),
                        "p_corrected": pair.adjusted,
                        "significant": pair.significant,
                    }
                    for pair in own
                ],
                "deploy": _deploy(summaries, case),
                "learnt": True,
            }
        )
    return said


def unless_untrained(said: dict[str, Any], finals: Iterable[Final], chance: Chance) -> dict[str, Any]:
    """A case's verdict as it is, or withheld where no network of the case is better than guessing."""
    own = summarise(row for row in finals if row.budget in (said["budget"], ""))
    best = max((line.val_accuracy for line in own), default=1.0)
    if not said["learnt"] or chance.is_beaten(best):
        return said
    failed = {name: why for name, _, why in (s.partition(FAILED) for s in said["sentences"] if FAILED in s)}
    return {**withheld(said["budget"], said["subject"], best, chance, failed), "non_uniformity": said["non_uniformity"]}


def _nothing_left(case: str, failures: Mapping[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "budget": case,
        "subject": "pruned",
        "headline": "Nothing was pruned: the training of every network failed.",
        "sentences": about_failures(failures),
        "non_uniformity": None,
        "comparisons": [],
        "deploy": None,
        "learnt": False,
    }


def _about(case: str, nets: Sequence[Net]) -> list[str]:
    """What became of the ratio."""
    asked, removed = case.partition("=")[2], [net.removed for net in nets]
    span = f"{100 * min(removed):.1f}" + (f" to {100 * max(removed):.1f}" if max(removed) - min(removed) > 5e-4 else "")
    said = [f"It removed {span} % of the {nets[0].unit} (asked: {asked})."]
    if floored := sorted({slot for net in nets for slot in net.floored}):
        fate = "would have lost nearly all channels: they stay at the floor" if nets[0].widths else "lost all weights"
        said.append(f"{', '.join(floored)} {fate}.")
    return said


def _deploy(summaries: Iterable[Summary], case: str) -> dict[str, Any] | None:
    """The schedule whose pruned nets are best on validation; the test split has no say."""
    own = [line for line in summaries if line.budget == case and line.arm == "pruned"]
    if not own:
        return None
    best = max(own, key=lambda line: line.val_accuracy)
    return {
        "arm": best.arm,
        "schedule": best.schedule,
        "val_accuracy": best.val_accuracy,
        "macs": best.macs,
        "params": best.params,
    }
