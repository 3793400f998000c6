"""What every run has, whatever it prunes: a network, data, a crew, a supernet to train, and finals to hold."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from prune_nas.config import FROM_SUPERNET, Config
from prune_nas.design.arms import Job, Key
from prune_nas.design.budget import Limits
from prune_nas.design.evidence import retire
from prune_nas.design.records import Curve, Final, read_table, write_table
from prune_nas.design.space import Cost, Space, Widths
from prune_nas.nets.tracing import Traced
from prune_nas.search.crew import Alone, Crew, Source, Workers
from prune_nas.search.curves import Curves
from prune_nas.search.finals import FINAL_SEEDS, Finals, checkpoint_of, failure_of, owed, weights_of
from prune_nas.search.learning import Watch
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run
from prune_nas.search.scoring import Scoring
from prune_nas.search.setup import cpu_threads, crew_devices, recipe_of
from prune_nas.search.together import Together
from prune_nas.search.work import Performer, Result, Training, Workplace
from prune_nas.training.loop import Epoch, Setting
from prune_nas.training.team import team


class Ending(Source, Protocol):
    """A source of trainings that knows how many epochs it will ask for."""

    @property
    def epochs(self) -> int:
        """Epochs that are still to be trained."""


@dataclass
class Experiment(ABC):
    """One run at work. What its phases found is in files; the cached properties only read them once.

    A kind of run says what its limits, jobs, their costs and its candidates are.
    """

    run: Run
    traced: Traced
    setting: Setting
    view: View
    _watched: tuple[tuple[str, str], Watch] | None = field(default=None, init=False)
    """The first training that is long enough to tell whether it learns, by its budget and name."""

    @property
    @abstractmethod
    def limits(self) -> Mapping[str, Limits]:
        """Budget -> absolute limits."""

    @abstractmethod
    def jobs(self) -> list[Job]:
        """Every training that the finals were asked for."""

    @abstractmethod
    def cost(self, job: Job) -> Cost:
        """What a job's network costs."""

    @abstractmethod
    def widths_of(self, budget: str, candidate: str | None) -> Widths:
        """The widths of a candidate, by its digest; the subject's by default."""

    @abstractmethod
    def origin(self, job: Job) -> Path | None:
        """The trained weights that a job goes on from, or that its mask is read from; made if they are not there."""

    def weights(self, job: Job) -> Path | None:
        """Where a job's trained weights are kept: everybody's but the base's."""
        return None if job.arm == "base" else self.run.file("weights") / weights_of(job.training)

    def case_of(self, job: Job) -> tuple[str, str]:
        """The pruning method and the ratio of a job; empty where no methods are compared."""
        return "", ""

    def about_weights(self, budget: str) -> dict[str, Any]:
        """What a spec says of masked weights: nothing where widths are compared."""
        return {}

    @abstractmethod
    def candidates(self) -> Mapping[str, Mapping[str, set[str]]]:
        """Budget -> arm -> the digests of its candidates."""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    @property
    def space(self) -> Space:
        """The run's space."""
        return self.traced.space

    @cached_property
    def curves(self) -> Curves:
        """The training curves, appended as epochs end."""
        return Curves(self.run.file("curves.csv"))

    @property
    def batch(self) -> int:
        """Images a step."""
        return recipe_of(self.config, 1).batch

    @cached_property
    def devices(self) -> list[str]:
        """The device of each worker."""
        return crew_devices(self.config, self.setting.device)

    @property
    def size(self) -> tuple[int, int]:
        """Workers, and the threads of each."""
        return len(self.devices), max(cpu_threads(self.config) // len(self.devices), 1)

    @cached_property
    def here(self) -> Performer:
        """This process as one that trains, with its team if it has one: for the supernet, and all else if alone."""
        place = Workplace(self.config, self.traced, self.setting)
        return Together(place) if team().size > 1 else place

    @cached_property
    def crew(self) -> Crew:
        """What trains everything but the supernet; a worker starts when it is first needed."""
        _, threads = self.size
        if team().size > 1:
            return Alone(self.here)
        if self.config.storage is not None:
            from prune_nas.search.cluster.briefing import briefing  # noqa: PLC0415 - with SQLAlchemy, for few runs
            from prune_nas.search.cluster.coordinator import Cluster  # noqa: PLC0415

            return Cluster(
                self.config,
                self.config.study or self.run.path.resolve().name,
                briefing(self.config, self.traced, self.setting),
                local=self.devices if self.config.workers != 0 else [],
                threads=threads,
                folder=self.run.file("checkpoints"),
                view=self.view,
            )
        if len(self.devices) == 1:
            return Alone(self.here)
        orders = {
            "config": self.config.model_dump(mode="json"),
            "threads": threads,
            "precision": self.setting.precision.name,
            "fingerprint": self.setting.data.fingerprint,
        }
        return Workers(self.devices, orders)

    def lanes(self, studies: int) -> int:
        """Trials of a study that may be in hand at once; with a storage as many as there are workers at the time."""
        return sys.maxsize if self.config.storage is not None else math.ceil(self.size[0] / studies)

    @property
    def scored(self) -> bool:
        """Whether the run has a supernet: without a prior always, with one if an arm asks for it."""
        asked = set(self.config.arms) | set(self.run.record["config"]["arms"])
        return self.config.prior is None or bool(set(FROM_SUPERNET) & asked)

    @cached_property
    def scoring(self) -> Scoring:
        """The supernet and what its scores give; only asked where the run is `scored`."""
        return Scoring(
            self.run, self.traced, self.setting, self.view, self.limits, self.here, partial(self._curve, "", "supernet")
        )

    # Finals -------------------------------------------------------------------------------------------------------

    def seeds(self) -> Sequence[int]:
        """The finals' seeds."""
        return [FINAL_SEEDS + self.config.seed + i for i in range(self.config.seeds)]

    def run_finals(self) -> None:
        """Train what is owed, on test data that nothing before has read."""
        table, jobs = self.run.file("finals.csv"), self.jobs()
        write_table(table, Final, retire(read_table(table, Final), self.candidates()))
        left = self.hopeful(owed(jobs, table))
        for job in set(jobs) - set(left):  # a process may have died between a row and the end of its checkpoint
            self.run.checkpoint(checkpoint_of(job)).unlink(missing_ok=True)
        if left:
            self._train_finals(left)
        self.run.phase("finals", "done")

    def hopeful(self, jobs: Sequence[Job]) -> list[Job]:
        """Those whose training has not diverged before; a new arm or case of such a training shares its failure."""
        noted = dict(self.run.record.get("failures", {}))
        diverged = {Key(*one["training"]): one for one in noted.values() if one["diverged"]}
        for job in jobs:
            if job.training in diverged and failure_of(job) not in noted:
                own = {"budget": job.budget, "arm": job.arm, "schedule": job.schedule, "epochs": 0, "seconds": 0.0}
                noted[failure_of(job)] = {**diverged[job.training], **own}
        if len(noted) > len(self.run.record.get("failures", {})):
            self.run.note(failures=noted)
        return [job for job in jobs if job.training not in diverged]

    def _train_finals(self, left: Sequence[Job]) -> None:
        self.run.phase("finals", "running")
        self._train("finals", left)

    def _train(self, title: str, left: Sequence[Job], beside: Sequence[Ending] = ()) -> None:
        """Train jobs, and what other sources ask for beside them, under one bar."""
        bars: list[Bar] = []
        finals = Finals(left, self, lambda served, result: self._failed(bars[0], served, result))
        with self.view.phase(title, finals.epochs + sum(source.epochs for source in beside)) as bar:
            bars.append(bar)
            self.crew.run([finals, *beside], partial(self._epoch, bar))

    def _failed(self, bar: Bar, served: Sequence[Job], result: Result) -> None:
        """Note a final that failed; the others go on. Who shares it pays nothing."""
        first = served[0]
        self.view.say(
            f"{first.arm} {first.schedule} seed {first.seed}{f' of {first.budget}' if first.budget else ''} failed and "
            f"is left out of the comparison: {result.error}"
        )
        noted = dict(self.run.record.get("failures", {}))
        for job in served:
            before = noted.get(failure_of(job), {"epochs": 0, "seconds": 0.0})  # an attempt that was paid for, too
            noted[failure_of(job)] = {
                "error": result.error,
                "diverged": result.diverged,
                "training": list(job.training),
                "budget": job.budget,
                "arm": job.arm,
                "schedule": job.schedule,
                "seed": job.seed,
                "candidate": job.candidate,
                "macs": self.cost(job).macs,
                "epochs": before["epochs"] + (result.epochs if job is first else 0),
                "seconds": before["seconds"] + (result.seconds if job is first else 0.0),
            }
        self.run.note(failures=noted)
        bar.skip(first.epochs - result.epochs)

    def _epoch(self, bar: Bar, training: Training, epoch: Epoch) -> None:
        self._curve(training.budget, training.name, epoch)
        bar.advance(f"{training.spoken}, epoch {epoch.number}: {100 * epoch.val_accuracy:.1f} % on validation")
        self._watch(training, epoch)

    def _watch(self, training: Training, epoch: Epoch) -> None:
        """Stop the run where the first training that is long enough to tell does not learn, and no other has learnt."""
        if self.run.record.get("learnt"):
            return
        if self.setting.data.chance.is_beaten(epoch.val_accuracy):
            self.run.note(learnt=True)
            return
        key = (training.budget, training.name)
        if self._watched is None:
            steps = self.config.trial_steps if training.epochs == self.config.trial_epochs else self.config.steps
            watch = Watch.of(self.config, self.setting.data, training.spoken, training.epochs, steps)
            self._watched = (key, watch) if watch.after is not None else None
        if self._watched is not None and self._watched[0] == key:
            self._watched[1].see(epoch)

    def _curve(self, budget: str, trial: str, epoch: Epoch) -> None:
        self.curves.add(
            Curve(budget, trial, epoch.number, epoch.train_loss, epoch.val_accuracy, round(epoch.seconds, 3))
        )
