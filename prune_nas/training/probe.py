"""Which optimiser suits a network: a few steps with each, on the same images, from the same initial values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from statistics import fmean, stdev

import torch
from torch import nn

from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.loop import OutOfMemoryError, Setting, is_out_of_memory, place, stream_of, updates_of
from prune_nas.training.loop import steps as steps_of
from prune_nas.training.precision import FORMATS
from prune_nas.training.recipe import OPTIMIZERS, Recipe

STEPS = 300
"""Steps with each optimiser: small networks of 64x64 images need 100 to 300 to leave guessing."""
_SHARE, _FEWEST = 0.2, 60  # of a training's steps; a tenth took SGD for a transformer that AdamW trains 3 points better
_COMPARED = 0.2  # of the steps, the last ones, whose losses are compared
_CLEARLY = 3.0  # standard errors by which the losses must differ
_LEAVING = 0.95  # of the loss of guessing: below it a network has begun to learn
_LONGEST = 2  # times the steps, where no optimiser has begun to learn before


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


def steps_for(recipe: Recipe, images: int) -> int:
    """The steps with each optimiser before a training of this recipe on so many images: a fifth of it, 60 to 300."""
    return min(max(round(_SHARE * recipe.steps(images)), _FEWEST), STEPS)


def probe(build: Callable[[], nn.Module], setting: Setting, recipe: Recipe, *, seed: int, steps: int = STEPS) -> Probe:
    """Train a network for a few steps with every optimiser, and compare the losses.

    Each optimiser goes through the recipe's whole schedule within these steps. Where no optimiser has begun to learn by
    then, both start again with twice the steps.

    The losses are paired, since step by step both optimisers see the same images. SGD is kept unless the other one's
    losses are lower by three standard errors of their difference.

    Args:
        build: makes the network with its initial values.
        setting: data, device and precision.
        recipe: of which schedule, batch, label smoothing, learning rate and weight decay are taken.
        seed: of batches and augmentation.
        steps: with each optimiser, at first.

    Raises:
        OutOfMemoryError: half the batch does not fit either.
    """
    for attempt in (recipe, recipe.halved()):
        try:
            return _probe(build, setting, attempt, seed=seed, steps=steps)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    raise OutOfMemoryError(
        f"trying the optimisers ran out of memory on {setting.device} at batch {recipe.batch} and at "
        f"{recipe.halved().batch}. Use a smaller --batch or network"
    )


def _probe(build: Callable[[], nn.Module], setting: Setting, recipe: Recipe, *, seed: int, steps: int) -> Probe:
    spent, lasting, guessing = 0, steps, math.log(len(setting.data.classes))
    while True:
        found = {name: _losses(build(), setting, recipe.using(name), seed=seed, lasting=lasting) for name in OPTIMIZERS}
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


def _losses(network: nn.Module, setting: Setting, recipe: Recipe, *, seed: int, lasting: int) -> list[float]:
    """The training loss of each step; nothing where the training diverged."""
    updates = updates_of(place(network, setting.device), setting, recipe)
    losses: list[torch.Tensor] = []
    with quick_convolutions(network, setting.device, FORMATS[setting.precision.name]):
        for number in count(1):
            done = len(losses)
            passed = steps_of(
                network,
                setting,
                recipe,
                updates,
                stream=stream_of(seed, number),
                rate=lambda more, done=done: recipe.lr_at((done + more) / lasting),  # type: ignore[misc]
            )
            losses += islice(passed, lasting - done)
            passed.close()
            if len(losses) == lasting:
                break
    values = torch.stack(losses).tolist()
    return values if all(map(math.isfinite, values)) else []
