"""Scores: how much each channel of a trained supernet matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prune_nas.design.parts import Slot
from prune_nas.design.space import Space
from prune_nas.pruning.norms import levels_of, places

Scores = dict[str, NDArray[np.float32]]


@torch.no_grad()
def channel_scores(space: Space, network: nn.Module) -> Scores:
    """One score a channel: the mean of |gamma| over its slot's BatchNorms, or the weights' norm where it has none.

    A weight's norm has no measure in common with gamma, nor with another layer's. So the channels of a slot without a
    gamma are ranked by the L2 norm of the weights that produce them, over the layer's mean, and scaled so that their
    mean score is the mean over all channels that have a gamma: such a slot is cut about as hard as the others are. If
    no slot has a gamma, that mean is 1, and every layer is cut about alike.

    Returns:
        Slot -> array of shape (ceiling,), float32.
    """
    scores = {name: level.cpu() for name, level in levels_of(network, places(space, network)).items()}
    level = float(torch.cat(list(scores.values())).mean()) if scores else 1.0
    for slot in space.slots:
        if slot.name not in scores:
            scores[slot.name] = level * _relative_norms(space, slot, network, 2)
    return {slot.name: scores[slot.name].numpy() for slot in space.slots}


@torch.no_grad()
def weight_norms(space: Space, network: nn.Module, *, power: int) -> Scores:
    """One score a channel: the L1 or L2 norm (`power` 1 or 2) of the weights that produce it, over its layer's mean.

    Returns:
        Slot -> array of shape (ceiling,), float32.
    """
    return {slot.name: _relative_norms(space, slot, network, power).numpy() for slot in space.slots}


def _relative_norms(space: Space, slot: Slot, network: nn.Module, power: int) -> Tensor:
    """The norms of the weights behind each channel over their mean, averaged over the places that produce them."""
    per_place = []
    for layer in space.layers:
        if layer.name not in slot.layers:
            continue
        norms, start = _norms(network.get_submodule(layer.name), power), 0
        for name, times in layer.outputs:
            width = times * (1 if name is None else space.by_name[name].ceiling)
            if name == slot.name:
                own = norms[start : start + width].reshape(-1, times).mean(1)
                per_place.append(own / own.mean().clamp_min(torch.finfo(own.dtype).tiny))
            start += width
    return torch.stack(per_place).mean(0)


def _norms(layer: Any, power: int) -> Tensor:
    """The norm of the weights behind each output of a conv or linear layer."""
    weight: Tensor = layer.weight.float()
    if getattr(layer, "transposed", False):  # (in, out / groups, *kernel)
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    norms: Tensor = weight.flatten(1).norm(p=power, dim=1).cpu()
    return norms
