"""Which optimiser suits a network: a few steps with each, on the same images, from the same initial values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import nn
from torch.nn import functional as F

from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.loop import Setting, place
from prune_nas.training.optimiser import optimiser_of
from prune_nas.training.precision import FORMATS
from prune_nas.training.recipe import OPTIMIZERS, Recipe

STEPS = 200
"""Steps with each optimiser: small networks of 64x64 images need 100 to 200 to leave guessing."""
_COMPARED = 0.2  # of the steps, the last ones, whose losses are compared
_CLEARLY = 3.0  # standard errors by which the losses must differ
_LEAVING = 0.95  # of the loss of guessing: below it a network has begun to learn
_LONGEST = 4  # times the steps, where no optimiser has begun to learn before


@dataclass(frozen=True, slots=True)
class Probe:
    """What the steps showed.

    Attributes:
        optimizer: the better one, `sgd` where the two are equal.
        losses: optimiser -> mean training loss of the last steps; infinite where it diverged.
        steps: with each of them, all tries together.
    """

    optimizer: str
    losses: Mapping[str, float]
    steps: int


def probe(build: Callable[[], nn.Module], setting: Setting, recipe: Recipe, *, seed: int, steps: int = STEPS) -> Probe:
    """Train a network for a few steps with every optimiser, and compare the losses.

    Each optimiser goes through the recipe's whole schedule within these steps. Where no optimiser has begun to learn by
    then, both start again with twice the steps, and once more with four times the steps.

    The losses are paired, since step by step both optimisers see the same images. SGD is kept unless the other one's
    losses are lower by three standard errors of their difference.

    Args:
        build: makes the network with its initial values.
        setting: data, device and precision.
        recipe: of which schedule, batch, label smoothing, learning rate and weight decay are taken.
        seed: of batches and augmentation.
        steps: with each optimiser, at first.
    """
    spent, lasting, guessing = 0, steps, math.log(len(setting.data.classes))
    while True:
        found = {name: _losses(build(), setting, recipe.using(name), seed=seed, steps=lasting) for name in OPTIMIZERS}
        last = max(round(_COMPARED * lasting), 2)
        means = {name: fmean(losses[-last:]) if losses else math.inf for name, losses in found.items()}
        spent += lasting
        if min(means.values()) < _LEAVING * guessing or 2 * lasting > _LONGEST * steps:
            break
        lasting *= 2
    chosen = "sgd"
    for name in found:
        if means[name] < means[chosen] and _differ(found[name][-last:], found[chosen][-last:]):
            chosen = name
    return Probe(chosen, means, spent)


def _differ(ours: list[float], theirs: list[float]) -> bool:
    """Whether the losses differ by more than their spread explains; they do where a training diverged."""
    if not theirs:
        return True
    gaps = [b - a for a, b in zip(ours, theirs, strict=True)]
    return fmean(gaps) > _CLEARLY * stdev(gaps) / math.sqrt(len(gaps))


def _losses(network: nn.Module, setting: Setting, recipe: Recipe, *, seed: int, steps: int) -> list[float]:
    """The training loss of each step; nothing where the training diverged."""
    device, data = setting.device, setting.data
    optimiser = optimiser_of(place(network, device).train(), recipe, fused=device.type in ("cuda", "cpu", "mps"))
    losses: list[torch.Tensor] = []
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        quick_convolutions(network, device, FORMATS[setting.precision.name]),
    ):
        torch.manual_seed(seed)
        epoch = 0
        while len(losses) < steps:
            epoch += 1
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            batches = data.train.batches(
                recipe.batch, device=device, generator=generator, augmentation=data.augmentation, drop_last=True
            )
            for (x, y), _ in zip(batches, range(steps - len(losses)), strict=False):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.lr_at(len(losses) / steps)
                optimiser.zero_grad(set_to_none=True)
                with setting.precision.autocast(device):
                    loss = F.cross_entropy(network(x), y, label_smoothing=recipe.label_smoothing)
                loss.backward()
                optimiser.step()
                losses.append(loss.detach())
    values = torch.stack(losses).tolist()
    return values if all(map(math.isfinite, values)) else []
