"""Carry the weights of kept channels from the widest network into a narrower one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prune_nas.design.parts import Layer
from prune_nas.design.space import Space
from prune_nas.errors import UsageError


@torch.no_grad()
def inherit(space: Space, source: nn.Module, target: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """Copy the weights, norm parameters and running statistics of the kept channels.

    Where dropped channels are zero throughout, both networks give equal outputs. Grouped convolutions keep the
    connections that both networks have; where `kept` takes unequal numbers of a group's channels, some are lost.

    Args:
        space: the space of both.
        source: built at `space.widest`.
        target: built at the numbers of kept channels; changed in place.
        kept: slot -> indices of the channels to keep, in the order in which the target shall have them.

    Returns:
        `target`.

    Raises:
        UsageError: a slot is missing or shuffled, or an index does not exist.
    """
    if mixed := [slot.name for slot in space.slots if slot.shuffled]:
        raise UsageError(
            f"{space.model} shuffles the channels of {', '.join(mixed[:3])}, so that no channel of a wider network "
            "can be followed into a narrower one. Leave out the inherited arm"
        )
    widths = space.check({slot: len(indices) for slot, indices in kept.items()})
    gone = {name for branch in space.gone(widths) for name in branch.layers}
    for slot in space.slots:
        if not all(0 <= channel < slot.ceiling for channel in kept[slot.name]):
            raise UsageError(f"kept channels of slot {slot.name!r} must lie in [0, {slot.ceiling})")
    layers = {layer.name: layer for layer in space.layers if layer.kind != "fixed"}
    state: dict[str, Tensor] = {}
    for key, value in source.state_dict().items():
        path, _, what = key.rpartition(".")
        if path in gone:
            continue
        if key in layers:  # a bare parameter with one number a channel
            dim = max(range(value.ndim), key=lambda i: value.shape[i])
            state[key] = value.index_select(dim, torch.tensor(space.indices(layers[key].outputs, kept)))
            continue
        counted = path in layers and value.ndim > 0  # `num_batches_tracked` has no channels
        state[key] = _kept(space, layers[path], what, value, kept, source) if counted else value
    target.load_state_dict(state)
    return target


def _kept(
    space: Space,
    layer: Layer,
    what: str,
    value: Tensor,
    kept: Mapping[str, Sequence[int]],
    source: nn.Module,
) -> Tensor:
    """The kept part of one tensor of one layer's state."""
    outputs = space.indices(layer.outputs, kept)
    if what != "weight" or layer.kind in ("norm", "prelu"):
        return value[outputs]
    module: Any = source.get_submodule(layer.name)
    transposed = getattr(module, "transposed", False)
    if layer.kind == "depthwise":
        if not transposed:
            return value[outputs]
        # The weight is (channels, times, *kernel), and `outputs` counts in channels * times.
        return value.flatten(0, 1)[outputs].reshape(-1, *value.shape[1:])
    inputs, groups = space.indices(layer.inputs, kept), layer.groups
    if transposed:
        return _swap(_grouped(_swap(value, groups), outputs, inputs, groups), groups)
    return _grouped(value, outputs, inputs, groups)


def _grouped(weight: Tensor, outputs: list[int], inputs: list[int], groups: int) -> Tensor:
    """The kept rows and columns of a weight (out, in / groups, *kernel); connections across groups are zero."""
    if groups == 1:
        return weight[outputs][:, inputs]
    per_out, per_in = weight.shape[0] // groups, weight.shape[1]
    new_out, new_in = len(outputs) // groups, len(inputs) // groups
    found = weight.new_zeros(len(outputs), new_in, *weight.shape[2:])
    for row, old_row in enumerate(outputs):
        first = row // new_out * new_in
        for column, old_column in enumerate(inputs[first : first + new_in]):
            if old_column // per_in == old_row // per_out:
                found[row, column] = weight[old_row, old_column % per_in]
    return found


def _swap(weight: Tensor, groups: int) -> Tensor:
    """Between (in, out / groups, *kernel) and (out, in / groups, *kernel); its own inverse."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
