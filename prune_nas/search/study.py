"""The study: one Optuna study per budget, around what pruning found, every candidate within the budget.

What makes it resumable. The sampler is re-seeded from (seed, trial number) before each trial, and a trial that was
cut off is taken up again under its own number with its own parameters, so an interrupted study proposes what it
would have proposed. A trial's network is told to Optuna only after its training ended; its training itself
continues from the last epoch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=6),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
_DISTRIBUTIONS = {name: FloatDistribution(low, high) for name, (low, high) in family.BOUNDS.items()}
_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)
_PATIENCE = 20  # proposals per wanted trial, most of them repeats, after which a study counts as exhausted
_PRIOR = "prior"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training one candidate gave: accuracy on validation (None if it failed), epochs and seconds."""

    value: float | None
    epochs: int
    seconds: float
    error: str = ""


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
            f"{journal} is damaged ({type(error).__name__}: {error}); "
            "move it away to have the studies start again from their first trials"
        ) from error
    if study.user_attrs.setdefault(_PRIOR, dict(prior)) != dict(prior):
        raise PruneNasError(
            f"the study in {journal} was made around other widths than the scores now give; "
            "restore scores.safetensors, or move the journal away to have the studies start again"
        )
    study.set_user_attr(_PRIOR, dict(prior))
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
    return trial, project(space, family.shape(space, prior, point), limits)


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**32


def run(
    study: optuna.Study,
    proposals: Iterator[tuple[optuna.Trial, Widths]],
    train: Callable[[int, Widths], Outcome],
    *,
    wanted: int,
    timeout: float | None = None,
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> None:
    """Train proposals until `wanted` different candidates were trained in all, earlier calls included.

    A candidate whose widths were trained before is told the earlier value and costs nothing; a training that fails
    is recorded and the study goes on.

    Args:
        study: from `open_study`.
        proposals: from `trials`.
        train: trains the widths of a trial's number; reports failure in its outcome.
        wanted: trained candidates, failures included; a global target.
        timeout: seconds after which no further trial is begun.
        on_trial: called with every finished trial.
    """
    start = time.monotonic()
    budget_of_proposals = _PATIENCE * max(wanted, 1)
    while len(trained(study)) < wanted and len(study.get_trials(deepcopy=False)) < budget_of_proposals:
        if timeout is not None and time.monotonic() - start > timeout:
            return
        trial, widths = next(proposals)
        known = {t.user_attrs["widths"]: t for t in trained(study)}
        text = widths.to_json()
        trial.set_user_attr("widths", text)
        if (twin := known.get(text)) is not None:
            trial.set_user_attr("repeats", twin.number)
            study.tell(trial, twin.value, state=None if twin.value is not None else TrialState.FAIL)
            continue
        _tell(study, trial, train(trial.number, widths))
        on_trial(study.get_trials(deepcopy=False)[trial.number])


def run_finalists(study: optuna.Study, candidates: Sequence[Widths], train: Callable[[int, Widths], Outcome]) -> None:
    """Train the candidates of the second rung that were not trained yet, in their order.

    A finalist's trial has no parameters: nothing is proposed, and the first rung's sampler never sees its value,
    since the two rungs train for different numbers of epochs.

    Args:
        study: the rung's own study, from `open_study`.
        candidates: distinct widths; more may be added by a later call.
        train: as in `run`.
    """
    unfinished = {t.user_attrs.get("widths"): t for t in study.get_trials(states=(TrialState.RUNNING,))}
    done = {t.user_attrs["widths"] for t in trained(study)}
    for widths in candidates:
        text = widths.to_json()
        if text in done:
            continue
        begun = unfinished.get(text) or unfinished.pop(None, None)
        trial = optuna.Trial(study, begun._trial_id) if begun is not None else study.ask()
        trial.set_user_attr("widths", text)
        _tell(study, trial, train(trial.number, widths))


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
    for name in ("epochs", "seconds", "error"):
        trial.set_user_attr(name, getattr(outcome, name))
    study.tell(trial, outcome.value, state=TrialState.FAIL if outcome.value is None else None)


def leaders(study: optuna.Study, count: int) -> list[Widths]:
    """The `count` candidates with the highest validation accuracy, best first; of equals the earlier."""
    ranked = sorted((t for t in trained(study) if t.value is not None), key=lambda t: (-(t.value or 0), t.number))
    return [Widths(json.loads(t.user_attrs["widths"])) for t in ranked[:count]]


def trained(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials that cost a training: repeats left out, failures included."""
    finished = study.get_trials(deepcopy=False, states=_FINISHED)
    return [t for t in finished if "repeats" not in t.user_attrs]


def best(study: optuna.Study) -> Widths:
    """The widths with the highest validation accuracy; of equals the first.

    Raises:
        PruneNasError: no trial succeeded.
    """
    first = leaders(study, 1)
    if not first:
        errors = {t.user_attrs.get("error", "") for t in trained(study)}
        raise PruneNasError(f"no trial of the study for {study.study_name} succeeded: {'; '.join(sorted(errors))}")
    return first[0]


def rows(study: optuna.Study, space: Space, budget: str, first: int = 0) -> list[TrialRow]:
    """The study's finished and failed trials as rows of `trials.csv`, numbered from `first`."""
    finished = study.get_trials(deepcopy=False, states=_FINISHED)
    return [_row(budget, space, trial, first + trial.number) for trial in finished]


def _row(budget: str, space: Space, trial: FrozenTrial, number: int) -> TrialRow:
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
        worker="",
        widths=attributes["widths"],
    )
