"""One training as a value, and the place where it is done: this process or a worker's, by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from prune_nas.config import Config
from prune_nas.design.kernels import Mask
from prune_nas.design.selection import best_channels
from prune_nas.design.space import Widths
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import magnitude
from prune_nas.pruning.importance import channel_scores
from prune_nas.search.setup import recipe_of
from prune_nas.search.supernet import load_weights, save_weights
from prune_nas.training.data import ImageSet
from prune_nas.training.loop import DivergedError, Epoch, OutOfMemoryError, Setting, accuracy, train


@dataclass(frozen=True, slots=True)
class Training:
    """One from-scratch training that a phase asks for.

    `name` is its name in `curves.csv`, `spoken` the one in the progress. `inherits` starts it from the supernet's kept
    channels or weights; `mask` says which weights it has, if not all; `tests` has the test split read at its end;
    `weights` is where the trained network is kept, if anywhere.
    """

    budget: str
    name: str
    spoken: str
    widths: Widths
    seed: int
    epochs: int
    checkpoint: Path
    inherits: bool = False
    mask: Mask | None = None
    tests: bool = False
    weights: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for another process."""
        paths = {"checkpoint": str(self.checkpoint), "weights": self.weights and str(self.weights)}
        return {**asdict(self), "widths": dict(self.widths), "mask": self.mask and self.mask.to_dict(), **paths}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Training:
        """The inverse of `to_dict`."""
        made = {
            "widths": Widths(data["widths"]),
            "mask": data["mask"] and Mask.from_dict(data["mask"]),
            "checkpoint": Path(data["checkpoint"]),
            "weights": data["weights"] and Path(data["weights"]),
        }
        return cls(**{**data, **made})


@dataclass(frozen=True, slots=True)
class Result:
    """What a training gave: accuracies in [0, 1] (None if it failed, or was not to be tested), epochs, seconds."""

    val_accuracy: float | None
    epochs: int
    seconds: float
    test_accuracy: float | None = None
    error: str = ""
    worker: str = ""


class Workplace:
    """A process's own network, data, device and precision; the test split and the supernet are read when needed."""

    def __init__(self, config: Config, traced: Traced, setting: Setting, supernet: Path) -> None:
        """Bind what every training needs; `supernet` is the file of the trained supernet's weights."""
        self.config, self.traced, self.setting = config, traced, setting
        self._supernet_file = supernet

    @cached_property
    def test(self) -> ImageSet:
        """The test split, on the device."""
        return self.setting.data.open_test().to(self.setting.device)

    @cached_property
    def supernet(self) -> nn.Module:
        """The trained supernet."""
        network = self.traced.build(self.traced.space.widest, seed=self.config.seed)
        network.load_state_dict(load_weights(self._supernet_file))
        return network

    def perform(self, training: Training, on_epoch: Callable[[Epoch], None]) -> Result:
        """Train to the end, or from the last checkpoint to the end; divergence and full memory are results too."""
        done: list[Epoch] = []

        def note(epoch: Epoch) -> None:
            done.append(epoch)
            on_epoch(epoch)

        masks = self._masks(training)
        try:
            network, epochs = train(
                lambda: self._build(training, masks),
                self.setting,
                recipe_of(self.config, training.epochs),
                seed=training.seed,
                checkpoint=training.checkpoint,
                on_epoch=note,
                penalty=magnitude.Frozen(masks) if masks else None,
            )
        except (DivergedError, OutOfMemoryError) as error:
            return Result(None, len(done) + 1, sum(epoch.seconds for epoch in done), error=str(error))
        if training.weights is not None:
            save_weights(training.weights, network)
        return Result(
            epochs[-1].val_accuracy,
            len(epochs),
            round(sum(epoch.seconds for epoch in epochs), 3),
            accuracy(network, self.test, self.setting) if training.tests else None,
        )

    def _masks(self, training: Training) -> magnitude.Masks:
        """Layer -> the training's mask; none where it has all weights."""
        if training.mask is None:
            return {}
        drawn = training.mask.rule is not None
        network = self.traced.build(self.traced.space.widest, seed=0) if drawn else self.supernet
        return magnitude.masks_of(training.mask, self.traced.space, network, seed=training.seed)

    def _build(self, training: Training, masks: magnitude.Masks) -> nn.Module:
        network = self.traced.build(training.widths, seed=training.seed)
        if training.inherits and masks:
            network.load_state_dict(self.supernet.state_dict())
        elif training.inherits:
            kept = best_channels(channel_scores(self.traced.space, self.supernet), training.widths)
            inherit(self.traced.space, self.supernet, network, kept)
        magnitude.impose(network, masks, rescale=not training.inherits)
        return network
