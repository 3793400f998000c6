"""Sparsity penalties on BatchNorm's gamma: what makes channels of a supernet compete.

A penalty is called between backward and step and adds its subgradient to `.grad`, which is the same as having its
term in the loss (sign(0) = 0). Source: Network Slimming (Liu et al. 2017), main.py of its code; the cost weighting is
MorphNet's (Gordon et al. 2018). Only gammas that belong to a slot are penalised: a frozen channel cannot leave.

How strong a penalty must be depends on network, images and length. Unless the user names a strength, it follows from
what it does (`Pull`): it grows while the loss defends the share of channels that shall go, and shrinks while that share
falls faster than it should. Once more channels are gone than shall go, the pull on the others weakens.

Gammas under a penalty are updated by SGD, whatever updates the other parameters (`Recipe.penalised`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prune_nas.design.space import Space
from prune_nas.errors import PruneNasError, UsageError, unknown
from prune_nas.pruning.norms import Places, gamma, levels_of, places
from prune_nas.training.loop import Penalty
from prune_nas.training.recipe import Recipe

PAPER_STRENGTH = 1e-4  # Network Slimming's lambda for VGG over 160 epochs
DEEP_STRENGTH = 1e-5  # and that for PreResNet-164 and DenseNet-40
_ALL = 0.98  # a share of dead channels from which a network has nothing left
GONE = 0.02  # a gamma below this share of where it started carries next to nothing
_ARRIVAL = 0.75  # progress of the training at which the share that shall go has reached zero
_LOOKS = 200  # times per training that the share is looked at
_ANSWER = 5.0  # the strength is exp(_ANSWER * gap) times where it began


class AllDeadError(PruneNasError):
    """A penalty took every channel of a network to zero."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """The penalty that a training is under.

    Attributes:
        name: of `PENALTIES`, or of a scaling.
        strength: lambda; with a `share` where it begins.
        share: of the channels that shall go; 0 holds the strength where it is.
    """

    name: str
    strength: float
    share: float = 0.0


def published(model: str) -> float:
    """Network Slimming's own lambda for a network (its README's commands)."""
    return DEEP_STRENGTH if model in ("preresnet164", "densenet40") else PAPER_STRENGTH


def strength_for(recipe: Recipe, images: int) -> float:
    """The lambda that takes a gamma of 1, which the loss does not defend, to zero at `_ARRIVAL` of the training.

    Such a gamma moves by lambda * its learning rate / (1 - momentum) per step of SGD.
    """
    return (1 - recipe.momentum) / (recipe.gamma_share * _early_path(recipe, images))


def _early_path(recipe: Recipe, images: int) -> float:
    """The sum of the learning rate over the steps until `_ARRIVAL`."""
    steps = recipe.steps(images)
    return sum(recipe.lr_at(i / steps) for i in range(math.ceil(_ARRIVAL * steps)))


def pressure_for(name: str, recipe: Recipe, images: int, *, strength: float | None = None, share: float) -> Pressure:
    """A pressure as strong as asked for; by default one that follows from what it does, until `share` has gone.

    Args:
        name: of the penalty.
        recipe: of the training.
        images: training images.
        strength: lambda, held as it is; None to let it follow.
        share: of the channels that shall go.
    """
    if strength is not None:
        return Pressure(name, strength)
    if recipe.name == "paper":
        return Pressure(name, PAPER_STRENGTH)
    return Pressure(name, strength_for(recipe, images), share)


def check(name: str, space: Space, network: nn.Module) -> Places:
    """Where the penalty called `name` acts on a network; nowhere for `none`, and for `auto` on a network without gamma.

    Raises:
        UsageError: there is no such penalty, or no slot has a gamma that it could act on.
    """
    if name not in (*PENALTIES, "auto"):
        raise unknown("penalty", name, (*PENALTIES, "auto"))
    if name == "none":
        return {}
    found = places(space, network)
    if not found and name != "auto":
        raise UsageError(
            f"--penalty {name} acts on BatchNorm's gamma, and no free width of {space.model} has one. "
            "Use --penalty none: its channels are then scored by the norms of their weights"
        )
    return found


def make(pressure: Pressure, space: Space, network: nn.Module, recipe: Recipe, images: int) -> Penalty | None:
    """A penalty for a network at the space's ceilings; None for `none`.

    Args:
        pressure: its name, strength and share.
        space: of the network.
        network: as it will be trained.
        recipe: of the training.
        images: training images.

    Raises:
        UsageError: there is no such penalty, or no slot has a gamma that it could act on.
    """
    found = check(pressure.name, space, network)
    weights = PENALTIES[pressure.name](space)
    if weights is None:
        return None
    return Pull(found, weights, pressure, recipe, images)


class Pull:
    """The penalty of one training, as the loop calls it: between backward and step, with the learning rate."""

    def __init__(
        self, found: Places, weights: Mapping[str, float], pressure: Pressure, recipe: Recipe, images: int
    ) -> None:
        """Bind it.

        Args:
            found: where the gammas of each slot are.
            weights: slot -> factor on the strength.
            pressure: where the strength begins, and the share of channels that shall go.
            recipe: of the training.
            images: training images.
        """
        self._found, self._weights, self._pressure = found, weights, pressure
        self._every = max(recipe.steps(images) // _LOOKS, 1)
        self._early = _early_path(recipe, images)
        self._done, self._path, self._first, self._part = 0, 0.0, 0.0, 1.0
        self.strength = pressure.strength

    @torch.no_grad()
    def __call__(self, network: nn.Module, lr: float) -> None:
        """Pull every gamma towards zero by one step, and look now and then how far the channels are."""
        if not self._first:
            self._first = start_of(network, self._found)
        if self._done % self._every == 0:
            self._look(network)
        self._done, self._path = self._done + 1, self._path + lr
        for slot, spots in self._found.items():
            for spot in spots:
                weight: Any = network.get_submodule(spot.norm).weight
                if weight.grad is not None:  # else this step left the branch out
                    part = slice(spot.start, spot.stop)
                    weight.grad[part].add_(weight[part].sign(), alpha=self._part * self.strength * self._weights[slot])

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold of it."""
        return {
            "strength": self.strength,
            "part": self._part,
            "done": self._done,
            "path": self._path,
            "first": self._first,
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state."""
        self.strength, self._part, self._done = float(state["strength"]), float(state["part"]), int(state["done"])
        self._path, self._first = float(state["path"]), float(state["first"])

    def _look(self, network: nn.Module) -> None:
        """See that not every channel is dead, and set the strength by how far the share is from zero.

        A gamma that the loss does not defend falls with the path of the learning rate. Where the share is above that
        line, the loss defends it and the strength grows; where it is below, weight decay helps and the strength falls.
        A young network defends no gamma, and all of them fall together: the pull is whole until the share is gone, and
        none where half of the other channels are gone too.

        Raises:
            AllDeadError: every channel is.
        """
        levels = torch.cat(list(levels_of(network, self._found).values())) / self._first
        dead = float((levels < GONE).float().mean())
        if dead > _ALL:
            raise AllDeadError(f"{100 * dead:.0f} % of its channels are dead after {self._done} steps")
        share = self._pressure.share
        if not share:
            return
        self._part = min(max(1 - (dead - share) / ((1 - share) / 2), 0.0), 1.0)
        gap = float(levels.quantile(share)) - max(1 - self._path / self._early, 0.0)
        self.strength = self._pressure.strength * math.exp(_ANSWER * min(gap, 1.0))


@torch.no_grad()
def start_of(network: nn.Module, found: Places) -> float:
    """The size of the gammas of a network that is not trained yet; those that start at zero are left out."""
    sizes = torch.cat([gamma(network, spot).abs().float() for spots in found.values() for spot in spots])
    return float(sizes[sizes > 0].median()) if (sizes > 0).any() else 1.0


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
