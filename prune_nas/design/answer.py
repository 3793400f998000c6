"""What a search answers first: six lines per budget, from which file to use to the command that comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from prune_nas.design.arms import UNIFORM_ARMS
from prune_nas.design.evidence import Summary, by_arm, compare, summarise
from prune_nas.design.records import KEPT, Final
from prune_nas.design.subject import Subject
from prune_nas.design.verdict import PROBED
from prune_nas.design.words import accuracy, capital, count, duration, percent, spoken

_MAIN = "scratch-e"
_SEARCHED = ("found", "transferred", "pruned")  # the first rivals of uniform scaling
_RIVALS = ("uniform", "uniform@macs", "uniform@params", "taper", "found", "transferred", "pruned", "guided", "random")


@dataclass(frozen=True, slots=True)
class Timing:
    """What one forward pass of a network takes.

    Attributes:
        ms: median, in milliseconds.
        iqr: range of the middle half of the measurements, in milliseconds.
    """

    ms: float
    iqr: float

    @property
    def reliable(self) -> bool:
        """Whether the spread is smaller than the value."""
        return 0 < self.iqr < self.ms or self.iqr == 0 < self.ms


@dataclass(frozen=True, slots=True)
class Answer:
    """What to use under one budget, and how sure that is. Accuracies are in [0, 1].

    Attributes:
        budget: canonical text.
        file: of the network to use, within the run directory; empty where there is none to use.
        use: what it is, in words.
        test: test accuracy of it and of the unpruned network, with n and epochs, in words.
        cost: macs, params and milliseconds, as value and as share of the unpruned network's, in words.
        sure: the comparison with its nearest rival, in words.
        search: what the search cost, in words.
        model: where the network comes from, if that is Python code; empty otherwise.
    """

    budget: str
    file: str
    use: str
    test: str
    cost: str
    sure: str
    search: str
    model: str

    def to_dict(self, run: str) -> dict[str, Any]:
        """Plain data for `verdict.json`, with the lines for a run at this path."""
        return {**asdict(self), "lines": self.lines(run)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answer:
        """The inverse of `to_dict`.

        Raises:
            KeyError: it is not.
        """
        return cls(**{name: str(data[name]) for name in cls.__dataclass_fields__})

    def lines(self, run: str) -> list[str]:
        """The answer in lines; `run` is the path of the run directory."""
        path = f"{run}/{self.file}"
        first = f"{self.use}{f' Use {path}' if self.file else ''}"
        return list(filter(None, [first, self.test, self.cost, self.sure, self.search, self._next(path)]))

    def _next(self, path: str) -> str:
        if not self.file:
            return ""
        model = f" --model {shlex.quote(self.model)}" if self.model else ""
        return f"Next: prune-nas export {shlex.quote(path)}{model} --format onnx"


def answer(  # noqa: PLR0913  (keyword-only: one fact each)
    said: Mapping[str, Any],
    finals: Sequence[Final],
    subject: Subject,
    *,
    file: str,
    keeps: Mapping[str, Sequence[float]],
    timings: Mapping[str, Timing],
    search: tuple[int, float, str],
    noise: str,
    model: str,
) -> Answer:
    """The answer of one budget.

    Args:
        said: its verdict.
        finals: all rows of `finals.csv`.
        subject: the unpruned network and the images.
        file: of the network to deploy, within the run directory.
        keeps: arm -> share of its channels that each slot keeps.
        timings: arm -> what a forward pass takes.
        search: training macs and seconds of the search, and its phases in words.
        noise: that the supernet did not learn, in a sentence; else empty.
        model: where the network comes from, if that is Python code; else empty.
    """
    budget, chosen = str(said["budget"]), said["deploy"]
    spent, base = _search(search, finals), "" if not said["learnt"] else noise
    if chosen is None:
        reason = str(said["headline"]) if not said["learnt"] else f"{noise} No network is there to use.".strip()
        return Answer(budget, "", reason, "", "", "", spent, model)
    own = [row for row in finals if row.budget in (budget, "")]
    lines = {(line.arm, line.schedule): line for line in summarise(own)}
    mine, unpruned = lines[chosen["arm"], chosen["schedule"]], lines.get(("base", "scratch-e"))
    masks = budget.startswith("weights")
    used = _use_of_masks(mine) if masks else _use(mine, lines, keeps, str(said["subject"]))
    use = " ".join(filter(None, [base, used]))
    return Answer(
        budget=budget,
        file=file,
        use=use,
        test=_test(mine, unpruned),
        cost=_cost(mine, subject, timings),
        sure=_sure(own, mine, lines),
        search=spent,
        model=model,
    )


def _use(mine: Summary, lines: Mapping[tuple[str, str], Summary], keeps: Mapping[str, Sequence[float]],
         subject: str) -> str:  # fmt: skip
    """What the network is, and whether a search was needed for it."""
    found = lines.get((subject, mine.schedule))
    uniform = mine.arm in UNIFORM_ARMS or any(
        line.candidate == mine.candidate != "" for (arm, _), line in lines.items() if arm in UNIFORM_ARMS
    )
    kept = keeps.get(mine.arm)
    width = f": every layer at about {100 * sum(kept) / len(kept):.0f} % of its width" if kept else ""
    if uniform and found is not None and found.candidate == mine.candidate:
        return f"The search found nothing better than uniform scaling{width}."
    if uniform and found is None:
        return f"Uniform scaling, chosen by validation accuracy{width}."
    name = f"Uniform scaling{width}" if uniform else capital(spoken(mine.arm, mine.schedule))
    if found is None or mine.arm == subject:
        return f"{name}."
    theirs = f"{spoken(subject, mine.schedule)} {percent(found.val_accuracy)}"
    return f"{name}. On validation images it has {percent(mine.val_accuracy)}, {theirs}."


def _use_of_masks(mine: Summary) -> str:
    if mine.arm == "uniform":
        return "The same share of weights in every layer, chosen by validation accuracy."
    return capital(f"{spoken(mine.arm, mine.schedule)}.")


def _test(mine: Summary, unpruned: Summary | None) -> str:
    own = f"Test accuracy {accuracy(mine.test_accuracy, mine.std)} (n = {mine.n}, {mine.epochs} epochs)"
    if unpruned is None:
        return f"{own}. The unpruned network was not trained."
    theirs = f"{accuracy(unpruned.test_accuracy, unpruned.std)} (n = {unpruned.n}, {unpruned.epochs} epochs)"
    return f"{own}. The unpruned network has {theirs}."


def _cost(mine: Summary, subject: Subject, timings: Mapping[str, Timing]) -> str:
    macs = f"{count(mine.macs)} macs ({_share(mine.macs, subject.macs)})"
    params = f"{count(mine.params)} params ({_share(mine.params, subject.params)})"
    return f"{macs}, {params}, {_time(timings.get(mine.arm), timings.get('base'))}."


def _time(own: Timing | None, base: Timing | None) -> str:
    if own is None:
        return "time not measured"
    if base is None or not (own.reliable and base.reliable):
        return "time not measured reliably (other programs ran)"
    return f"{own.ms:.3g} ms ({_share(own.ms, base.ms)} of {base.ms:.3g} ms)"


def _share(value: float, whole: float) -> str:
    return f"{100 * value / max(whole, 1e-12):.0f} %"


def _sure(rows: Sequence[Final], mine: Summary, lines: Mapping[tuple[str, str], Summary]) -> str:
    """The comparison with the nearest rival that is another network, trained by the same schedule.

    Where no rival was, the schedule is scratch-e: of the network too, unless it starts from kept weights.
    """
    groups = {(arm, schedule): own for (_, arm, schedule), own in by_arm(rows).items()}
    own = mine.schedule if mine.schedule in KEPT else _MAIN
    rivals = _SEARCHED + _RIVALS if mine.arm in UNIFORM_ARMS else _RIVALS
    for (left, right), arm in product(((mine.schedule, mine.schedule), (own, _MAIN)), rivals):
        line = lines.get((arm, right))
        if line is None or (mine.arm, left) not in lines or arm == mine.arm or line.candidate == mine.candidate != "":
            continue
        pair = compare(groups[mine.arm, left], groups[arm, right])
        if pair is not None and not pair.same:
            sides = "" if abs(pair.right_macs / pair.left_macs - 1) > 0.02 else _both(pair.left_macs, pair.right_macs)
            return f"{pair.sentence()}{sides}"
    return "It was compared with no other network of this budget."


def _both(left: int, right: int) -> str:
    return f" Macs: {count(left)} and {count(right)}."


def _search(search: tuple[int, float, str], finals: Iterable[Final]) -> str:
    macs, seconds, phases = search
    base = next((row.train_macs for row in finals if row.arm == "base"), 0)
    if not macs:
        return "The search cost no training."
    trainings = f"as much as {macs / base:.1f} trainings of the unpruned network, " if base else ""
    what, listed = (PROBED, "") if phases == PROBED else ("search", f" ({phases})")
    return f"The {what} cost {trainings}{count(macs)} macs, {duration(seconds)} of training{listed}."
