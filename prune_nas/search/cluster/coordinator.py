"""The crew of a run with a storage: puts its trainings into the queue, and takes the results as they come.

Workers may join and leave at any time; as many trainings lie ready as keep them busy, and no more, so that a study
proposes with as many results as there are. Whoever repeats the run's command after a crash finds what was finished
meanwhile in the queue.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from prune_nas.config import Config
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.nets.models.sources import runs_code
from prune_nas.search.cluster.briefing import differences, place_of
from prune_nas.search.cluster.queue import Entry, Order, Queue, digest_of, made, result_from_dict
from prune_nas.search.cluster.storage import TRIES, Storage, grace, masked, open_storage, parse_url, patiently
from prune_nas.search.crew import OnEpoch, Source
from prune_nas.search.progress import View
from prune_nas.search.work import Result, Training
from prune_nas.training.data import runs_code as data_runs_code

_POLL = (0.05, 1.0)  # seconds between two looks at the queue, longer and longer while nothing happens
_BACKSTOP = 5.0  # seconds after which a training that nobody does is queued again
_STARTS = 5  # times that a local worker is started again
_LONELY = 60.0  # seconds without a worker after which a person is told


@dataclass
class _Task:
    source: Source
    training: Training
    order: Order
    after: int = -1
    epochs: int = 0
    idle: float | None = None


class Cluster:
    """Trains through a queue in a database."""

    def __init__(self, config: Config, name: str, briefing: dict[str, Any], local: Sequence[str], threads: int,
                 folder: Path, view: View) -> None:  # fmt: skip
        """Use as a context: entering makes the queue, or finds it.

        Args:
            config: with the storage.
            name: the study's.
            briefing: from `briefing.briefing`.
            local: the devices of the workers that this process starts itself, one each.
            threads: CPU threads of each of those.
            folder: where those keep their checkpoints.
            view: takes messages.

        Raises:
            UsageError: the storage cannot be used so.
        """
        assert config.storage is not None  # noqa: S101  (who makes a cluster has one)
        self._secret = config.storage.get_secret_value()
        self._url = _checked(parse_url(self._secret), len(local))
        self._config, self._name, self._briefing, self._view = config, name, briefing, view
        self._folder = folder / place_of(name, briefing)
        self._team = _Team(config, name, self._secret, local, threads, folder)
        self._tasks: dict[str, _Task] = {}
        self._unseen: dict[int, float] = {}
        self._stale_at = 0.0
        self._queue: Queue

    def __enter__(self) -> Self:
        storage = open_storage(self._url, self._config.heartbeat)
        patiently(lambda: self._open(storage), self._view.say)
        self._view.say(
            f"trains through {masked(self._url)}. On any machine: prune-nas worker --storage URL --study {self._name}"
        )
        return self

    def _open(self, storage: Storage) -> None:
        self._queue = made(storage, self._name)
        if self._queue.study.user_attrs and (wrong := differences(self._queue.briefing, self._briefing)):
            raise UsageError(
                f"the study {self._name} in that database belongs to another run:\n  "
                + "\n  ".join(wrong)
                + "\nname another study with --study"
            )
        self._queue.brief(self._briefing)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            patiently(self._end, self._view.say)
        self._team.dismiss()
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        self._queue.close()
        self._queue.drop_files()
        self._queue.finish()

    def run(self, sources: Sequence[Source], on_epoch: OnEpoch) -> None:
        """Do everything that the sources ask for; results are told as they come."""
        quiet_since, pause = time.monotonic(), _POLL[0]
        while True:
            before = set(self._tasks)
            patiently(lambda: self._turn(sources, on_epoch), self._view.say)
            if not self._tasks:
                return
            pause = _POLL[0] if before != set(self._tasks) else min(1.5 * pause, _POLL[1])
            if lost := self._team.keep_up():
                patiently(partial(self._without, lost), self._view.say)
            if self._team.size or patiently(self._busy, self._view.say):
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _LONELY:
                self._view.say(
                    f"no worker has joined. Start a worker: prune-nas worker --storage URL --study {self._name}"
                )
                quiet_since = time.monotonic()
            time.sleep(pause)

    def _turn(self, sources: Sequence[Source], on_epoch: OnEpoch) -> None:
        """Take what came in and queue what is wanted."""
        if time.monotonic() >= self._stale_at:
            self._queue.give_up_stale()
            self._stale_at = time.monotonic() + self._config.heartbeat
        entries = self._queue.entries()
        for key, task in list(self._tasks.items()):
            self._look(key, task, entries.get(key), on_epoch)
        states = [trial.state for key in self._tasks if key in entries for trial in entries[key].trials]
        ready, running = states.count(TrialState.WAITING), states.count(TrialState.RUNNING)
        for task in self._asked(sources, max(1, math.ceil(running / 8), self._team.size - running) - ready):
            self._tasks[task.order.key] = task  # first, so that it is not lost where the database is away
            task.after = self._queue.spent(task.order)
            self._submit(task)

    def _asked(self, sources: Sequence[Source], wanted: int) -> Iterator[_Task]:
        """Up to `wanted` new trainings, from the source with the fewest in hand."""
        asked = list(sources)
        while wanted > 0 and asked:
            source = min(asked, key=lambda one: sum(task.source is one for task in self._tasks.values()))
            training = source.ask()
            if training is None:
                asked.remove(source)
                continue
            origin = digest_of(training.origin) if training.origin is not None else None
            wanted -= 1
            yield _Task(source, training, Order(training, origin, training.weights is not None))

    def _submit(self, task: _Task) -> None:
        if task.training.origin is not None:
            self._queue.put_file(task.training.origin)
        self._queue.add(task.order, task.after)

    def _look(self, key: str, task: _Task, entry: Entry | None, on_epoch: OnEpoch) -> None:
        entry = entry and entry.since(task.after)
        if entry is None:
            self._submit(task)
            return
        for epoch in entry.epochs[task.epochs :]:
            on_epoch(task.training, epoch)
            task.epochs += 1
        if (outcome := entry.outcome) is not None:
            self._take(key, task, outcome)
        elif entry.open:
            task.idle = None
            for trial in entry.trials:
                self._began(trial)
        elif entry.lost >= TRIES:
            notes = [t.user_attrs.get("note", "its worker was lost") for t in entry.trials]
            error = f"it was begun {entry.lost} times and never finished: {'; '.join(dict.fromkeys(notes))}"
            spent = round(sum(epoch.seconds for epoch in entry.epochs), 3)
            task.source.tell(task.training, Result(None, len(entry.epochs), spent, error=error))
            del self._tasks[key]
        elif task.idle is None:
            task.idle = time.monotonic()
        elif time.monotonic() - task.idle > _BACKSTOP:
            self._queue.add(task.order, task.after)

    def _began(self, trial: FrozenTrial) -> None:
        """Give up a trial that was taken and never begun: Optuna calls only those stale that gave a sign of life."""
        if trial.state != TrialState.RUNNING or "worker" in trial.user_attrs:
            self._unseen.pop(trial.number, None)
        elif time.monotonic() - self._unseen.setdefault(trial.number, time.monotonic()) > grace(self._config.heartbeat):
            self._queue.give_up(trial)

    def _take(self, key: str, task: _Task, outcome: dict[str, Any]) -> None:
        target, digest = task.training.weights, outcome.get("weights")
        if target is not None and digest is not None:
            self._queue.get_file(str(digest), target)
        result = result_from_dict(outcome, str(outcome.get("worker", "")))
        del self._tasks[key]  # nothing is told twice
        task.source.tell(task.training, result)
        if digest is not None:
            self._queue.drop_file(str(digest))

    def _without(self, lost: Sequence[int]) -> None:
        """Give up the trials of local workers that ended: nobody need wait for their silence."""
        host = socket.gethostname()
        for entry in self._queue.entries().values():
            for trial in entry.trials:
                by = trial.user_attrs.get("worker")
                if not isinstance(by, dict):
                    continue
                if trial.state == TrialState.RUNNING and by.get("host") == host and by.get("pid") in lost:
                    self._queue.give_up(trial)

    def _busy(self) -> bool:
        return bool(self._queue.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


class _Team:
    """The workers that the run's own process starts, and that end with it."""

    def __init__(
        self, config: Config, study: str, storage: str, devices: Sequence[str], threads: int, folder: Path
    ) -> None:
        self._devices, self._storage = devices, storage
        self._members: dict[int, subprocess.Popen[bytes]] = {}
        self._starts = 0
        self._command = [sys.executable, "-m", "prune_nas", "worker", "--study", study, "--threads", str(threads),
                         "--dir", str(folder), "--leash", "--quiet"]  # fmt: skip
        if runs_code(config.model):
            self._command += ["--model", config.model]
        if data_runs_code(config.dataset):
            self._command += ["--dataset", config.dataset]
        if config.data_dir is not None:
            self._command += ["--data-dir", str(config.data_dir)]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._devices)

    def keep_up(self) -> list[int]:
        """Start whoever is missing; returns the processes that ended.

        Raises:
            PruneNasError: they keep ending.
        """
        lost = []
        for number, device in enumerate(self._devices):
            member = self._members.get(number)
            if member is not None and (status := member.poll()) is not None:
                lost.append(member.pid)
                del self._members[number]
                self._starts += 1
                if status in (2, 3) or self._starts > _STARTS * self.size:
                    raise PruneNasError(f"a local worker ended with status {status}. It said why above")
            if number not in self._members:
                self._members[number] = subprocess.Popen(  # noqa: S603
                    [*self._command, "--device", device],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "PRUNE_NAS_STORAGE": self._storage},
                )
        return lost

    def dismiss(self) -> None:
        """Let go of the leash of each, and wait until it has given back what it had in hand."""
        for member in self._members.values():
            assert member.stdin is not None  # noqa: S101  (a pipe was asked for)
            with contextlib.suppress(OSError):
                member.stdin.close()
        for member in self._members.values():
            try:
                member.wait(30)
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()
        self._members.clear()


def _checked(url: URL, local: int) -> URL:
    if url.get_backend_name() == "sqlite" and local != 1:
        raise UsageError(
            "SQLite cannot hand out trainings to several workers (two may get the same training). Use "
            "--workers 1 or a postgresql:// storage. On one machine leave --storage out"
        )
    return url
