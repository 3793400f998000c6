"""The queue of a run in a database: one Optuna study whose waiting trials are trainings.

A trial's user attributes say what is to be trained (`training`, under its `key`), who does it (`worker`), how far it is
(`epochs`) and what came out (`result`). The result is written before the trial is told, and counts whatever state the
trial is in: so it survives a worker that was given up too early. Files travel as studies of their own, in pieces of
base64, named by their SHA-256: Optuna loads the attributes of every trial and those of one study at a time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from prune_nas.design.files import write_bytes
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.search.cluster.storage import TRIES, Storage
from prune_nas.search.work import Result, Training
from prune_nas.training.loop import Epoch

_BRIEFING, _STATE = "briefing", "state"
_OPEN = (TrialState.WAITING, TrialState.RUNNING)
_PIECE = 3 * 2**20  # bytes of a file an attribute
_MOST_PIECES = 10_000
_OF_EPOCH = ("train_loss", "val_accuracy", "seconds")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
GIVEN_BACK = "given back: its worker was stopped"


@dataclass(frozen=True, slots=True)
class Order:
    """A training as it lies in the queue: without paths, which mean nothing elsewhere.

    `origin` is the digest of the file of weights that it goes on from, None without one; `keeps` says whether its
    weights are wanted.
    """

    training: Training
    origin: str | None
    keeps: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = replace(self.training, checkpoint=Path("-"), origin=None, weights=None)
        return {"training": plain.to_dict(), "origin": self.origin, "keeps": self.keeps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], key: str | None = None) -> Order:
        """The inverse of `to_dict`.

        Raises:
            UsageError: it is no order, or not that of `key`, which becomes part of paths.
        """
        try:
            training = Training.from_dict(data["training"])
            order = cls(training, data["origin"] and checked(data["origin"]), bool(data["keeps"]))
            sound = 0 < training.epochs <= 100_000 and 0 <= training.seed < 2**32
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"the queue holds an entry that is not a training ({error})") from error
        if not sound:
            raise UsageError(f"the queue asks for {training.epochs} epochs with seed {training.seed}")
        if key is not None and order.key != key:
            raise UsageError("the queue holds a training under a wrong key")
        return order

    @property
    def key(self) -> str:
        """What tells it from every other training of its run."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:32]


def checked(digest: str) -> str:
    """A file's digest, before it becomes part of a path.

    Raises:
        ValueError: it is none.
    """
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no SHA-256")
    return digest


def digest_of(path: Path) -> str:
    """What names a file in the database."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """All trials of one training: attempts, and a result that came in late."""

    trials: tuple[FrozenTrial, ...]

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The first result that was written."""
        results = (t.user_attrs.get("result") for t in self.trials)
        return next((result for result in results if isinstance(result, dict)), None)

    @property
    def open(self) -> bool:
        """Whether somebody does it, or will."""
        return any(t.state in _OPEN for t in self.trials)

    @property
    def lost(self) -> int:
        """Attempts whose worker was lost."""
        ended = [t for t in self.trials if t.state == TrialState.FAIL]
        return sum("result" not in t.user_attrs and t.user_attrs.get("note") != GIVEN_BACK for t in ended)

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs of the attempt that came furthest; none where they are not what a worker writes."""
        written = [t.user_attrs.get("epochs", []) for t in self.trials]
        furthest = max((one for one in written if isinstance(one, list)), key=len, default=[])
        try:
            found = [Epoch(int(e["number"]), *(float(e[k]) for k in _OF_EPOCH)) for e in furthest]
        except (KeyError, TypeError, ValueError):
            return []
        return found

    def since(self, number: int) -> Entry | None:
        """The trials after that number; None where there is none."""
        later = tuple(trial for trial in self.trials if trial.number > number)
        return Entry(later) if later else None


class Queue:
    """One run's queue."""

    def __init__(self, storage: Storage, study: optuna.Study) -> None:
        """Use `made` or `found`."""
        self.study = study
        self._storage = storage

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.study_name)

    # What a run is ------------------------------------------------------------------------------------------------

    @property
    def briefing(self) -> dict[str, Any]:
        """What every worker must know, as its coordinator wrote it.

        Raises:
            UsageError: the study is not a queue.
        """
        briefing = self.study.user_attrs.get(_BRIEFING)
        if not isinstance(briefing, dict):
            raise UsageError(f"the study {self.name} was not made by prune-nas. Use the name that `search` printed")
        return briefing

    def brief(self, briefing: Mapping[str, Any]) -> None:
        """Write what every worker must know, and open the queue."""
        self.study.set_user_attr(_BRIEFING, dict(briefing))
        self.study.set_user_attr(_STATE, "open")

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return bool(self.study.user_attrs.get(_STATE) == "done")

    def finish(self) -> None:
        """Let every worker know that the run has ended."""
        self.study.set_user_attr(_STATE, "done")

    # Trainings ----------------------------------------------------------------------------------------------------

    def entries(self) -> dict[str, Entry]:
        """Key -> its trials, oldest first."""
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "key" in trial.user_attrs:
                found.setdefault(trial.user_attrs["key"], []).append(trial)
        return {key: Entry(tuple(trials)) for key, trials in found.items()}

    def waiting(self) -> bool:
        """Whether there is something to begin."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def outcome(self, key: str) -> dict[str, Any] | None:
        """The result of a training, None until there is one."""
        entry = self.entries().get(key)
        return None if entry is None else entry.outcome

    def spent(self, order: Order) -> int:
        """The number of a training's last trial whose result is of no use to who asks anew; -1 without one.

        It failed, and not as it would again; or its weights are wanted and were fetched and deleted before.
        """
        entry = self.entries().get(order.key)
        results = {} if entry is None else {t.number: t.user_attrs.get("result") for t in entry.trials}
        return max((number for number, result in results.items() if self._useless(result, order.keeps)), default=-1)

    def _useless(self, result: Any, keeps: bool) -> bool:
        if not isinstance(result, dict):
            return False
        if result.get("val_accuracy") is None:
            return not result.get("diverged")
        return keeps and not self.has_file(str(result.get("weights")))

    def add(self, order: Order, after: int = -1) -> None:
        """Put a training at the end, unless somebody does it, or has, in a trial after that number."""
        entry = self.entries().get(order.key)
        entry = entry and entry.since(after)
        if entry is None or not (entry.open or entry.outcome):
            self.study.enqueue_trial({}, user_attrs={"key": order.key, "order": order.to_dict()})

    def close(self) -> None:
        """End every trial: what nobody has begun, and what is of no use any more or was delivered and never told."""
        for trial in self.study.get_trials(deepcopy=False, states=_OPEN):
            value = (Entry((trial,)).outcome or {}).get("val_accuracy")
            state, values = (TrialState.FAIL, None) if value is None else (TrialState.COMPLETE, [value])
            with contextlib.suppress(UpdateFinishedTrialError):  # a worker was faster
                self._storage.set_trial_state_values(trial._trial_id, state, values)

    def beat(self, trial: optuna.Trial) -> None:
        """Give a sign of life for a trial; Optuna calls none of them lost that never gave one."""
        self._storage.beat(trial._trial_id)

    def deliver(self, trial: optuna.Trial, result: Mapping[str, Any], epochs: list[dict[str, Any]]) -> bool:
        """Write a result; False where the trial was given up before, so that the result became one of its own."""
        try:
            trial.set_user_attr("epochs", epochs)
            trial.set_user_attr("result", dict(result))
        except UpdateFinishedTrialError:
            own = trial.user_attrs
            if self.outcome(own["key"]) is None:
                self._keep(own, result, epochs, late_of=trial.number)
            return False
        return True

    def _keep(
        self, own: Mapping[str, Any], result: Mapping[str, Any], epochs: list[dict[str, Any]], late_of: int
    ) -> None:
        value = result["val_accuracy"]
        note = f"late: trial {late_of} had been given up"
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                value=value,
                user_attrs={**own, "result": dict(result), "epochs": epochs, "note": note, "late_of": late_of},
            )
        )

    def give_up_stale(self) -> None:
        """Have Optuna fail the trials whose workers are silent, and queue them again."""
        fail_stale_trials(self.study)

    def give_up(self, trial: FrozenTrial) -> None:
        """Fail a trial whose worker is known to be lost, and queue it again."""
        if self._fail(trial):
            entry = self.entries()[trial.user_attrs["key"]]
            if entry.lost < TRIES and not entry.open and entry.outcome is None:
                self.study.enqueue_trial({}, user_attrs={k: trial.user_attrs[k] for k in ("key", "order")})

    def _fail(self, trial: FrozenTrial) -> bool:
        try:
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):  # somebody was faster
            return False
        return True

    # Files --------------------------------------------------------------------------------------------------------

    def put_file(self, path: Path) -> str:
        """Keep a file in the database; returns its digest."""
        content, digest = path.read_bytes(), digest_of(path)
        study = self._file(digest)
        if "pieces" not in study.user_attrs:
            pieces = [content[i : i + _PIECE] for i in range(0, len(content), _PIECE)]
            for number, piece in enumerate(pieces):
                study.set_user_attr(str(number), base64.b64encode(piece).decode())
            study.set_user_attr("pieces", len(pieces))
        return digest

    def get_file(self, digest: str, path: Path) -> None:
        """Write a file that lies in the database to `path`.

        Raises:
            PruneNasError: it is not there whole.
        """
        content, name = b"", self._name(checked(digest))
        with contextlib.suppress(KeyError, TypeError, ValueError):
            pieces = optuna.load_study(study_name=name, storage=self._storage).user_attrs
            count = pieces["pieces"] if 0 <= pieces["pieces"] <= _MOST_PIECES else 0
            content = b"".join(base64.b64decode(pieces[str(number)]) for number in range(count))
        if hashlib.sha256(content).hexdigest() != digest:
            raise PruneNasError(f"file {digest[:12]} of {self.name} is incomplete in the database. Repeat the command")
        write_bytes(path, content)

    def has_file(self, digest: str) -> bool:
        """Whether a file lies in the database."""
        return self._name(digest) in optuna.get_all_study_names(storage=self._storage)

    def drop_file(self, digest: str) -> None:
        """Take a file out of the database."""
        self._storage.delete_study(self._file(checked(digest))._study_id)

    def drop_files(self) -> None:
        """Take all of the run's files out of the database."""
        for name in optuna.get_all_study_names(storage=self._storage):
            if name.startswith(self._name("")):
                with contextlib.suppress(KeyError):  # another command's coordinator was faster
                    optuna.delete_study(study_name=name, storage=self._storage)

    def _file(self, digest: str) -> optuna.Study:
        return optuna.create_study(
            study_name=self._name(digest), storage=self._storage, load_if_exists=True, direction="maximize"
        )

    def _name(self, digest: str) -> str:
        return f"{self.name}/file/{digest}"


def made(storage: Storage, name: str) -> Queue:
    """The queue called `name`, made if it is not there."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),  # nothing is ever sampled; this one costs nothing
    )
    return Queue(storage, study)


def found(storage: Storage, name: str) -> Queue | None:
    """The queue called `name`; None while nobody has made it."""
    try:
        return Queue(
            storage, optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
        )
    except KeyError:
        return None


def result_to_dict(result: Result, weights: str | None) -> dict[str, Any]:
    """A result as it lies in the queue, with the digest of the trained weights."""
    return {**asdict(result), "weights": weights}


def result_from_dict(data: Mapping[str, Any], worker: str) -> Result:
    """The inverse, told who did it: a name that is none, as a spreadsheet's formula, is left out.

    Raises:
        PruneNasError: it is none.
    """
    who = worker if _NAME.fullmatch(worker) else ""
    try:
        result = Result(**{**{k: v for k, v in data.items() if k != "weights"}, "worker": who})
        numbers = (result.val_accuracy, result.test_accuracy)
        sound = all(number is None or 0 <= number <= 1 for number in numbers) and result.seconds >= 0
        sound = sound and isinstance(result.epochs, int) and isinstance(result.error, str)
    except (AttributeError, TypeError):
        sound = False
    if not sound:
        raise PruneNasError(f"the queue holds an entry that is not a result: {str(data)[:300]}")
    return result
