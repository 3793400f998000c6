"""What a run still has to train and how long that takes, asked of this machine before the work begins."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from prune_nas.config import FROM_SUPERNET, PRESETS, Config
from prune_nas.design.arms import Job, Key, jobs, training_of, widths_of_arms
from prune_nas.design.ledger import train_macs
from prune_nas.design.projection import uniform_widths
from prune_nas.design.records import SCHEMA, Final, read_table
from prune_nas.design.sizes import Size
from prune_nas.design.space import Widths
from prune_nas.design.subject import Subject, count
from prune_nas.design.words import capital
from prune_nas.design.words import spoken as spoken_arm
from prune_nas.search.finals import owed
from prune_nas.search.speed import seconds_per_image
from prune_nas.training.loop import is_out_of_memory

if TYPE_CHECKING:
    from prune_nas.search.pipeline import Search
    from prune_nas.search.progress import View
    from prune_nas.search.spending import Spending

_MUCH = 1.2  # times the macs of uniform scaling
_ADVICE = (
    "advice: with all costs counted, no search that we measured was better than the taper (`prune-nas guide search`). "
    "Try the taper first"
)
_SAME = (
    "base_width",
    "image_size",
    "train_size",
    "space",
    "epochs",
    "seeds",
    "data_dir",
)  # what `transfer` has flags for


@dataclass(frozen=True, slots=True)
class Step:
    """Equal trainings that a run still has to do; `seconds` are those of all of them, with the workers there are.

    `arm` is `supernet`, `trial`, `finalist`, or one of the finals'. Widths that are not found yet are taken as those of
    uniform scaling, and a training in progress counts whole. `seeds` is the number of trainings per network.
    """

    phase: str
    budget: str
    arm: str
    schedule: str
    trainings: int
    epochs: int
    macs: int
    seconds: float
    seeds: int = 1

    def train_macs(self, images: int) -> int:
        """Training macs of all its trainings on so many images."""
        return self.trainings * train_macs(self.macs, images, self.epochs)

    def sentence(self, steps: int) -> str:
        """The step in words, where an epoch has so many optimiser steps."""
        where = f"{self.phase} {self.budget}".strip()
        arm = "" if self.arm == self.phase else f"{self.arm}, "
        shapes = self.trainings // self.seeds if self.trainings % self.seeds == 0 else self.trainings
        count_ = f"{shapes} networks" if shapes > 1 else "1 network"
        each = f" x {self.seeds} seeds" if self.seeds > 1 and self.trainings % self.seeds == 0 else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        length = f"{epochs} ({self.epochs * steps:,} steps)"
        return (
            f"{where}: {arm}{count_}{each}, {self.schedule}, {length}, {count(self.macs)} macs: about "
            f"{spoken(self.seconds)}"
        )


@dataclass(frozen=True, slots=True)
class Steps:
    """Everything that a run still has to train, on so many images."""

    steps: tuple[Step, ...]
    images: int
    base_train_macs: int
    """Training macs of one training of the unpruned network."""
    batch: int
    """Images per optimiser step."""
    subject: str
    """The network and the images, in words."""
    shared: tuple[str, ...] = ()
    """Which arms share their trainings, in sentences."""
    most: float = 0.0
    """Macs that a network of unknown widths can have, per macs of uniform scaling; 0 where all widths are known."""

    @property
    def seconds(self) -> float:
        """Seconds that all remaining steps take on this machine."""
        return sum(step.seconds for step in self.steps)

    @property
    def train_macs(self) -> int:
        """Training macs of all remaining steps."""
        return sum(step.train_macs(self.images) for step in self.steps)

    def lines(self) -> list[str]:
        """The steps in words."""
        if not self.steps:
            return [self.subject, "Nothing is left to train."]
        steps = max(self.images // self.batch, 1)
        return [
            self.subject,
            *(step.sentence(steps) for step in self.steps),
            *self.shared,
            f"Together at most {sum(step.trainings for step in self.steps)} trainings on {self.images:,} images. They "
            f"cost as much as {self.train_macs / self.base_train_macs:.1f} trainings of the unpruned network: about "
            f"{spoken(self.seconds)} here. An interrupted training is counted in full.",
            *([self._guess] if self.most else []),
        ]

    @property
    def _guess(self) -> str:
        said = "Widths that are not known yet count as those of uniform scaling."
        if self.most < _MUCH:
            return f"{said} The budget bounds macs, so that they cost about as much."
        return f"{said} The budget does not bound macs, so that they may cost up to {self.most:.3g} times as much."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        steps = [{**asdict(step), "train_macs": step.train_macs(self.images)} for step in self.steps]
        facts = {"images": self.images, "train_macs": self.train_macs, "base_train_macs": self.base_train_macs}
        return {"schema": SCHEMA, "subject": self.subject, **facts, "seconds": self.seconds, "steps": steps}


def announce(job: Search, view: View) -> None:
    """Say what the run will do, and about how long it will take, from a few real training steps."""
    config = job.config
    view.say(f"preset {config.preset}: {len(job.space.slots)} widths to choose. Run directory {job.run.path}")
    remark(job, view)
    try:
        left = steps_left(job)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        view.say(f"estimate: none, since the widest network does not fit into memory at batch {job.batch}")
        return
    if not left.steps:
        view.say("everything is trained already")
        return
    advise(job, left, view)
    workers, _ = job.size
    beside = f" with {workers} trainings at the same time" if workers > 1 else ""
    view.say(
        f"estimate: about {spoken(left.seconds)} of training{beside}. Latencies and figures come on top. Stop at any "
        "time: the same command continues"
    )


def advise(job: Search, left: Steps, view: View) -> None:
    """Before a search without a prior: name the command that trains a taper instead."""
    searching = any(step.phase != "finals" for step in left.steps)
    if searching and not job.priors and not {"taper", "scratch-b"} <= {*job.config.arms, *job.config.schedules}:
        view.say(f"{_ADVICE}: {_taper_command(job.config)}")


def _taper_command(config: Config) -> str:
    """The command that trains a taper of the same network on the same data."""
    plain = {**Config(model="", dataset="").model_dump(), **PRESETS.get(config.preset, {})}
    if ":" not in config.model:  # a built-in network has a size of its own
        plain["image_size"] = str(Size.parse(32))
    same = [(name, value) for name in _SAME if (value := getattr(config, name)) not in (None, plain.get(name))]
    flags = [("preset", config.preset), *((name.replace("_", "-"), value) for name, value in same)]
    budgets = " ".join(f"-b {budget}" for budget in config.budget)
    return (
        f"prune-nas transfer taper -m {config.model} -d {config.dataset} {budgets} --evaluate "
        f"{' '.join(f'--{name} {value}' for name, value in flags)} --schedules scratch-b "
        "--arms transferred,uniform,base"
    )


def remark(job: Search, view: View) -> None:
    """Say what a reader may not expect of a run."""
    for said in dict.fromkeys(said for prior in job.priors.values() for said in prior.remarks):
        view.say(f"prior: {said}")
    for budget, limits in job.limits.items():
        if limits.admits(job.space.cost(job.space.base)):
            view.say(f"the unpruned network meets {budget} already, so nothing becomes smaller")
    _remark_arms(job, view)
    if job.batch >= len(job.setting.data.train):
        view.say(
            f"a batch of {job.batch} takes all {len(job.setting.data.train)} training images: an epoch is one step. "
            "A smaller --batch learns faster"
        )
    for asked in job.config.budgets:
        if any(job.studies_left(asked)):
            _remark_cost(job.config, str(asked), job.spending[str(asked)], view)


def _remark_arms(job: Search, view: View) -> None:
    """Say what follows from the arms that were asked for."""
    arms = job.config.arms
    if job.priors and job.scored:
        wished = ", ".join(arm for arm in FROM_SUPERNET if arm in arms)
        view.say(f"a supernet is trained, since these arms need it: {wished}")
    if not job.scored:
        view.say("no supernet is trained: the widths come from the prior. So no arm is pruned, guided or inherited")
    if "base" not in arms:
        view.say("the unpruned network is not trained, since --arms does not name base: nothing is compared with it")
    if "inherited" in arms and job.space.shuffles:
        view.say("the inherited arm is left out: this network shuffles its channels, so they cannot be followed")


def _remark_cost(config: Config, budget: str, spending: Spending, view: View) -> None:
    """Say what the search cost does not pay for."""
    trials, finalists = spending.expected()
    every = (config.finalists + 1) * config.finalist_seeds if config.finalists else 0
    if trials >= config.trials and finalists >= every:
        return
    paid = f"about {trials} trials (of at most {config.trials})"
    if finalists:
        rest = f" and {finalists} trainings of finalists (of at most {every})."
    else:
        enough = spending.for_finalists
        raised = f" For finalists use --search-cost {enough:g} or more." if enough else ""
        rest = f" and no finalists: the choice rests on trainings of {config.trial_epochs} epochs.{raised}"
    view.say(
        f"study {budget}: the search may cost {config.search_cost:g} trainings of the unpruned network. That pays for "
        f"{paid}{rest}"
    )


def steps_left(job: Search) -> Steps:
    """What a search still has to train, timed on a few real steps.

    Raises:
        RuntimeError: a network does not fit into memory.
    """
    images, base = len(job.setting.data.train), job.space.cost(job.space.base).macs
    about = str(Subject.from_dict(job.run.record["subject"]))
    even = {budget: uniform_widths(job.space, limits) for budget, limits in job.limits.items()}
    lacking = {str(budget): job.studies_left(budget) for budget in job.config.budgets}
    known = job.scores_are_there and not any(map(any, lacking.values()))
    finals, shared = _distinct(_owed(job)) if known else _expected(job, even)
    steps = tuple(_steps(job, even, lacking, finals))
    most = 0.0 if known else max(job.spending[budget].most / job.space.cost(even[budget]).macs for budget in even)
    return Steps(steps, images, train_macs(base, images, job.config.epochs), job.batch, about, shared, most)


def _steps(
    job: Search, even: Mapping[str, Widths], lacking: Mapping[str, tuple[int, int]], finals: Sequence[Job]
) -> Iterator[Step]:
    """The supernet alone with every thread, then everything else on as many workers as there are.

    Args:
        job: the run.
        even: budget -> uniform scaling, whose speed stands for that of all networks under the budget.
        lacking: budget -> trials and trainings of finalists that are left.
        finals: the final trainings that are left.
    """
    config, space = job.config, job.space
    workers, threads = job.size
    images = len(job.setting.data.train) + len(job.setting.data.val) / 3  # a step is three forward passes
    speed: dict[Widths, float] = {}
    resumed = job.run.file("curves.csv").exists()  # the machine may do something else since

    def seconds(trainings: int, epochs: int, like: Widths) -> float:
        """`like` is a network whose speed stands for theirs."""
        if like not in speed:
            speed[like] = seconds_per_image(job, like, threads, anew=resumed)
        return trainings * epochs * images * speed[like] / workers

    if not job.scores_are_there:
        alone = (
            config.supernet_epochs
            * images
            * seconds_per_image(job, space.widest, torch.get_num_threads(), anew=resumed)
        )
        macs = space.cost(space.widest).macs
        yield Step("supernet", "", "supernet", config.penalty, 1, config.supernet_epochs, macs, alone)
    for budget, (trials, finalists) in lacking.items():
        macs = space.cost(even[budget]).macs
        if trials:
            lasting = min(seconds(trials, config.trial_epochs, even[budget]), config.timeout or math.inf)
            yield Step("study", budget, "trial", "scratch-e", trials, config.trial_epochs, macs, lasting)
        if finalists:
            lasting = seconds(finalists, config.epochs, even[budget])
            seeds = config.finalist_seeds if finalists % config.finalist_seeds == 0 else 1
            yield Step("study", budget, "finalist", "scratch-e", finalists, config.epochs, macs, lasting, seeds)
    for (budget, arm, schedule), group in groupby(sorted(finals, key=_kind), key=_kind):
        own = list(group)
        macs, epochs = round(fmean(space.cost(one.widths).macs for one in own)), round(fmean(o.epochs for o in own))
        lasting = seconds(len(own), epochs, even.get(budget, space.base))
        seeds = len({one.seed for one in own})
        yield Step("finals", budget, arm, schedule, len(own), epochs, macs, lasting, seeds)


def _kind(job: Job) -> tuple[str, str, str]:
    return job.budget, job.arm, job.schedule


def _owed(job: Search) -> list[Job]:
    """The finals' trainings that are left, each under the arm that it is trained for."""
    table = job.run.file("finals.csv")
    done = {training_of(row) for row in read_table(table, Final)}
    return [one for one in job.hopeful(owed(job.jobs(), table)) if one.training not in done]


def _distinct(finals: Sequence[Job], unknown: Collection[str] = ()) -> tuple[list[Job], tuple[str, ...]]:
    """Each training once, and which arms share theirs, in sentences; arms whose widths are unknown share none."""
    first: dict[Key, Job] = {}
    left, shared = [], []
    for one in finals:
        if one.arm in unknown:
            left.append(one)
        elif one.training not in first:
            first[one.training] = one
            left.append(one)
        else:
            other = first[one.training]
            place = f" under {one.budget}" if one.budget else ""
            names = (
                "a random network" if arm == "random" else spoken_arm(arm)
                for arm in dict.fromkeys((one.arm, other.arm))
            )
            shared.append(f"{' is the same network as '.join(names)}{place}")
    return left, tuple(f"{capital(text)}. They share the trainings." for text in dict.fromkeys(shared))


def _expected(job: Search, even: Mapping[str, Widths]) -> tuple[list[Job], tuple[str, ...]]:
    """The finals' trainings before all widths are known, and which arms share theirs; what has a row is left out.

    Widths that follow from the budget alone, or from a prior, are known. The others are taken as uniform.
    """
    config = job.config
    absent = {"base", *([] if job.priors else ["transferred"]), *([] if job.studied else ["found"])}
    absent |= set() if job.scored else set(FROM_SUPERNET)
    absent |= {"inherited"} if job.space.shuffles else set()
    arms: dict[str, dict[str, list[Widths]]] = {}
    for budget in config.budgets:
        given = {"transferred": job.transferred(budget)}
        known = widths_of_arms(
            job.space, job.limits[str(budget)], given, randoms=config.randoms, seed=config.seed, wanted=config.arms
        )
        guessed = [even[str(budget)]]
        arms[str(budget)] = {arm: known.get(arm, guessed) for arm in config.arms if arm not in absent}
    everything = jobs(
        job.space, arms, wanted=config.arms, schedules=config.schedules, seeds=job.seeds(), epochs=config.epochs
    )
    rows = read_table(job.run.file("finals.csv"), Final)
    settled = {(row.budget, row.arm, row.schedule, row.seed) for row in rows if row.arm != "found"}
    left = [one for one in everything if (one.budget, one.arm, one.schedule, one.seed) not in settled]
    return _distinct(left, unknown=("found", *FROM_SUPERNET))


def spoken(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
