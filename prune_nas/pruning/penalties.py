"""Sparsity penalties on BatchNorm's gamma: what makes channels of a supernet compete.

A penalty is called between backward and step and adds its subgradient to `.grad`, which is the same as having its
term in the loss (sign(0) = 0). Source: Network Slimming (Liu et al. 2017), main.py of its code; the cost weighting is
MorphNet's (Gordon et al. 2018). Only gammas that belong to a slot are penalised: a frozen channel cannot leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from prune_nas.design.space import Space
from prune_nas.errors import UsageError, unknown
from prune_nas.pruning.norms import Places, places
from prune_nas.training.loop import Penalty
from prune_nas.training.recipe import Recipe

PAPER_STRENGTH = 1e-4  # Network Slimming's lambda for VGG over 160 epochs
DEEP_STRENGTH = 1e-5  # and that for PreResNet-164 and DenseNet-40
_PULL = 0.8  # lambda * travel at which gamma separated in short one-cycle trainings


@dataclass(frozen=True, slots=True)
class Pressure:
    """The penalty that a training is under: its name, its strength, and for `sss` the share that shall go."""

    name: str
    strength: float
    share: float = 0.0


def published(model: str) -> float:
    """Network Slimming's own lambda for a network (its README's commands)."""
    return DEEP_STRENGTH if model in ("preresnet164", "densenet40") else PAPER_STRENGTH


def strength_for(recipe: Recipe, images: int) -> float:
    """A lambda that separates gamma within this schedule: it must grow as the schedule shrinks.

    A gamma that the loss does not defend moves by lambda * travel in all (`Recipe.travel`); it starts at 0.5. The
    paper's 1e-4 is the least used, so that the paper's own recipe keeps the paper's value.
    """
    return max(PAPER_STRENGTH, _PULL / recipe.travel(images))


def check(name: str, space: Space, network: nn.Module) -> Places:
    """Where the penalty called `name` acts on a network; nowhere for `none`.

    Raises:
        UsageError: there is no such penalty, or no slot has a gamma that it could act on.
    """
    if name not in PENALTIES:
        raise unknown("penalty", name, PENALTIES)
    if name == "none":
        return {}
    found = places(space, network)
    if not found:
        raise UsageError(
            f"--penalty {name} acts on BatchNorm's gamma, and no free width of {space.model} has one; "
            "use --penalty none: its channels are then scored by the norms of their weights"
        )
    return found


def make(name: str, space: Space, network: nn.Module, strength: float) -> Penalty | None:
    """The penalty called `name` at `strength` (lambda) for a network at the space's ceilings; None for `none`.

    Raises:
        UsageError: there is no such penalty, or no slot has a gamma that it could act on.
    """
    found = check(name, space, network)
    weights = PENALTIES[name](space)
    if weights is None:
        return None

    @torch.no_grad()
    def penalise(model: nn.Module, lr: float) -> None:
        modules = dict(model.named_modules())
        for slot, spots in found.items():
            for spot in spots:
                norm = modules[spot.norm]
                part = slice(spot.start, spot.stop)
                norm.weight.grad[part].add_(norm.weight[part].sign(), alpha=strength * weights[slot])

    return penalise


def _none(space: Space) -> None:
    return None


def _l1(space: Space) -> dict[str, float]:
    return {slot.name: 1.0 for slot in space.slots}


def _by(*kinds: str) -> Callable[[Space], dict[str, float]]:
    """Each slot's weight: what one of its channels costs at full width, scaled so that the mean channel weighs 1."""

    def weights(space: Space) -> dict[str, float]:
        full = space.cost(space.widest)
        shares = {slot.name: 0.0 for slot in space.slots}
        for slot in space.slots:
            less = space.cost({**space.widest, slot.name: slot.ceiling - 1})
            shares[slot.name] = sum((full.of(kind) - less.of(kind)) / full.of(kind) for kind in kinds)
        channels = sum(slot.ceiling for slot in space.slots)
        mean = sum(shares[slot.name] * slot.ceiling for slot in space.slots) / channels
        return {name: share / mean for name, share in shares.items()}

    return weights


PENALTIES: Mapping[str, Callable[[Space], dict[str, float] | None]] = {
    "none": _none,
    "l1": _l1,
    "l1-macs": _by("macs"),
    "l1-params": _by("params"),
    "l1-cost": _by("macs", "params"),
}
