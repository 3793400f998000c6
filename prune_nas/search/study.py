"""The study: one Optuna study per budget, around what pruning found, every candidate within the budget.

What makes it resumable. The sampler is re-seeded from (seed, trial number) before each trial, and a trial that was
cut off is taken up again under its own number with its own parameters, so an interrupted study proposes what it
would have proposed. A trial's network is told to Optuna only after its training ended; its training itself
continues from the last epoch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from prune_nas.design import family
from prune_nas.design.budget import Limits
from prune_nas.design.family import Point
from prune_nas.design.projection import project
from prune_nas.design.records import TrialRow
from prune_nas.design.space import Space, Widths
from prune_nas.errors import PruneNasError
from prune_nas.search.work import Result, Training

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=6),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
_DISTRIBUTIONS = {name: FloatDistribution(low, high) for name, (low, high) in family.BOUNDS.items()}
_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)
_PATIENCE = 20  # proposals per wanted trial, most of them repeats, after which a study counts as exhausted
_PRIOR = "prior"


def open_study(journal: Path, name: str, prior: Widths) -> optuna.Study:
    """The study called `name` in the run's journal, created around `prior` if it is not there yet.

    Raises:
        PruneNasError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    repair(journal)
    try:
        study = optuna.create_study(
            study_name=name,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # Optuna replays whatever the lines say, and fails in as many ways
        raise PruneNasError(
            f"{journal} is damaged ({type(error).__name__}: {error}). "
            "Move it away to have the studies start again from their first trials"
        ) from error
    made = study.user_attrs.get(_PRIOR)
    if made is None:
        study.set_user_attr(_PRIOR, dict(prior))
    elif made != dict(prior):
        raise PruneNasError(
            f"the study in {journal} began with other widths than the run's files give now. Restore "
            "scores.safetensors (or prior.json, latency.json), or move the journal away to have the studies start again"
        )
    return study


def repair(journal: Path) -> None:
    """Drop a last line that a crash cut off: Optuna would glue its next record onto it. Needs the run's lock."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with journal.open("r+b") as file:
            file.truncate(len(whole))


def trials(
    study: optuna.Study,
    space: Space,
    limits: Limits,
    prior: Widths,
    *,
    starts: Iterable[Point],
    seed: int,
    sampler: str,
) -> Iterator[tuple[optuna.Trial, Widths]]:
    """Endless proposals: unfinished trials first, then the starting points, then the sampler's.

    Args:
        study: from `open_study`.
        space: the space of `prior`.
        limits: every proposal is scaled onto them.
        prior: the widths that the family is built around.
        starts: points tried before the sampler's own; a study that was begun has them already.
        seed: with a trial's number it seeds the sampler.
        sampler: a name of `SAMPLERS`.

    Yields:
        A trial to be told, and its widths.
    """
    for point in starts:
        study.enqueue_trial(point._asdict(), skip_if_exists=True)
    for frozen in study.get_trials(states=(TrialState.RUNNING,)):
        study.sampler = SAMPLERS[sampler](_seed(seed, frozen.number))
        yield _proposal(optuna.Trial(study, frozen._trial_id), space, limits, prior)
    while True:
        done = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
        study.sampler = SAMPLERS[sampler](_seed(seed, len(done)))
        yield _proposal(study.ask(), space, limits, prior)


def _proposal(trial: optuna.Trial, space: Space, limits: Limits, prior: Widths) -> tuple[optuna.Trial, Widths]:
    point = Point(**{name: trial.suggest_float(name, d.low, d.high) for name, d in _DISTRIBUTIONS.items()})
    if point == family.PRUNED and limits.admits(space.cost(prior)):
        return trial, prior  # it fills the budget already; filled again it could gain a step
    return trial, project(space, family.shape(space, prior, point), limits)


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**32


class Trials:
    """The study as a source of trainings: proposals until `wanted` different candidates were trained.

    A candidate whose widths were trained before, or are being trained, is a repeat and costs nothing; a training that
    fails is recorded and the study goes on.
    """

    def __init__(
        self,
        study: optuna.Study,
        proposals: Iterator[tuple[optuna.Trial, Widths]],
        training: Callable[[int, Widths], Training],
        *,
        wanted: int,
        affordable: Callable[[Sequence[Widths]], bool] = lambda begun: True,
        lanes: int = 1,
        timeout: float | None = None,
        on_trial: Callable[[Training, Result], None] = lambda training, result: None,
    ) -> None:
        """Bind the study.

        Args:
            study: from `open_study`.
            proposals: from `trials`.
            training: the training of a trial's number and widths.
            wanted: trained candidates, failures included; a global target over all calls.
            affordable: whether another candidate may be trained beside those that were, or are being, trained.
            lanes: trainings begun before the first of them is told; with more, a proposal knows fewer results.
            timeout: seconds from the first trial after which no further one is begun.
            on_trial: called after every finished trial.
        """
        self._study, self._proposals, self._training = study, proposals, training
        self._wanted, self._affordable, self._lanes, self._on_trial = wanted, affordable, lanes, on_trial
        self._timeout, self._end = math.inf if timeout is None else timeout, math.inf
        self._running: dict[str, optuna.Trial] = {}
        self.lacks = ""
        """What kept the study from its wanted trials, when it was last asked: `cost`, `candidates` or `time`."""

    def ask(self) -> Training | None:
        """The next candidate's training; None while the lanes are full, and at the end."""
        self._end = min(self._end, time.monotonic() + self._timeout)
        while len(self._running) < self._lanes and self._open():
            trial, widths = next(self._proposals)
            text = widths.to_json()
            trial.set_user_attr("widths", text)
            values = {t.user_attrs["widths"]: (t.number, t.value) for t in trained(self._study)}
            values |= {text: (running.number, None) for text, running in self._running.items()}
            if text not in values:
                self._running[text] = trial
                return self._training(trial.number, widths)
            twin, value = values[text]
            trial.set_user_attr("repeats", twin)
            self._study.tell(trial, value, state=None if value is not None else TrialState.FAIL)
        return None

    def tell(self, training: Training, result: Result) -> None:
        """Record the oldest training's result."""
        _tell(self._study, self._running.pop(training.widths.to_json()), result)
        self._on_trial(training, result)

    def _open(self) -> bool:
        begun = [*candidates(self._study), *(Widths(json.loads(text)) for text in self._running)]
        wanted = len(begun) < self._wanted
        self.lacks = self._missing(begun) if wanted else ""
        return wanted and not self.lacks

    def _missing(self, begun: Sequence[Widths]) -> str:
        if not self._affordable(begun):
            return "cost"
        if _exhausted(self._study, self._wanted):
            return "candidates"
        return "time" if time.monotonic() >= self._end else ""


class Finalists:
    """The second rung as a source of trainings: candidates, each with its seed.

    A finalist's trial has no parameters: nothing is proposed, and the first rung's sampler never sees its value,
    since the two rungs train for different numbers of epochs.
    """

    def __init__(
        self,
        study: optuna.Study,
        wanted: Sequence[tuple[Widths, int]],
        training: Callable[[int, Widths, int], Training],
        *,
        on_trial: Callable[[Training, Result], None] = lambda training, result: None,
    ) -> None:
        """Bind the rung.

        Args:
            study: the rung's own study, from `open_study`.
            wanted: distinct (widths, seed), those that are trained already among them; seeds are fresh ones, since the
                first rung's own favours what it chose.
            training: the training of a trial's number, widths and seed.
            on_trial: called after every finished trial.
        """
        self._study, self._training, self._on_trial = study, training, on_trial
        self._unfinished = {_candidate(t): t for t in study.get_trials(states=(TrialState.RUNNING,))}
        done = finished(study)
        self._left = [one for one in wanted if one not in done]
        self._running: dict[tuple[str, int], optuna.Trial] = {}

    @property
    def left(self) -> int:
        """Trainings not begun yet."""
        return len(self._left)

    def ask(self) -> Training | None:
        """The next training; None at the end."""
        if not self._left:
            return None
        widths, seed = self._left.pop(0)
        text = widths.to_json()
        begun = self._unfinished.get((text, seed)) or self._unfinished.pop(("", -1), None)
        trial = optuna.Trial(self._study, begun._trial_id) if begun is not None else self._study.ask()
        trial.set_user_attr("candidate", {"widths": text, "seed": seed})
        self._running[text, seed] = trial
        return self._training(trial.number, widths, seed)

    def tell(self, training: Training, result: Result) -> None:
        """Record a result."""
        trial = self._running.pop((training.widths.to_json(), training.seed))
        trial.set_user_attr("widths", training.widths.to_json())
        _tell(self._study, trial, result)
        self._on_trial(training, result)


def _candidate(trial: FrozenTrial) -> tuple[str, int]:
    chosen = trial.user_attrs.get("candidate", {"widths": "", "seed": -1})
    return chosen["widths"], chosen["seed"]


def _tell(study: optuna.Study, trial: optuna.Trial, result: Result) -> None:
    for name in ("epochs", "seconds", "error", "diverged", "worker"):
        trial.set_user_attr(name, getattr(result, name))
    value = result.val_accuracy
    study.tell(trial, value, state=TrialState.FAIL if value is None else None)


def leaders(study: optuna.Study, count: int) -> list[Widths]:
    """The `count` candidates with the highest mean validation accuracy, best first; of equals the earlier.

    Means are of equally many seeds: a candidate that was trained on fewer than another is not among them, nor is one
    that failed on any. Of two attempts at one training the later counts.
    """
    values: dict[str, dict[int, float | None]] = {}
    for trial in trained(study):
        values.setdefault(trial.user_attrs["widths"], {})[_candidate(trial)[1]] = trial.value
    whole = {text: list(own.values()) for text, own in values.items() if None not in own.values()}
    most = max(map(len, whole.values()), default=0)
    means = {text: fmean(v for v in own if v is not None) for text, own in whole.items() if len(own) == most}
    return [Widths(json.loads(text)) for text in sorted(means, key=lambda text: -means[text])[:count]]


def trained(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials that cost a training: repeats left out, failures included."""
    finished = study.get_trials(deepcopy=False, states=_FINISHED)
    return [t for t in finished if "repeats" not in t.user_attrs]


def candidates(study: optuna.Study) -> list[Widths]:
    """The widths of `trained`."""
    return [Widths(json.loads(t.user_attrs["widths"])) for t in trained(study)]


def finished(study: optuna.Study) -> set[tuple[Widths, int]]:
    """The second rung's (widths, seed) that were trained; a failure that may be over the next time is none of them."""
    over = [t for t in trained(study) if t.value is not None or t.user_attrs.get("diverged", False)]
    return {(Widths(json.loads(text)), seed) for text, seed in map(_candidate, over)}


def lacking(study: optuna.Study, wanted: int) -> int:
    """Trials still to be trained of those wanted; none where the space was found to hold no more."""
    return 0 if _exhausted(study, wanted) else max(wanted - len(trained(study)), 0)


def _exhausted(study: optuna.Study, wanted: int) -> bool:
    """Whether so many proposals were repeats that the space counts as holding no more."""
    return len(study.get_trials(deepcopy=False)) >= _PATIENCE * wanted


def best(study: optuna.Study) -> Widths:
    """The widths with the highest mean validation accuracy; of equals the first.

    Raises:
        PruneNasError: no trial succeeded.
    """
    first = leaders(study, 1)
    if not first:
        errors = {t.user_attrs.get("error", "") for t in trained(study)} or {"no trial was begun: raise --timeout"}
        raise PruneNasError(f"no trial of the study for {study.study_name} succeeded: {'; '.join(sorted(errors))}")
    return first[0]


def rows(study: optuna.Study, space: Space, budget: str, *, seed: int, first: int = 0) -> list[TrialRow]:
    """The study's finished and failed trials as rows of `trials.csv`, numbered from `first`.

    `seed` is that of every training but the finalists', which have their own.
    """
    finished = study.get_trials(deepcopy=False, states=_FINISHED)
    return [_row(budget, space, trial, first + trial.number, seed) for trial in finished]


def _row(budget: str, space: Space, trial: FrozenTrial, number: int, seed: int) -> TrialRow:
    attributes: dict[str, Any] = trial.user_attrs
    cost = space.cost(json.loads(attributes["widths"]))
    repeated = "repeats" in attributes
    return TrialRow(
        budget=budget,
        number=number,
        state="REPEAT" if repeated else trial.state.name,
        value=trial.value,
        macs=cost.macs,
        params=cost.params,
        epochs=0 if repeated else attributes["epochs"],
        seconds=0.0 if repeated else round(attributes["seconds"], 3),
        worker=attributes.get("worker", ""),
        widths=attributes["widths"],
        seed=attributes.get("candidate", {"seed": seed})["seed"],
    )
