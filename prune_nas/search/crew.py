"""Who does the trainings: this process, or several workers beside each other.

Small networks do not fill two cores: the threads of one training wait for each other at every layer. Trainings of
one thread each, side by side, do more work in the same time, and a study of several budgets, its finalists and the
finals have trainings enough. A crew asks its sources for trainings and tells them the results **in the order in which
it asked**, however long each took: what a study proposes next depends on the number of workers, never on timing.

A worker is a process of its own that reads orders and writes answers as lines of JSON (`prune_nas.search.worker`). It
ends as soon as its parent does; one that dies is replaced and its training goes on from its last epoch. One that dies
of a fault in compiled code (signals 4, 6, 7, 8, 11) is replaced by one that trains in contiguous memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from prune_nas.errors import PruneNasError
from prune_nas.search.work import Performer, Result, Training
from prune_nas.training.loop import Epoch

OnEpoch = Callable[[Training, Epoch], None]
_TRIES = 3  # a training whose worker died this often counts as failed
_CRASHED = 2  # and so one whose worker crashed this often: a crash comes again, a kill does not
_CRASHES = {int(one): one.name for one in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)}
_PATIENCE = 10  # seconds that a worker has to end by itself


class Source(Protocol):
    """Where trainings come from: a study, its finalists, the finals."""

    def ask(self) -> Training | None:
        """The next training, or None while there is none to begin (a later result may change that)."""

    def tell(self, training: Training, result: Result) -> None:
        """Take a result; called once for each training, in the order in which they were asked for."""


class Crew(Protocol):
    """What does trainings."""

    def run(self, sources: Sequence[Source], on_epoch: OnEpoch) -> None:
        """Do everything that the sources ask for."""

    def __enter__(self) -> Self:
        """Be ready for work."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the workers go; without an error the run's trainings are at an end."""


class Alone:
    """This process does one training after another, alone or with those of its team."""

    def __init__(self, performer: Performer) -> None:
        """Have `performer` do them."""
        self._performer = performer

    def run(self, sources: Sequence[Source], on_epoch: OnEpoch) -> None:
        """Do everything that the sources ask for, source by source."""
        for source in sources:
            while (training := source.ask()) is not None:
                source.tell(training, self._performer.perform(training, lambda e, t=training: on_epoch(t, e)))  # type: ignore[misc]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Let those of the team go; where this process fails, they end with it."""
        if kind is None:
            self._performer.close()


@dataclass(slots=True)
class _Task:
    training: Training
    tries: int = 1
    epochs: int = 0
    seconds: float = 0.0
    crashes: int = 0
    """How often its worker died of a fault in compiled code."""
    result: Result | None = None


class Workers:
    """Several processes that train beside each other."""

    def __init__(self, devices: Sequence[str], briefing: dict[str, Any]) -> None:
        """Make a worker for each of `devices` when it is first needed; `briefing` is what each is told first."""
        self._briefing = briefing
        self._inbox: SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = SimpleQueue()
        self._plain: set[str] = set()
        """Workers that train in contiguous memory, since one in their place has crashed."""
        self._devices = {str(number + 1): device for number, device in enumerate(devices)}
        self._free = [*reversed(self._devices)]
        self._hired: dict[str, _Worker] = {}
        self._busy: dict[str, _Task] = {}

    def run(self, sources: Sequence[Source], on_epoch: OnEpoch) -> None:
        """Do everything that the sources ask for; the earlier source goes first where both have work."""
        lines = [_Line(source, ahead=len(self._devices)) for source in sources]
        while True:
            while self._free and (task := _next(lines)) is not None:
                self._give(self._free.pop(), task)
            if not self._busy:
                return
            self._listen(on_epoch)
            for line in lines:
                line.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End every worker; a training in progress keeps its last epoch."""
        for worker in self._hired.values():
            worker.end()
        self._hired.clear()

    def _give(self, name: str, task: _Task) -> None:
        worker = self._hired.get(name)
        if worker is None:
            told = {**self._briefing, "device": self._devices[name], "channels_last": name not in self._plain}
            worker = self._hired[name] = _Worker(name, told, self._inbox)
        self._busy[name] = task
        worker.order(task.training.to_dict())

    def _listen(self, on_epoch: OnEpoch) -> None:
        worker, answer = self._inbox.get()
        if self._hired.get(worker.name) is not worker:
            return  # the last words of one that was replaced
        task = self._busy.get(worker.name)
        if answer is None:
            self._lost(worker, task)
        elif answer["kind"] == "epoch" and task is not None:
            epoch = Epoch(**answer["epoch"])
            task.epochs, task.seconds = max(task.epochs, epoch.number), task.seconds + epoch.seconds
            on_epoch(task.training, epoch)
        elif answer["kind"] == "result" and task is not None:
            task.result = replace(Result(**answer["result"]), worker=worker.name)
            self._release(worker.name)
        elif answer["kind"] == "error":
            raise _as_error(answer)

    def _lost(self, worker: _Worker, task: _Task | None) -> None:
        status = worker.end()
        del self._hired[worker.name]
        if task is None:
            return
        if crashed := -status in _CRASHES:
            task.crashes += 1
            self._plain.add(worker.name)
        if task.crashes < _CRASHED and task.tries < _TRIES:
            task.tries += 1
            self._give(worker.name, task)
            return
        self._plain.discard(worker.name)
        if crashed:
            error = (
                f"its worker process crashed in compiled code ({_CRASHES[-status]}), in channels_last and in "
                "contiguous memory. It is a fault of PyTorch or of a library"
            )
        else:
            error = (
                f"its worker process ended {task.tries} times, last with status {status} (-9: memory full, or killed)"
            )
        task.result = Result(None, task.epochs, round(task.seconds, 3), error=error, worker=worker.name)
        self._release(worker.name)

    def _release(self, name: str) -> None:
        del self._busy[name]
        self._free.append(name)


class _Line:
    """A source, what it asked for and was not told yet, and what of that no worker has begun.

    It is asked again after every single result, up to `ahead` trainings in hand, whether or not a worker is free: what
    a study proposes must know the results before it, not those that happen to be there.
    """

    def __init__(self, source: Source, ahead: int) -> None:
        self._source, self._ahead = source, ahead
        self._untold: deque[_Task] = deque()
        self.waiting: deque[_Task] = deque()
        self._fill()

    def ask(self) -> bool:
        """Ask for one training more; whether there is one."""
        training = self._source.ask()
        if training is not None:
            self.waiting.append(_Task(training))
            self._untold.append(self.waiting[-1])
        return training is not None

    def tell(self) -> None:
        """Pass on, in the order of asking, what has come in."""
        while self._untold and (result := self._untold[0].result) is not None:
            self._source.tell(self._untold.popleft().training, result)
            self._fill()

    def _fill(self) -> None:
        while len(self._untold) < self._ahead and self.ask():
            pass


def _next(lines: Sequence[_Line]) -> _Task | None:
    line = next((line for line in lines if line.waiting), None) or next((line for line in lines if line.ask()), None)
    return line.waiting.popleft() if line else None


class _Worker:
    """One process, and a thread that puts its answers into the inbox; None there means that it ended."""

    def __init__(
        self, name: str, briefing: dict[str, Any], inbox: SimpleQueue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self.name = name
        threads = {"OMP_NUM_THREADS": str(briefing["threads"])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prune_nas.search.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads},
        )
        threading.Thread(target=self._read, args=(inbox,), daemon=True).start()
        self.order(briefing)

    def order(self, order: dict[str, Any]) -> None:
        """Write one line; a worker that has ended says so through the inbox."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None  # noqa: S101  (a pipe was asked for)
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def end(self) -> int:
        """Close its orders, which ends it, and return its exit status."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.close()
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _read(self, inbox: SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        for line in self._process.stdout or ():
            try:
                inbox.put((self, json.loads(line)))
            except json.JSONDecodeError:  # a line that its end cut off
                break
        inbox.put((self, None))


def _as_error(answer: dict[str, Any]) -> Exception:
    if answer["errno"] is not None:
        return OSError(answer["errno"], answer["message"], answer["file"])
    if answer["exit_code"] is None:
        return RuntimeError(f"in a worker:\n{answer['message']}")
    error = PruneNasError(answer["message"])
    error.exit_code = answer["exit_code"]
    return error
