"""The finals: train every arm from scratch on seeds that the study never used, and open the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from prune_nas.design.arms import Job
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import Final, read_table, write_table
from prune_nas.design.selection import best_channels
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import Traced
from prune_nas.pruning.importance import gamma_scores
from prune_nas.search.supernet import save_weights
from prune_nas.training.data import ImageSet
from prune_nas.training.loop import Epoch, Setting, accuracy, train
from prune_nas.training.recipe import Recipe

FINAL_SEEDS = 1000  # finals train with seeds from here on; the supernet and the study use the run's own seed


def owed(jobs: Iterable[Job], table: Path) -> list[Job]:
    """The jobs that have no row yet."""
    done = {(r.budget, r.arm, r.candidate, r.seed, r.schedule, r.epochs) for r in read_table(table, Final)}
    return [job for job in jobs if job.key not in done]


def name_of(job: Job) -> str:
    """The name of a training in `curves.csv` and `run.json`."""
    return f"{job.arm}/{job.schedule}/{job.widths.digest}/{job.seed}"


def checkpoint_of(job: Job) -> str:
    """The name of a job's checkpoint."""
    return f"final-{name_of(job).replace('/', '-')}"


class Finals:
    """Trains jobs and appends their rows; arms of equal widths share one training."""

    def __init__(
        self,
        traced: Traced,
        setting: Setting,
        recipe: Recipe,
        test: ImageSet,
        *,
        table: Path,
        checkpoint: Callable[[Job], Path],
        weights: Path,
        supernet: nn.Module | None,
    ) -> None:
        """Bind what every job needs.

        Args:
            traced: the network.
            setting: data, device and precision.
            recipe: the base's recipe; jobs bring their own epochs.
            test: the test split.
            table: `finals.csv`.
            checkpoint: where a job's training keeps its last epoch.
            weights: folder for the trained weights of the found net.
            supernet: the trained supernet; the inherited arm needs it.
        """
        self.traced, self.setting, self.recipe, self.test = traced, setting, recipe, test
        self.table, self.checkpoint, self.weights = table, checkpoint, weights
        self.supernet = supernet

    def run(self, job: Job, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Final:
        """Train one job, or take the row of an arm that shares its training, and append to the table."""
        rows = read_table(self.table, Final)
        twin = next((r for r in rows if _training(r) == job.training), None)
        if twin is not None and (job.arm != "found" or self.weights_of(job).exists()):
            row = replace(twin, budget=job.budget, arm=job.arm, schedule=job.schedule)
        else:
            row = self._train(job, on_epoch)
        write_table(self.table, Final, [*rows, row])
        self.checkpoint(job).unlink(missing_ok=True)
        return row

    def weights_of(self, job: Job) -> Path:
        """Where a found net's weights are kept."""
        return self.weights / f"{job.widths.digest}-{job.schedule}-{job.seed}.safetensors"

    def _train(self, job: Job, on_epoch: Callable[[Epoch], None]) -> Final:
        cost = self.traced.space.cost(job.widths)
        network, epochs = train(
            partial(self._build, job),
            self.setting,
            self.recipe.lasting(job.epochs),
            seed=job.seed,
            checkpoint=self.checkpoint(job),
            on_epoch=on_epoch,
        )
        if job.arm == "found":
            save_weights(self.weights_of(job), network)
        return Final(
            budget=job.budget,
            arm=job.arm,
            method="",
            ratio="",
            candidate=job.widths.digest,
            seed=job.seed,
            schedule=job.schedule,
            epochs=job.epochs,
            macs=cost.macs,
            params=cost.params,
            val_accuracy=epochs[-1].val_accuracy,
            test_accuracy=accuracy(network, self.test, self.setting),
            train_macs=train_macs(cost.macs, len(self.setting.data.train), job.epochs),
            seconds=round(sum(epoch.seconds for epoch in epochs), 3),
        )

    def _build(self, job: Job) -> nn.Module:
        network = self.traced.build(job.widths, seed=job.seed)
        if job.arm == "inherited" and self.supernet is not None:
            kept = best_channels(gamma_scores(self.traced.space, self.supernet), job.widths)
            inherit(self.traced.space, self.supernet, network, kept)
        return network


def _training(row: Final) -> tuple[str, int, int, bool]:
    return row.candidate, row.seed, row.epochs, row.arm == "inherited"
