"""The finals: train every arm from scratch on seeds that the study never used, and open the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prune_nas.design.arms import Job, Key, key_of, training_of
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import KEPT, Final, read_table, write_table
from prune_nas.design.space import Cost
from prune_nas.search.work import Result, Training

FINAL_SEEDS = 1000  # finals train with seeds from here on; the supernet and the first rung use the run's own seed
FINALIST_SEEDS = 500  # the second rung's seeds from here on


def owed(jobs: Iterable[Job], table: Path) -> list[Job]:
    """The jobs that have no row yet."""
    done = {_key(row) for row in read_table(table, Final)}
    return [job for job in jobs if job.key not in done]


def name_of(job: Job) -> str:
    """The name of a training in `curves.csv` and `run.json`; kept weights are told apart by what was pruned."""
    where = f"/{job.budget}" if job.schedule in KEPT else ""
    return f"{job.arm}/{job.schedule}/{job.candidate}/{job.seed}{where}"


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
        self,
        jobs: Sequence[Job],
        *,
        cost: Callable[[Job], Cost],
        table: Path,
        images: int,
        checkpoint: Callable[[Job], Path],
        origin: Callable[[Job], Path | None],
        weights: Callable[[Job], Path | None],
        on_failure: Callable[[Job, Result], None],
    ) -> None:
        """Bind what every job needs.

        Args:
            jobs: those that are owed, in the order in which their rows are wanted.
            cost: of a job's network.
            table: `finals.csv`.
            images: training images, for the ledger.
            checkpoint: where a job's training keeps its last epoch.
            origin: the trained weights that a job goes on from, or that its mask is read from.
            weights: where a job's trained weights are kept, if anywhere.
            on_failure: called where a training failed: it leaves no row.
        """
        self._cost, self._table, self._images = cost, table, images
        self._checkpoint, self._origin, self._weights, self._on_failure = checkpoint, origin, weights, on_failure
        self._groups: dict[Key, list[Job]] = {}
        for job in jobs:
            self._groups.setdefault(job.training, []).append(job)
        self._share(read_table(table, Final))
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
            spoken=f"{job.arm} {job.schedule} seed {job.seed}",
            widths=job.widths,
            seed=job.seed,
            epochs=job.epochs,
            checkpoint=self._checkpoint(job),
            schedule=job.schedule,
            origin=self._origin(job),
            mask=job.mask,
            tests=True,
            weights=self._weights(job),
        )

    def tell(self, training: Training, result: Result) -> None:
        """Append a row for every arm that the training serves, then drop its checkpoint."""
        candidate = training.mask.digest if training.mask else training.widths.digest
        group = self._groups[key_of(training.budget, candidate, training.seed, training.schedule, training.epochs)]
        if result.val_accuracy is None or result.test_accuracy is None:
            self._on_failure(group[0], result)
        else:
            self._append([self._row(job, result.val_accuracy, result.test_accuracy, result.seconds) for job in group])
        training.checkpoint.unlink(missing_ok=True)

    def _share(self, rows: Sequence[Final]) -> None:
        """Give the jobs whose training has a row already, from another arm, theirs."""
        trained = {training_of(row): row for row in rows}
        for key in [key for key in self._groups if key in trained]:
            group = self._groups[key]
            kept = [path for job in group if job.arm == "found" and (path := self._weights(job)) is not None]
            if not all(path.exists() for path in kept):
                continue
            row = trained[key]
            self._append([self._row(job, row.val_accuracy, row.test_accuracy, row.seconds) for job in group])
            del self._groups[key]

    def _append(self, rows: Sequence[Final]) -> None:
        write_table(self._table, Final, [*read_table(self._table, Final), *rows])

    def _row(self, job: Job, val_accuracy: float, test_accuracy: float, seconds: float) -> Final:
        cost = self._cost(job)
        return Final(
            budget=job.budget,
            arm=job.arm,
            method="",
            ratio="",
            candidate=job.candidate,
            seed=job.seed,
            schedule=job.schedule,
            epochs=job.epochs,
            macs=cost.macs,
            params=cost.params,
            val_accuracy=val_accuracy,
            test_accuracy=test_accuracy,
            train_macs=train_macs(cost.macs, self._images, job.epochs),
            seconds=seconds,
        )


def _key(row: Final) -> tuple[str, str, str, int, str, int]:
    return row.budget, row.arm, row.candidate, row.seed, row.schedule, row.epochs
