"""A worker: takes trainings from a run's queue, one after another, until the run has ended.

Each training runs under Optuna's `study.optimize`, whose heartbeat tells the others that this process lives. What was
finished is written before its trial is told; a worker that was given up too early, as one that was suspended, still
delivers, unless somebody else has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from prune_nas.errors import MissingError, PruneNasError, UsageError
from prune_nas.search.cluster.briefing import Place, place_of, workplace
from prune_nas.search.cluster.queue import GIVEN_BACK, Order, Queue, found, result_to_dict
from prune_nas.search.cluster.storage import AWAY, NothingWaitsError, open_storage, parse_url, patiently
from prune_nas.search.work import Result, Training, Workplace
from prune_nas.training.loop import Epoch

_POLL = (0.05, 1.0)  # seconds between two looks into an empty queue, longer and longer
_LOOK = (0.2, 5.0)  # seconds between two looks for a study that is not there yet, longer and longer
_FIRST = 60  # heartbeat until the run's own is known


class _NoResultError(Exception):
    """A training that failed: its trial fails too."""


class _SupersededError(Exception):
    """A training that was given up, and that somebody else has finished."""


def work(
    storage: str,
    study: str,
    place: Place,
    folder: Path,
    *,
    say: Callable[[str], None],
    wait: float = 600.0,
    most: int | None = None,
    leashed: bool = False,
) -> int:
    """Work for the run `study` until it has ended; returns how many trainings were finished.

    Args:
        storage: URL of the database.
        study: the run's name.
        place: what this machine's operator allows.
        folder: where checkpoints and files are kept; a training that this machine began goes on from there.
        say: takes lines for the operator.
        wait: seconds to wait for the run to be there.
        most: leave after so many trainings.
        leashed: whether the run's own process started this one, and is the only one to do so.

    Raises:
        UsageError: the run cannot be worked for with this machine's code or data.
        MissingError: there is no such run, or the database stays away.
        KeyboardInterrupt: the process was told to stop; the training in hand was given back.
    """
    url = parse_url(storage)
    if url.get_backend_name() == "sqlite" and not leashed:
        raise UsageError("SQLite cannot hand out trainings to several workers. Use a postgresql:// storage")
    queue = _await(open_storage(url, _FIRST), study, wait, say)
    brief = queue.briefing
    place_ = workplace(brief, place)
    beat = brief.get("heartbeat")
    own = found(open_storage(url, beat if isinstance(beat, int) and 0 < beat < 3600 else _FIRST), study)
    assert own is not None  # noqa: S101  (it was there a moment ago)
    worker = Worker(own, place_, folder / place_of(study, brief), say)
    say(f"works for {study} on {place_.setting.device} as {worker.name}")
    pause = _POLL[0]
    while not patiently(lambda: own.done, say) and (most is None or worker.finished < most):
        if worker.next():
            pause = _POLL[0]
        else:
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL[1])
    if patiently(lambda: own.done, say):
        worker.clear()
    return worker.finished


def _await(storage: Any, study: str, wait: float, say: Callable[[str], None]) -> Queue:
    end, told, pause = time.monotonic() + wait, False, _LOOK[0]
    while (queue := patiently(lambda: found(storage, study), say)) is None or not _briefed(queue):
        if time.monotonic() > end:
            raise MissingError(
                f"there is no run {study} in that database after {wait:.0f} s. Start it with: "
                f"prune-nas search --storage ... --study {study}"
            )
        if not told:
            say(f"waits for the run {study}")
            told = True
        time.sleep(min(pause, max(end - time.monotonic(), 0.05)))
        pause = min(1.5 * pause, _LOOK[1])
    return queue


def _briefed(queue: Queue) -> bool:
    """Whether the coordinator has written its briefing; a study without one may be another program's."""
    return bool(queue.study.user_attrs) and queue.briefing is not None


class Worker:
    """One process at work for one queue."""

    def __init__(self, queue: Queue, place: Workplace, folder: Path, say: Callable[[str], None]) -> None:
        """Bind what every training needs."""
        self.finished = 0
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._queue, self._place, self._folder, self._say = queue, place, folder, say
        self._given_up = self._stopped = False
        self._trial: optuna.Trial | None = None
        self._own: Exception | None = None

    def next(self) -> bool:
        """Do the next training; False where there is none."""
        try:
            self._queue.give_up_stale()
            if not self._queue.waiting():
                return False
            self._given_up = False
            self._queue.study.optimize(self._objective, n_trials=1, catch=(_NoResultError,))
        except KeyboardInterrupt:
            self._stopped = True
        except (NothingWaitsError, *AWAY):
            return self._go_on(False)
        except Exception as error:
            # Optuna will not be told of a trial that was given up, and stumbles itself where the database is away.
            if error is self._own and not isinstance(error, UpdateFinishedTrialError):
                raise
        return self._go_on(True)

    def clear(self) -> None:
        """Remove the run's files from this machine."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _go_on(self, did: bool) -> bool:
        """`did`; or, where the process was told to stop, whatever Optuna made of that, give back and stop.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self._stopped:
            with contextlib.suppress(*AWAY):
                self._give_back()
            raise KeyboardInterrupt
        return did

    def _objective(self, trial: optuna.Trial) -> float:
        self._trial, self._own = trial, None
        try:
            return self._value(trial)
        except KeyboardInterrupt:
            self._stopped = True
            raise
        except Exception as error:
            self._own = error
            raise

    def _value(self, trial: optuna.Trial) -> float:
        own = patiently(lambda: trial.user_attrs, self._say)
        key = str(own.get("key"))
        if (known := patiently(lambda: self._queue.outcome(key), self._say)) is None:
            known = self._train(trial, key, own.get("order", {}))
        else:
            patiently(lambda: trial.set_user_attr("result", known), self._say)
        if known["val_accuracy"] is None:
            raise _NoResultError(known["error"])
        return float(known["val_accuracy"])

    def _train(self, trial: optuna.Trial, key: str, ordered: dict[str, Any]) -> dict[str, Any]:
        try:
            order = Order.from_dict(ordered, key)
            self._place.traced.space.check(dict(order.training.widths))
        except UsageError as error:
            _noted(trial, str(error))
            raise _NoResultError(str(error)) from error
        me = {"name": self.name, "host": socket.gethostname(), "pid": os.getpid()}
        epochs: list[dict[str, Any]] = []

        def note(epoch: Epoch) -> None:
            epochs.append(asdict(epoch))
            self._report(trial, key, epochs)
            self._say(f"{training.spoken}, epoch {epoch.number}: {100 * epoch.val_accuracy:.1f} % on validation")

        try:
            patiently(lambda: self._queue.beat(trial), self._say)
            patiently(lambda: trial.set_user_attr("worker", me), self._say)
            training = patiently(lambda: self._local(order, key), self._say)
            result = self._place.perform(training, note)
            delivered = patiently(lambda: self._deliver(trial, training, result, epochs), self._say)
        except KeyboardInterrupt:
            _noted(trial, GIVEN_BACK)
            raise
        except _SupersededError:
            return self._queue.outcome(key) or {}
        except (PruneNasError, OSError, RuntimeError) as error:
            _noted(trial, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            raise
        for path in (training.checkpoint, training.weights):
            if path is not None:
                path.unlink(missing_ok=True)
        self.finished += 1
        return delivered

    def _deliver(
        self, trial: optuna.Trial, training: Training, result: Result, epochs: list[dict[str, Any]]
    ) -> dict[str, Any]:
        kept = training.weights if result.val_accuracy is not None else None
        wanted = kept is not None and self._queue.outcome(trial.user_attrs["key"]) is None
        digest = self._queue.put_file(kept) if kept is not None and wanted else None
        plain = {**result_to_dict(result, digest), "worker": self.name}
        if not self._queue.deliver(trial, plain, epochs):
            self._given_up = True
            self._say(f"{training.spoken} had been given up. Its result was kept")
        return plain

    def _report(self, trial: optuna.Trial, key: str, epochs: list[dict[str, Any]]) -> None:
        """Show how far it is; while the database is away, the next epoch will."""
        try:
            trial.set_user_attr("epochs", epochs)
        except UpdateFinishedTrialError:
            self._given_up = True
            if self._queue.outcome(key) is not None:
                raise _SupersededError from None
        except AWAY:
            return

    def _local(self, order: Order, key: str) -> Training:
        """The training with this machine's paths, its widths checked."""
        training, origin = order.training, None
        if order.origin is not None:
            origin = self._folder / f"{order.origin}.safetensors"
            if not origin.exists():
                self._queue.get_file(order.origin, origin)
        return replace(
            training,
            checkpoint=self._folder / f"{key}.checkpoint.safetensors",
            origin=origin,
            weights=self._folder / f"{key}.safetensors" if order.keeps else None,
        )

    def _give_back(self) -> None:
        trial = self._trial
        if trial is None or "order" not in trial.user_attrs:
            return
        frozen = [t for t in self._queue.study.get_trials(deepcopy=False) if t.number == trial.number]
        if frozen and frozen[0].user_attrs.get("note") == GIVEN_BACK:
            self._queue.add(Order.from_dict(frozen[0].user_attrs["order"]))


def _noted(trial: optuna.Trial, note: str) -> None:
    """Say in the trial why it ended, if it has not been given up and the database is there."""
    try:
        trial.set_user_attr("note", note)
    except (UpdateFinishedTrialError, *AWAY):
        return
