"""Where a slot's channels sit in a network's BatchNorm layers: the one map that penalties and importance share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prune_nas.design.space import Space


class Place(NamedTuple):
    """A run of channels in one norm: `times` consecutive entries belong to each channel of the slot."""

    norm: str
    start: int
    stop: int
    times: int


def places(space: Space, network: nn.Module) -> dict[str, list[Place]]:
    """Slot -> where its channels are scaled by a BatchNorm's gamma, in a network at the space's ceilings.

    A slot without such a BatchNorm, as the middle of a squeeze-and-excitation, is not among them.
    """
    found: dict[str, list[Place]] = defaultdict(list)
    modules = dict(network.named_modules())
    for layer in space.layers:
        norm = modules.get(layer.name)  # what the tracer only counts may have no module of that name
        if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) or not norm.affine:
            continue
        start = 0
        for slot, times in layer.outputs:
            width = times if slot is None else times * space.by_name[slot].ceiling
            if slot is not None:
                found[slot].append(Place(layer.name, start, start + width, times))
            start += width
    return dict(found)


def gamma(network: nn.Module, place: Place) -> Tensor:
    """The slice of a norm's weight that belongs to a slot, shape (channels * times,)."""
    weight = network.get_submodule(place.norm).weight
    assert isinstance(weight, Tensor)  # noqa: S101  (an affine BatchNorm's weight; for the type checker)
    return weight[place.start : place.stop]


Places = Mapping[str, Sequence[Place]]


def levels_of(network: nn.Module, found: Places) -> dict[str, Tensor]:
    """Slot -> the mean of |gamma| over its norms, for each of its channels."""
    return {
        slot: torch.stack([gamma(network, spot).abs().float().reshape(-1, spot.times).mean(1) for spot in spots]).mean(
            0
        )
        for slot, spots in found.items()
    }
