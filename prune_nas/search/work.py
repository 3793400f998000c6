"""One training as a value, and the place where it is done: this process or a worker's, by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prune_nas.config import Config
from prune_nas.design.kernels import Mask
from prune_nas.design.records import KEPT
from prune_nas.design.space import Widths
from prune_nas.nets.form import set_mode
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import magnitude, penalties, sss
from prune_nas.pruning.penalties import AllDeadError, Pressure, Pull
from prune_nas.pruning.scaling import SCALINGS, Scaling
from prune_nas.search.setup import recipe_of
from prune_nas.search.weights import load_weights, save_weights
from prune_nas.training.batchnorm import quicken
from prune_nas.training.data import ImageSet
from prune_nas.training.loop import DivergedError, Epoch, OutOfMemoryError, Penalty, Setting, accuracy, train
from prune_nas.training.recipe import Recipe

_FRESH = 50_000  # a masked net's weights are not those that the network it was pruned from once started with
_FEW = 16  # images on which a network and what is made from its weights are compared
_AGREED = 1e-3  # of the largest output
_PATHS = ("checkpoint", "origin", "weights")


@dataclass(frozen=True, slots=True)
class Training:
    """One from-scratch training that a phase asks for.

    `name` is its name in `curves.csv`, `spoken` the one in the progress. `mask` says which weights it has, if not all.
    `origin` is a file of trained weights: where the schedule is of `KEPT` the training goes on from them, and a mask
    without a rule is read from them. `pressure` is a sparsity penalty to train under. `tests` has the test split read
    at its end; `weights` is where the trained network is kept, if anywhere.
    """

    budget: str
    name: str
    spoken: str
    widths: Widths
    seed: int
    epochs: int
    checkpoint: Path
    schedule: str = "scratch-e"
    origin: Path | None = None
    mask: Mask | None = None
    pressure: Pressure | None = None
    tests: bool = False
    weights: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for another process."""
        paths = {name: path and str(path) for name, path in asdict(self).items() if name in _PATHS}
        return {**asdict(self), "widths": dict(self.widths), "mask": self.mask and self.mask.to_dict(), **paths}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Training:
        """The inverse of `to_dict`."""
        paths = {name: data[name] and Path(data[name]) for name in _PATHS}
        mask = data["mask"] and Mask.from_dict(data["mask"])
        pressure = data["pressure"] and Pressure(**data["pressure"])
        return cls(**{**data, "widths": Widths(data["widths"]), "mask": mask, "pressure": pressure, **paths})


@dataclass(frozen=True, slots=True)
class Result:
    """What a training gave: accuracies in [0, 1] (None if it failed, or was not to be tested), epochs, seconds.

    A training that `diverged` would do so again; any other failure, as of full memory, may be over the next time.
    One that `died` has nothing left under its penalty; `strength` is the lambda that a penalty ended with.
    """

    val_accuracy: float | None
    epochs: int
    seconds: float
    test_accuracy: float | None = None
    error: str = ""
    worker: str = ""
    diverged: bool = False
    died: bool = False
    strength: float | None = None


class Performer(Protocol):
    """What does one training after another."""

    def perform(self, training: Training, on_epoch: Callable[[Epoch], None]) -> Result:
        """Train to the end, or from the last checkpoint to the end; divergence and full memory are results too."""

    def close(self) -> None:
        """Nothing more will be asked."""


class Workplace:
    """A process's own network, data, device and precision; the test split is read when needed."""

    def __init__(self, config: Config, traced: Traced, setting: Setting) -> None:
        """Bind what every training needs."""
        self.config, self.traced, self.setting = config, traced, setting

    @cached_property
    def test(self) -> ImageSet:
        """The test split, on the device."""
        return self.setting.data.open_test().to(self.setting.device)

    def perform(self, training: Training, on_epoch: Callable[[Epoch], None]) -> Result:
        """Train to the end, or from the last checkpoint to the end; divergence and full memory are results too."""
        done: list[Epoch] = []

        def note(epoch: Epoch) -> None:
            done.append(epoch)
            on_epoch(epoch)

        masks, under = self._masks(training), training.pressure.name if training.pressure else "none"
        recipe = recipe_of(self.config, training.epochs, training.schedule, penalty=under)
        penalty = magnitude.Frozen(masks) if masks else self._penalty(training, recipe)
        try:
            network, epochs = train(
                lambda: self._build(training, masks),
                self.setting,
                recipe,
                seed=training.seed,
                checkpoint=training.checkpoint,
                on_epoch=note,
                penalty=penalty,
            )
        except (DivergedError, OutOfMemoryError, AllDeadError) as error:
            training.checkpoint.unlink(missing_ok=True)
            spent, again = sum(epoch.seconds for epoch in done), isinstance(error, OutOfMemoryError)
            died = isinstance(error, AllDeadError)
            return Result(None, len(done) + 1, spent, error=str(error), diverged=not again, died=died)
        if scaling := _scaling(training):
            scaling.fold(self.traced.space, network)
        if training.weights is not None:
            save_weights(training.weights, network)
            if training.tests and (said := self._differs(training, network)):
                training.weights.unlink(missing_ok=True)
                spent = sum(epoch.seconds for epoch in epochs)
                return Result(None, len(epochs), spent, error=said, diverged=True)
        return Result(
            epochs[-1].val_accuracy,
            len(epochs),
            round(sum(epoch.seconds for epoch in epochs), 3),
            accuracy(network, self.test, self.setting) if training.tests else None,
            strength=penalty.strength if isinstance(penalty, Pull) else None,
        )

    def close(self) -> None:
        """Nothing is to be let go."""

    @torch.no_grad()
    def _differs(self, training: Training, network: nn.Module) -> str:
        """Why the network, made again from its saved weights, gives other outputs; empty where it gives the same."""
        again = self.traced.build(training.widths, seed=training.seed + 1)
        again.load_state_dict({name: value.clone() for name, value in network.state_dict().items()})
        x, _ = next(iter(self.setting.data.val.batches(_FEW, device=self.setting.device)))
        given = [set_mode(one.to(self.setting.device), training=False)(x).float() for one in (network, again)]
        gap, scale = float((given[0] - given[1]).abs().max()), max(float(given[0].abs().max()), 1e-6)
        if gap <= _AGREED * scale:
            return ""
        return (
            f"made again from its weights, the network gives other outputs (they differ by {gap:.2g}, the largest is "
            f"{scale:.2g}). It keeps numbers that its state_dict does not hold. Keep them with register_buffer, "
            "persistent"
        )

    def _penalty(self, training: Training, recipe: Recipe) -> Penalty | None:
        """The training's sparsity penalty, if it has one."""
        asked, space = training.pressure, self.traced.space
        if asked is None:
            return None
        if asked.name in SCALINGS:
            return sss.penalty(asked.strength, asked.share, recipe.momentum)
        images = len(self.setting.data.train)
        return penalties.make(asked, space, self.traced.build(space.widest, seed=0), recipe, images)

    def _masks(self, training: Training) -> magnitude.Masks:
        """Layer -> the training's mask; none where it has all weights."""
        if training.mask is None:
            return {}
        network = self.traced.build(self.traced.space.widest, seed=0)
        if training.mask.rule is None:
            network.load_state_dict(_kept(training))
        return magnitude.masks_of(training.mask, self.traced.space, network, seed=training.seed)

    def _build(self, training: Training, masks: magnitude.Masks) -> nn.Module:
        fresh = training.seed + (_FRESH if training.mask else 0)
        network = self.traced.build(training.widths, seed=fresh)
        if training.schedule in KEPT:
            network.load_state_dict(_kept(training))
        magnitude.impose(network, masks, rescale=training.schedule not in KEPT)
        if training.pressure is not None and training.pressure.name != "none":
            network = quicken(network)
        scaling = _scaling(training)
        return scaling.attach(self.traced.space, network) if scaling else network


def _scaling(training: Training) -> Scaling | None:
    """The scaling factors that a training has beside its network, if any."""
    return SCALINGS.get(training.pressure.name) if training.pressure else None


def _kept(training: Training) -> dict[str, Tensor]:
    assert training.origin is not None  # noqa: S101  (who asks for such a training names it; for the type checker)
    return load_weights(training.origin)
