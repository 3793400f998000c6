"""Construct a network at chosen widths: a copy of the traced one, every layer brought to its size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prune_nas.design.parts import Layer, size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.absent import Absent
from prune_nas.nets.initialise import initialise
from prune_nas.nets.reading import PARAMETER

Module = Any  # a torch.nn module whose kind its layer tells

_CHANNELS = ("out_channels", "out_features", "num_channels", "num_features", "num_parameters", "normalized_shape")
"""Under one of these names a layer has the channels that it gives."""


def build(template: nn.Module, space: Space, widths: Mapping[str, int], seed: int) -> nn.Module:
    """The network of `space` at `widths`, freshly initialised, in training mode, on the CPU.

    Args:
        template: the network that was traced; it is not changed.
        space: its space.
        widths: of every slot; they may lie outside [floor, ceiling], and be 0 throughout a residual branch.
        seed: of the initial weights.

    Raises:
        UsageError: `widths` does not name exactly the slots, or groups do not divide a width.
    """
    widths = space.check(widths)
    network = copy.deepcopy(template)
    gone = {name for branch in space.gone(widths) for name in branch.layers}
    for layer in space.layers:
        if layer.name in gone:
            old = network.get_submodule(layer.name)
            network.set_submodule(layer.name, Absent(old, size(layer.outputs, widths)))
        elif layer.kind == PARAMETER:
            owner, _, own = layer.name.rpartition(".")
            setattr(network.get_submodule(owner), own, _stretched(network, layer, size(layer.outputs, widths)))
        elif layer.kind != "fixed":
            inputs, outputs = size(layer.inputs, widths), size(layer.outputs, widths)
            _resize(network.get_submodule(layer.name), layer, inputs, outputs)
    return initialise(network, seed).train()


def _stretched(network: nn.Module, layer: Layer, outputs: int) -> nn.Parameter:
    """A parameter with one number a channel, at another number of channels; its own numbers, in turn."""
    old = network.get_parameter(layer.name)
    dim = max(range(old.ndim), key=lambda i: old.shape[i])
    return nn.Parameter(old.detach().index_select(dim, torch.arange(outputs) % old.shape[dim]), old.requires_grad)


def _resize(module: Module, layer: Layer, inputs: int, outputs: int) -> None:
    """Change a layer's size in place: its weight is new, its numbers for each channel are its own, in turn.

    A constructor would draw initial weights from the global random state, and another library's is not known.
    """
    before, sizes = _channels(module), _sizes(module, layer, inputs, outputs)
    weighted = layer.kind in ("conv", "depthwise", "linear")
    shape = _weight_shape(module, sizes) if weighted else ()
    if weighted and hasattr(module, "scale"):  # a weight-standardised convolution's, which is gamma / sqrt(fan-in)
        module.scale *= (module.weight.shape[1] / shape[1]) ** 0.5
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, value in own:
        if weighted and name == "weight":
            new = value.new_zeros(shape)
        elif value.ndim and value.shape[0] == before:
            new = value.detach().index_select(0, torch.arange(outputs) % before)
        else:
            continue
        setattr(module, name, nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new)
    for name, channels in sizes.items():
        setattr(module, name, channels)


def _channels(module: Module) -> int:
    """The channels that a layer gives."""
    found = getattr(module, _name(module))
    return int(found[0] if isinstance(found, tuple) else found)


def _name(module: Module) -> str:
    return next(name for name in _CHANNELS if hasattr(module, name))


def _sizes(module: Module, layer: Layer, inputs: int, outputs: int) -> dict[str, Any]:
    """The attributes that hold a layer's size, at another size.

    Raises:
        UsageError: groups do not divide it.
    """
    name = _name(module)
    if layer.kind == "depthwise":
        inputs = outputs * module.in_channels // module.out_channels
        return {name: outputs, "in_channels": inputs, "groups": inputs}
    if layer.kind == "conv":
        _demand_multiple(layer, inputs, module.groups)
        _demand_multiple(layer, outputs, module.groups)
        return {name: outputs, "in_channels": inputs}
    if layer.kind == "linear":
        return {name: outputs, "in_features": inputs}
    if isinstance(module, nn.GroupNorm):
        _demand_multiple(layer, outputs, module.num_groups)
    return {name: (outputs,) if name == "normalized_shape" else outputs}


def _weight_shape(module: Module, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if "in_features" in sizes:
        return sizes["out_features"], sizes["in_features"]
    groups = sizes.get("groups", module.groups)
    ways = sizes["out_channels"], sizes["in_channels"]
    first, second = reversed(ways) if module.transposed else ways
    return first, second // groups, *module.kernel_size


def _demand_multiple(layer: Layer, channels: int, groups: int) -> None:
    if channels % groups:
        raise UsageError(f"layer {layer.name!r} needs a multiple of its {groups} groups; got {channels} channels")
