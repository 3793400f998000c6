"""The one training loop. It knows nothing of pruning, budgets or studies: a penalty is a function of the network.

Nothing is read back from the device inside an epoch, so a GPU's queue never drains. The random order and the
augmentation of an epoch follow from (seed, epoch) alone: a training that was cut off continues from its last
checkpoint exactly as it would have gone on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from prune_nas.design.files import write_bytes
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.tensors import on_host, seeded
from prune_nas.training.batchnorm import momentum_for, quicken
from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.data import Data, ImageSet
from prune_nas.training.optimiser import optimisers_of, restore, set_rate, state_of
from prune_nas.training.precision import FORMATS, Precision, synchronise
from prune_nas.training.recipe import Recipe
from prune_nas.training.team import ALONE, Team, team, together, total

_EVALUATION_BATCH = 500
_SEED_STRIDE = 1_000_003  # a prime above any number of epochs, so that (seed, epoch) pairs never share a stream

Penalty = Callable[[nn.Module, float], None]


@runtime_checkable
class Stateful(Protocol):
    """A penalty that changes while it works."""

    def state(self) -> Mapping[str, float]:
        """What a checkpoint must hold of it."""

    def restore(self, state: Mapping[str, float], /) -> None:
        """Go on from a state."""


class DivergedError(PruneNasError):
    """The training loss became infinite or NaN."""


class OutOfMemoryError(PruneNasError):
    """A training did not fit into the device's memory, at half its batch neither."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave: number from 1, mean training loss, accuracy on validation in [0, 1], seconds of training."""

    number: int
    train_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how networks are trained in a run: its data, device and precision."""

    data: Data
    device: torch.device
    precision: Precision
    channels_last: bool = True
    """The memory format; contiguous where a process has died in channels_last."""

    def laid_out(self, x: Tensor) -> Tensor:
        """Images in the memory format of the trainings."""
        return x if self.channels_last else x.contiguous()


def fit(
    network: nn.Module,
    setting: Setting,
    recipe: Recipe,
    *,
    seed: int,
    penalty: Penalty | None = None,
    checkpoint: Path | None = None,
) -> Iterator[Epoch]:
    """Train `network` in place, yielding after every epoch.

    Args:
        network: moved to the setting's device and memory format; BatchNorm's momentum is raised in a short training.
        setting: data, device and precision.
        recipe: schedule and optimiser.
        seed: decides batches and augmentation (not the initial weights: those are the builder's).
        penalty: called between backward and step with the network and the learning rate; adds its subgradient to
            `.grad`, or updates parameters of its own, whose `.grad` it then takes away.
        checkpoint: file written after every epoch and continued from if it belongs to this training; epochs already
            done are yielded again from it. The caller deletes it when the result is safe.

    Raises:
        DivergedError: the loss became infinite or NaN.
    """
    device = setting.device
    quicken(network, momentum_for(recipe.steps(len(setting.data.train))))
    updates = updates_of(place(network, device, channels_last=setting.channels_last), setting, recipe)
    done: list[Epoch] = []
    if checkpoint is not None:
        done = _restore(checkpoint, network, updates, penalty, _identity(recipe, seed))
    yield from done
    if min(recipe.batch, len(setting.data.train), len(setting.data.val)) < team().size:
        raise UsageError(f"{team().size} processes need at least {team().size} images per batch and for validation")
    penalise = None if penalty is None else partial(penalty, network)
    with quick_convolutions(network, device, FORMATS[setting.precision.name]), together(network) as runs:
        for number in range(len(done) + 1, recipe.epochs + 1):
            start = time.perf_counter()
            loss = _epoch(runs, setting, recipe, updates, seed, number, penalise)
            synchronise(device)
            seconds = time.perf_counter() - start
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged in epoch {number}: the loss is {loss}. Lower --lr or use --precision fp32"
                )
            done.append(Epoch(number, loss, accuracy(network, setting.data.val, setting), seconds))
            if checkpoint is not None and team().rank == 0:
                _save(checkpoint, network, updates, penalty, done, _identity(recipe, seed))
            yield done[-1]


def train(
    build: Callable[[], nn.Module],
    setting: Setting,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    penalty: Penalty | None = None,
) -> tuple[nn.Module, list[Epoch]]:
    """Build a network and train it to the end; where memory runs out, once more at half the batch.

    Raises:
        DivergedError: the loss became infinite or NaN.
        OutOfMemoryError: half the batch does not fit either.
    """
    begun = _state_of(penalty)
    for attempt in (recipe, recipe.halved()):
        network = build()
        _put_back(penalty, begun)
        epochs = []
        try:
            for epoch in fit(network, setting, attempt, seed=seed, checkpoint=checkpoint, penalty=penalty):
                epochs.append(epoch)
                on_epoch(epoch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if team().size > 1:  # one of a team cannot begin again by itself; its end is the others'
                raise PruneNasError(f"out of memory at batch {recipe.batch}. Use a smaller --batch") from error
            continue
        return network, epochs
    raise OutOfMemoryError(
        f"training ran out of memory on {setting.device} at batch {recipe.batch} and at {recipe.halved().batch}. "
        "Use a smaller --batch or network"
    )


@torch.inference_mode()
def accuracy(network: nn.Module, images: ImageSet, setting: Setting) -> float:
    """The share of `images` that the network classifies right, in [0, 1]; leaves the network in training mode."""
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=setting.device)
    with quick_convolutions(network, setting.device, FORMATS[setting.precision.name]):
        for x, y in images.batches(_EVALUATION_BATCH, device=setting.device, share=team()):
            with setting.precision.autocast(setting.device):
                right += (network(setting.laid_out(x)).argmax(1) == y).sum()
    network.train()
    return total(right).item() / len(images)


def steps(
    runs: nn.Module,
    setting: Setting,
    recipe: Recipe,
    updates: Updates,
    *,
    stream: int,
    rate: Callable[[int], float],
    penalise: Callable[[float], None] | None = None,
    share: Team = ALONE,
) -> Generator[Tensor, None, None]:
    """One pass over the training images, step by step.

    Args:
        runs: the network as it trains, on the setting's device.
        setting: data, device and precision.
        recipe: of which batch, label smoothing and padding are taken.
        updates: of the network.
        stream: seed of batches, augmentation and dropout.
        rate: number of steps done in this pass -> learning rate.
        penalise: called with the learning rate between backward and step.
        share: of every batch, where several processes train together.

    Yields:
        The loss of each step, a scalar on the device.
    """
    runs.train()
    data, device = setting.data, setting.device
    batches = data.train.batches(
        recipe.batch,
        device=device,
        generator=torch.Generator().manual_seed(stream),
        augmentation=replace(data.augmentation, reflect=data.augmentation.reflect and recipe.reflect),
        drop_last=True,
        share=share,
    )
    whole = min(recipe.batch, len(data.train)) / share.size
    # For what draws from the global generators, such as dropout, or a branch that is left out by Python's random.
    with seeded(stream + share.rank, [device] if device.type == "cuda" else ()):
        for count, (x, y) in enumerate(batches):
            lr = rate(count)
            set_rate(updates.optimisers, lr)
            for optimiser in updates.optimisers:
                optimiser.zero_grad(set_to_none=True)
            with setting.precision.autocast(device):
                loss = F.cross_entropy(runs(setting.laid_out(x)), y, label_smoothing=recipe.label_smoothing) * (
                    len(y) / whole
                )
            updates.scaler.scale(loss).backward()
            if penalise is not None:
                for optimiser in updates.optimisers:
                    updates.scaler.unscale_(optimiser)
                penalise(lr)
            for optimiser in updates.optimisers:
                updates.scaler.step(optimiser)
            updates.scaler.update()
            yield loss.detach()


def stream_of(seed: int, number: int) -> int:
    """The seed of one pass's random numbers; passes, counted from 1, and seeds never share one."""
    return seed * _SEED_STRIDE + number


class Updates(NamedTuple):
    """What changes a network's weights: its optimisers, and the scaler of its loss, which fp16 alone uses."""

    optimisers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler


def updates_of(network: nn.Module, setting: Setting, recipe: Recipe) -> Updates:
    """The optimisers and the scaler of a network that lies on its device."""
    device, half = setting.device, setting.precision.name == "fp16"
    optimisers = optimisers_of(network, recipe, fused=device.type in ("cuda", "cpu", "mps") and not half)
    return Updates(optimisers, torch.amp.GradScaler(device.type, enabled=half))


def _epoch(
    runs: nn.Module,
    setting: Setting,
    recipe: Recipe,
    updates: Updates,
    seed: int,
    number: int,
    penalise: Callable[[float], None] | None,
) -> float:
    each = max(len(setting.data.train) // recipe.batch, 1)
    losses, count = torch.zeros((), device=setting.device), 0
    for loss in steps(
        runs,
        setting,
        recipe,
        updates,
        stream=stream_of(seed, number),
        rate=lambda done: recipe.lr_at(((number - 1) * each + done) / (recipe.epochs * each)),
        penalise=penalise,
        share=team(),
    ):
        losses += loss
        count += 1
    return total(losses).item() / (count * team().size)


def place(network: nn.Module, device: torch.device, *, channels_last: bool = True) -> nn.Module:
    """The network on the device, its weights in channels_last, as all training wants it, or as they were made."""
    if not channels_last:
        return network.to(device)
    placed: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device's memory is full; on a CPU it is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _identity(recipe: Recipe, seed: int) -> dict[str, object]:
    return {"recipe": asdict(recipe), "seed": seed}


def _state_of(penalty: object) -> dict[str, float]:
    return dict(penalty.state()) if isinstance(penalty, Stateful) else {}


def _put_back(penalty: object, state: Mapping[str, float]) -> None:
    if isinstance(penalty, Stateful):
        penalty.restore(state)


def _save(
    path: Path,
    network: nn.Module,
    updates: Updates,
    penalty: Penalty | None,
    done: list[Epoch],
    identity: dict[str, object],
) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()} | state_of(updates.optimisers)
    epochs = [asdict(epoch) for epoch in done]
    of_penalty = _state_of(penalty)
    meta = {
        "schema": 1,
        "identity": identity,
        "epochs": epochs,
        "scaler": updates.scaler.state_dict(),
        "penalty": of_penalty,
    }
    write_bytes(path, save(on_host(tensors), {"meta": json.dumps(meta)}))


def _restore(
    path: Path,
    network: nn.Module,
    updates: Updates,
    penalty: Penalty | None,
    identity: dict[str, object],
) -> list[Epoch]:
    """Load a checkpoint of this very training; a missing, broken or foreign one counts as none."""
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            if meta.get("identity") != json.loads(json.dumps(identity)):
                return []
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError):
        return []
    prefix = "network."
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    here = {name: value.shape for name, value in network.state_dict().items()}
    if here != {name: value.shape for name, value in state.items()}:  # other widths: another training's file
        return []
    network.load_state_dict(state)
    restore(updates.optimisers, tensors)
    if updates.scaler.is_enabled() and meta.get("scaler"):
        updates.scaler.load_state_dict(meta["scaler"])
    _put_back(penalty, meta["penalty"])
    return [Epoch(**epoch) for epoch in meta["epochs"]]
