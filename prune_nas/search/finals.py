"""The finals: train every arm from scratch on seeds that the study never used, and open the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prune_nas.design.arms import Job, Key, key_of, training_of
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import KEPT, Final, read_table, write_table
from prune_nas.search.work import Result, Training

if TYPE_CHECKING:
    from prune_nas.search.experiment import Experiment

FINAL_SEEDS = 1000  # finals train with seeds from here on; the supernet and the first rung use the run's own seed
FINALIST_SEEDS = 500  # the second rung's seeds from here on


def owed(jobs: Iterable[Job], table: Path) -> list[Job]:
    """The jobs that have no row yet."""
    done = {_key(row) for row in read_table(table, Final)}
    return [job for job in jobs if job.key not in done]


def name_of(job: Job) -> str:
    """The name of a training in `curves.csv` and `run.json`; kept weights carry the name of what was pruned."""
    where = f"/{job.budget}" if job.schedule in KEPT else ""
    return f"{job.arm}/{job.schedule}/{job.candidate}/{job.seed}{where}"


def failure_of(job: Job) -> str:
    """The name of a failed final in `run.json`: arms and cases that share a training have failures of their own."""
    return f"{job.budget}/{name_of(job)}"


def checkpoint_of(job: Job) -> str:
    """The name of a job's checkpoint."""
    return f"final-{name_of(job).replace('/', '-')}"


def weights_of(training: Key) -> str:
    """The file of a training's weights in the run's `weights/`."""
    start = f"-{training.start.replace(' ', '-')}" if training.start else ""
    return f"{training.candidate}-{training.epochs}-{training.seed}{start}.safetensors"


class Finals:
    """The finals as a source of trainings; arms of equal widths share one, and its result makes a row for each."""

    def __init__(
        self, jobs: Sequence[Job], of: Experiment, on_failure: Callable[[Sequence[Job], Result], None]
    ) -> None:
        """Bind what every job needs.

        Args:
            jobs: those that are owed, in the order in which their rows are wanted.
            of: the run whose finals they are.
            on_failure: called with the jobs that a training served where it failed: it leaves no row.
        """
        self._of, self._on_failure = of, on_failure
        self._table = of.run.file("finals.csv")
        self._groups: dict[Key, list[Job]] = {}
        for job in jobs:
            self._groups.setdefault(job.training, []).append(job)
        self._share(read_table(self._table, Final))
        self._left = list(self._groups)

    @property
    def epochs(self) -> int:
        """Epochs that are still to be trained, or to be continued."""
        return sum(self._groups[key][0].epochs for key in self._left)

    def ask(self) -> Training | None:
        """The next training, in the jobs' order; None at the end."""
        if not self._left:
            return None
        group = self._groups[self._left.pop(0)]
        job = group[0]
        return Training(
            budget=job.budget,
            name=name_of(job),
            spoken=" ".join(
                filter(None, [self._of.case_of(job)[0] and job.budget, job.arm, job.schedule, f"seed {job.seed}"])
            ),
            widths=job.widths,
            seed=job.seed,
            epochs=job.epochs,
            checkpoint=self._of.run.checkpoint(checkpoint_of(job)),
            schedule=job.schedule,
            origin=self._of.origin(job),
            mask=job.mask,
            tests=True,
            weights=self._of.weights(job),
        )

    def tell(self, training: Training, result: Result) -> None:
        """Append a row for every arm that the training serves, then drop its checkpoint."""
        candidate = training.mask.digest if training.mask else training.widths.digest
        group = self._groups[key_of(training.budget, candidate, training.seed, training.schedule, training.epochs)]
        if result.val_accuracy is None or result.test_accuracy is None:
            self._on_failure(group, result)
        else:
            self._append([self._row(job, result.val_accuracy, result.test_accuracy, result.seconds) for job in group])
        training.checkpoint.unlink(missing_ok=True)

    def _share(self, rows: Sequence[Final]) -> None:
        """Give the jobs whose training has a row already, from another arm, theirs."""
        trained = {training_of(row): row for row in rows}
        for key in [key for key in self._groups if key in trained]:
            group = self._groups[key]
            kept = [path for job in group if job.arm == "found" and (path := self._of.weights(job)) is not None]
            if not all(path.exists() for path in kept):
                continue
            row = trained[key]
            self._append([self._row(job, row.val_accuracy, row.test_accuracy, row.seconds) for job in group])
            del self._groups[key]

    def _append(self, rows: Sequence[Final]) -> None:
        write_table(self._table, Final, [*read_table(self._table, Final), *rows])

    def _row(self, job: Job, val_accuracy: float, test_accuracy: float, seconds: float) -> Final:
        cost = self._of.cost(job)
        method, ratio = self._of.case_of(job)
        return Final(
            budget=job.budget,
            arm=job.arm,
            method=method,
            ratio=ratio,
            candidate=job.candidate,
            seed=job.seed,
            schedule=job.schedule,
            epochs=job.epochs,
            macs=cost.macs,
            params=cost.params,
            val_accuracy=val_accuracy,
            test_accuracy=test_accuracy,
            train_macs=train_macs(cost.macs, len(self._of.setting.data.train), job.epochs),
            seconds=seconds,
        )


def _key(row: Final) -> tuple[str, str, str, int, str, int]:
    return row.budget, row.arm, row.candidate, row.seed, row.schedule, row.epochs
