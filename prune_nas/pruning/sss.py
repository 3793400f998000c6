"""Sparse Structure Selection: scaling factors that reach exact zeros while the network trains (arXiv 1707.01213).

A factor, 1 at first, multiplies every output of a structure: here of a channel of a slot, behind its BatchNorms
(`sss_blocks` has those of residual blocks).
Factors are updated by accelerated proximal gradient (`apg`) without weight decay, the rest of the network as usual. In
the paper only the penalty's strength decides how many reach zero. Here they are also given a ratio: once that share of
them is zero, those are out for good and the penalty ends, so that a comparison can ask for a size. A slot's largest
factors, as many as its floor, are not penalised: through a layer without channels nothing would pass.

Between steps the factors and their state are a module's parameters and buffers, so that a checkpoint holds them; at the
end they are multiplied into gamma and beta, and what is left is an ordinary network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from prune_nas.design.selection import Selection
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.pruning import apg
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.norms import Place, gamma, places
from prune_nas.pruning.ratios import keep, share_of
from prune_nas.training.loop import Penalty
from prune_nas.training.recipe import Recipe

FACTORS = "scaling_factors"
_PULL = 2.0  # lambda * travel: a factor that the loss does not defend falls from 1 to 0 in half of the training
_LEAST = 1e-8  # of a factor that is not out, once the penalty is over: zero says that a channel goes


def strength_for(recipe: Recipe, images: int) -> float:
    """A strength that brings factors to zero well within this schedule (see `penalties.strength_for`)."""
    return _PULL / recipe.travel(images)


class Factors(nn.Module):
    """Groups of factors, such as a slot's, and their state: velocity, and 0 where one is out for good."""

    def __init__(self, groups: Mapping[str, tuple[int, int]]) -> None:
        """All factors at 1; `groups` says of each how many there are, and how many of them always stay."""
        super().__init__()
        self.groups = list(groups)
        self.floors = [floor for _, floor in groups.values()]
        self.values = nn.ParameterList([torch.ones(many) for many, _ in groups.values()])
        for number, (many, _) in enumerate(groups.values()):
            self.register_buffer(f"velocity{number}", torch.zeros(many))
            self.register_buffer(f"alive{number}", torch.ones(many))

    @property
    def velocity(self) -> list[Tensor]:
        """The momentum of every group's factors."""
        return [self.get_buffer(f"velocity{number}") for number in range(len(self.groups))]

    @property
    def alive(self) -> list[Tensor]:
        """For every group's factors 1, or 0 where one is out for good."""
        return [self.get_buffer(f"alive{number}") for number in range(len(self.groups))]

    def of(self, group: str) -> Tensor:
        """The factors of a group."""
        values: Tensor = self.values[self.groups.index(group)]
        return values


def attach(space: Space, network: nn.Module) -> nn.Module:
    """Put factors behind the norms of a network's slots, in place.

    Raises:
        UsageError: a slot has no BatchNorm behind which its channels could be scaled.
    """
    spots = places(space, network)
    if bare := [slot.name for slot in space.slots if slot.name not in spots]:
        raise UsageError(
            f"sss scales channels behind their BatchNorm, but {', '.join(bare[:3])} of {space.model} has no "
            "BatchNorm. Use l1-norm"
        )
    factors = Factors({slot.name: (slot.ceiling, slot.floor) for slot in space.slots})
    host = next(iter(spots.values()))[0].norm  # a Sequential would run what is added to it; a norm does not
    network.get_submodule(host).add_module(FACTORS, factors)
    by_norm: dict[str, list[tuple[str, Place]]] = defaultdict(list)
    for slot, own in spots.items():
        for place in own:
            by_norm[place.norm].append((slot, place))
    for norm, parts in by_norm.items():
        parts.sort(key=lambda part: part[1].start)
        scale(network.get_submodule(norm), lambda out, parts=parts: out * _vector(factors, parts, out))  # type: ignore[misc]
    return network


def scale(layer: nn.Module, by: Callable[[Tensor], Tensor]) -> None:
    """Have `by` change what a layer gives; before its activation, where the layer is a norm that has one (timm's)."""
    activation = _activation(layer)
    if activation is None:
        layer.register_forward_hook(lambda module, args, out: by(out))
    else:
        activation.register_forward_pre_hook(lambda module, args: (by(args[0]), *args[1:]))


def unscale(layer: nn.Module) -> None:
    """The inverse."""
    layer._forward_hooks.clear()
    if (activation := _activation(layer)) is not None:
        activation._forward_pre_hooks.clear()


def _activation(layer: nn.Module) -> nn.Module | None:
    found = getattr(layer, "act", None)
    return found if isinstance(layer, _NormBase) and isinstance(found, nn.Module) else None


def factors_of(network: nn.Module) -> Factors:
    """The factors of a network that has some."""
    return next(module for module in network.modules() if isinstance(module, Factors))


def _vector(factors: Factors, parts: list[tuple[str, Place]], out: Tensor) -> Tensor:
    """The factors of all channels of a norm, 1 where a channel is no slot's; shaped to multiply its output."""
    found, at = [], 0
    for slot, place in parts:  # in the order of the norm's channels
        found += [out.new_ones(place.start - at), factors.of(slot).to(out.dtype).repeat_interleave(place.times)]
        at = place.stop
    found.append(out.new_ones(out.shape[1] - at))
    return torch.cat(found).view(1, -1, *[1] * (out.ndim - 2))


def penalty(strength: float, share: float, momentum: float) -> Penalty:
    """The factors' own update, to be called between backward and step.

    Args:
        strength: of the penalty, gamma in the paper.
        share: of all factors; when so many are zero, they stay zero and the penalty ends.
        momentum: of the update.
    """

    @torch.no_grad()
    def update(network: nn.Module, lr: float) -> None:
        factors = factors_of(network)
        before = torch.cat([values.clone() for values in factors.values])
        penalised = torch.stack([mask.all() for mask in factors.alive]).all()  # nothing is out yet
        for values, velocity, mask, floor in zip(
            factors.values, factors.velocity, factors.alive, factors.floors, strict=True
        ):
            if values.grad is not None:
                thresholds = torch.full_like(values, strength) * penalised
                thresholds[values.topk(floor).indices] = 0
                sound = values.grad.isfinite().all()  # fp16 overflows now and then, and such a step does not count
                gradient = torch.where(sound, values.grad, 0)
                apg.step(values, velocity, gradient, lr=lr, strength=thresholds * sound, momentum=momentum)
                values.copy_(torch.where(penalised, values, values.clamp_min(_LEAST)) * mask)
                velocity.mul_(mask)
            values.grad = None  # so that the network's own optimiser leaves it alone
        _end(factors, before, penalised, max(int(share * len(before)), 1))

    return update


def _end(factors: Factors, before: Tensor, penalised: Tensor, wanted: int) -> None:
    """Take `wanted` zeros out for good, if there are so many.

    Where one step made more, those stay that were largest before it, as they were. The factors come to a halt: it is
    the penalty that gave them their momentum.
    """
    zero = torch.cat([values == 0 for values in factors.values])
    first = torch.zeros_like(zero)
    first[torch.where(zero, before, torch.inf).argsort(stable=True)[:wanted]] = True
    enough = penalised & (zero.sum() >= wanted)
    out, spared = enough & first, enough & zero & ~first
    sizes = [len(values) for values in factors.values]
    parts = zip(out.split(sizes), spared.split(sizes), before.split(sizes), strict=True)
    for values, velocity, mask, (gone, stays, old) in zip(
        factors.values, factors.velocity, factors.alive, parts, strict=True
    ):
        mask.mul_(~gone)
        values.copy_(torch.where(stays, old, values))
        velocity.mul_(~enough)


@torch.no_grad()
def fold(space: Space, network: nn.Module) -> nn.Module:
    """Multiply the factors into gamma and beta and take them off, in place: the outputs stay what they were."""
    factors = factors_of(network)
    for slot, own in places(space, network).items():
        for place in own:
            norm: Any = network.get_submodule(place.norm)
            by = factors.of(slot).repeat_interleave(place.times)
            for vector in (norm.weight, norm.bias):
                vector[place.start : place.stop].mul_(by)
            unscale(norm)
    for module in [module for module in network.modules() if hasattr(module, FACTORS)]:
        delattr(module, FACTORS)
    return network


def left(space: Space, network: nn.Module) -> dict[str, int]:
    """Slot -> how many channels a trained and folded network still lets through: a gamma is not zero."""
    return {
        slot: int(torch.stack([(gamma(network, p).reshape(-1, p.times) != 0).any(1) for p in own]).any(0).sum())
        for slot, own in places(space, network).items()
    }


def prune(space: Space, network: nn.Module, ratio: str) -> Selection:
    """The channels that stay: those whose factor is not zero.

    Args:
        space: the network's.
        network: trained with factors, folded, at the space's ceilings.
        ratio: that it was trained with; how many are zero was decided then.
    """
    share_of(ratio)
    own = left(space, network)
    held = tuple(slot.name for slot in space.slots if own[slot.name] <= slot.floor < slot.ceiling)
    return replace(keep(space, own, channel_scores(space, network)), floored=held)
