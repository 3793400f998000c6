"""What a comparison will train, before it does: how many trainings, epochs and macs, and about how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from prune_nas.config import DEFAULT_CASES, Config
from prune_nas.design.cases import Case, lasting, rivals
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import KEPT, SCHEMA
from prune_nas.design.sizes import Size
from prune_nas.design.space import Cost, Space, Widths
from prune_nas.design.subject import count, width_words
from prune_nas.errors import MissingError, UsageError, unknown
from prune_nas.nets.form import set_mode
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import l1_norm
from prune_nas.pruning.methods import METHODS
from prune_nas.pruning.penalties import Pressure
from prune_nas.search.estimate import spoken
from prune_nas.search.origins import origin_of
from prune_nas.search.setup import lengths_of, load_data, trace_model
from prune_nas.search.speed import seconds_per_image
from prune_nas.training.data import outline

if TYPE_CHECKING:
    from prune_nas.search.compare import Compare
    from prune_nas.search.progress import View

GPU = 2e12
"""Multiply-accumulates a second, forward and backward, that a data-centre GPU is assumed to sustain on CIFAR nets.

A round figure from published training times of such nets, not a measurement of ours; `--gpu-macs` replaces it.
"""


_WHOLE = {"cifar10": 50_000, "cifar100": 50_000}  # training images, a tenth of which validates


def check(config: Config, traced: Traced) -> None:
    """See that every method fits the network and its ratio.

    Raises:
        UsageError: one does not.
    """
    space = traced.space
    if space.widest != space.base:
        raise UsageError("a comparison takes the network as it is. Leave --supernet-width and `widening` out")
    if set(config.schedules) & set(KEPT) and space.shuffles:
        raise UsageError(
            f"{space.model} shuffles its channels, so that no weights can be kept. Use --schedules scratch-e,scratch-b"
        )
    for text in config.cases:
        _check_case(Case.parse(text), traced)


def fitting(config: Config, traced: Traced, say: Callable[[str], None]) -> Config:
    """The configuration without the methods of the default that do not fit the network, which are said.

    What the user asked for stays as it is, and `check` refuses it.
    """
    if config.cases != DEFAULT_CASES:
        return config
    left = []
    for text in config.cases:
        try:
            _check_case(Case.parse(text), traced)
            left.append(text)
        except UsageError as error:
            say(f"left out: {error}")
    return config.model_copy(update={"cases": tuple(left)})


def _check_case(case: Case, traced: Traced) -> None:
    """See that a method fits the network.

    Raises:
        UsageError: there is no such method, or it does not.
    """
    space = traced.space
    if case.method not in METHODS:
        raise unknown("pruning method", case.method, METHODS)
    try:
        METHODS[case.method].check(space, traced.template, case.ratio)
        if METHODS[case.method].unit == "blocks":
            _run_without_blocks(traced)
    except UsageError as error:
        raise UsageError(f"{case.method} does not fit {space.model} at ratio {case.ratio}: {error}") from None


def _run_without_blocks(traced: Traced) -> None:
    """See that the network runs without any of its residual branches, before hours of training.

    Raises:
        UsageError: it does not.
    """
    space = traced.space
    gone = {slot for branch in space.branches for slot in branch.slots}
    network = traced.build({name: 0 if name in gone else width for name, width in space.base.items()}, seed=0)
    set_mode(network, training=False)
    try:
        with torch.no_grad():
            network(torch.zeros(2, *space.input_shape))
    except Exception as error:
        raise UsageError(f"without its residual branches it does not run ({error}). Use sss") from error


@dataclass(frozen=True, slots=True)
class Planned:
    """Equal trainings of a plan; until a network is pruned its shape is unknown, and taken as uniform.

    `macs` leave masked weights out, as the ledger does; `dense` are those that a device computes all the same.
    """

    case: str
    arm: str
    schedule: str
    trainings: int
    epochs: int
    macs: int
    dense: int
    widths: Widths

    def train_macs(self, images: int) -> int:
        """Of all its trainings on so many images."""
        return self.trainings * train_macs(self.macs, images, self.epochs)


def plan(config: Config, space: Space) -> list[Planned]:
    """Everything that a comparison trains, in order; a training that two cases share is counted once for each."""
    base = space.cost(space.base)
    whole = Planned("", "base", "scratch-e", config.seeds, config.epochs, base.macs, base.macs, space.base)
    cases = [Case.parse(text) for text in config.cases]
    origins = sorted({origin_of(case, 0, lambda penalty, ratio: Pressure(penalty, 0.0)).name for case in cases})
    plain = [whole] if "base" in config.arms or "none" in origins else []
    sparse = [replace(whole, arm=f"to prune ({origin})") for origin in origins if origin != "none"]
    return [*plain, *sparse, *(one for case in cases for one in _of_case(config, space, case, base))]


def _of_case(config: Config, space: Space, case: Case, base: Cost) -> Iterator[Planned]:
    if METHODS[case.method].choose is None:
        macs = round(base.macs * (1 - float(case.ratio)))
        shapes = {arm: [(space.widest, Cost(macs, 0))] for arm in ("pruned", "uniform")}
    else:
        counts = l1_norm.counts(space, case.ratio)
        pruned = Widths({slot.name: slot.within(counts[slot.name]) for slot in space.slots})
        known = {"pruned": [pruned], **rivals(space, pruned, wanted=config.arms, randoms=config.randoms, seed=0)}
        shapes = {arm: [(widths, space.cost(widths)) for widths in found] for arm, found in known.items()}
    for arm, found in shapes.items():
        if arm.partition("@")[0] not in config.arms:
            continue
        for widths, cost in found:
            for schedule in config.schedules:
                if arm != "pruned" and schedule in KEPT:
                    continue
                epochs = lasting(
                    schedule,
                    cost,
                    base,
                    epochs=config.epochs,
                    tuning=config.tuning_epochs,
                    cap=config.scratch_b_cap,
                    add=config.scratch_b_tuning,
                )
                yield Planned(
                    str(case), arm, schedule, config.seeds, epochs, cost.macs, space.cost(widths).macs, widths
                )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a comparison trains, on so many images; a GPU is taken to do `gpu` macs a second."""

    steps: Sequence[Planned]
    images: int
    gpu: float
    notes: tuple[str, ...] = ()
    """What it is about, and what must be said of it, in sentences."""

    @property
    def train_macs(self) -> int:
        """Of all trainings."""
        return sum(one.train_macs(self.images) for one in self.steps)

    @property
    def gpu_hours(self) -> float:
        """Hours on one such GPU, which multiplies by a masked weight's zero too."""
        computed = sum(one.trainings * train_macs(one.dense, self.images, one.epochs) for one in self.steps)
        return computed / self.gpu / 3600

    def lines(self) -> list[str]:
        """The plan in words."""
        trainings = sum(one.trainings for one in self.steps)
        return [
            *self.notes,
            *(
                f"{one.trainings} x {one.arm} {one.schedule}{f' of {one.case}' if one.case else ''}: {one.epochs} "
                f"epochs, {one.macs / 1e6:.1f}M macs"
                for one in self.steps
            ),
            f"{trainings} trainings on {self.images:,} images, {self.train_macs / 1e12:.3g}T training macs. Widths "
            "not known yet count as uniform scaling",
            f"about {self.gpu_hours:.2g} GPU hours, if a GPU does {self.gpu / 1e12:g}T macs per second (assumed, "
            "set it with --gpu-macs)",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        steps = [{**asdict(one), "widths": dict(one.widths)} for one in self.steps]
        facts = {"images": self.images, "train_macs": self.train_macs, "gpu_hours": self.gpu_hours, "gpu": self.gpu}
        return {"schema": SCHEMA, **facts, "steps": steps}


def dry_run(config: Config, gpu: float) -> Plan:
    """What a comparison would train; nothing is trained, and CIFAR need not be there.

    Raises:
        UsageError: a method does not fit the network or its ratio.
        MissingError: the data set is not there, and its size is not known either.
    """
    notes: list[str] = []
    traced = trace_model(config, (3, *config.size), outline(config.dataset, data_dir=config.data_dir).classes)
    config = fitting(config, traced, notes.append)
    check(config, traced)
    images = _images(config)
    config = config.model_copy(update=lengths_of(config, images))
    cost, size = traced.space.cost(traced.space.base), Size(*traced.space.input_shape[1:])
    network = f"{config.model}, {width_words(config.base_width)}, {size}, {count(cost.macs)} macs"
    return Plan(plan(config, traced.space), images, gpu, (f"{network}; {config.dataset}", *notes))


def _images(config: Config) -> int:
    """Training images: those of the set on this machine; of CIFAR, where it is not here, those that it will have."""
    try:
        return len(load_data(config, download=False).train)
    except MissingError:
        whole = _WHOLE.get(config.dataset)
        if whole is None:
            raise
    left = whole - (config.val_size or (config.train_size or whole // 10 * 4) // 4)
    return min(config.train_size or left, left)


def announce(job: Compare, view: View) -> None:
    """Say what the run will do, and about how long it will take, from a few real training steps."""
    config, space, images = job.config, job.space, len(job.setting.data.train)
    view.say(f"preset {config.preset}: {', '.join(config.cases)}. Run directory {job.run.path}")
    planned = plan(config, space)
    workers, threads = job.size
    fixed, each = _speed(job, min((one.widths for one in planned), key=lambda w: space.cost(w).macs), threads)
    epochs = [(one.dense, one.epochs * one.trainings) for one in planned]
    seconds = sum((fixed + each * macs) * many for macs, many in epochs) * images / workers
    seconds *= 1 + len(job.setting.data.val) / (3 * images)
    view.say(
        f"estimate: about {spoken(seconds)} for {sum(one.trainings for one in planned)} trainings if nothing is done "
        "yet. Stop at any time, the same command resumes"
    )


def _speed(job: Compare, narrow: Widths, threads: int) -> tuple[float, float]:
    """Seconds per training image: a part that every network takes, and one a mac, from the widest and a narrow one."""
    space = job.space
    wide, little = space.cost(space.base).macs, space.cost(narrow).macs
    slow = seconds_per_image(job, space.base, threads)
    if wide == little:
        return 0.0, slow / wide
    each = max(slow - seconds_per_image(job, narrow, threads), 0.0) / (wide - little)
    return max(slow - each * wide, 0.0), each
