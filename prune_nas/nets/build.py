"""Construct a network at chosen widths: a copy of the traced one with every layer made anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prune_nas.design.space import Layer, Space, size
from prune_nas.errors import UsageError
from prune_nas.nets.absent import Absent
from prune_nas.nets.initialise import initialise
from prune_nas.nets.layers import LAYERS
from prune_nas.nets.reading import PARAMETER

Module = Any  # a torch.nn module whose kind its layer tells
_SIZES = {"in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels"}


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
            old = network.get_submodule(layer.name)
            network.set_submodule(layer.name, _resized(old, layer, widths))
    return initialise(network, seed).train()


def _stretched(network: nn.Module, layer: Layer, outputs: int) -> nn.Parameter:
    """A parameter with one number a channel, at another number of channels; its own numbers, in turn."""
    old = network.get_parameter(layer.name)
    dim = max(range(old.ndim), key=lambda i: old.shape[i])
    return nn.Parameter(old.detach().index_select(dim, torch.arange(outputs) % old.shape[dim]), old.requires_grad)


def _resized(old: Module, layer: Layer, widths: Mapping[str, int]) -> nn.Module:
    inputs, outputs = size(layer.inputs, widths), size(layer.outputs, widths)
    if type(old) not in LAYERS:
        return _copied(old, layer, inputs, outputs)
    parameter = next(old.parameters(), None)
    # Made without storage: a constructor's own initialisation would advance the global random state.
    made: nn.Module = type(old)(
        **_arguments(old, layer, inputs, outputs), device="meta", dtype=None if parameter is None else parameter.dtype
    )
    return made.to_empty(device="cpu")


def _copied(old: Module, layer: Layer, inputs: int, outputs: int) -> nn.Module:
    """A layer of another library at another size: its constructor is unknown, so a copy's tensors are changed."""
    arguments = _arguments(old, layer, inputs, outputs)
    made: nn.Module = copy.deepcopy(old)
    weighted = layer.kind in ("conv", "depthwise", "linear")
    before = old.weight.shape[0] if weighted else _features(old)
    for name in _SIZES & arguments.keys():
        setattr(made, name, arguments[name])
    if weighted and hasattr(old, "scale"):  # a weight-standardised convolution's, which is gamma / sqrt(fan-in)
        fan_in = arguments.get("in_channels", inputs) // arguments.get("groups", 1)
        setattr(made, "scale", old.scale * (old.weight.shape[1] / fan_in) ** 0.5)  # noqa: B010
    if "normalized_shape" in arguments:
        setattr(made, "normalized_shape", (outputs,))  # noqa: B010  (not every module has one)
    own = [*old.named_parameters(recurse=False), *old.named_buffers(recurse=False)]
    for name, value in own:
        if weighted and name == "weight":
            entering = arguments.get("in_channels", inputs) // arguments.get("groups", 1)
            new = value.new_zeros(outputs, entering, *value.shape[2:])
        elif value.ndim and value.shape[0] == before:
            new = value.detach().index_select(0, torch.arange(outputs) % before)
        else:
            continue
        setattr(made, name, nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new)
    return made


def _features(norm: Module) -> int:
    """The channels of a norm, under whichever name its kind has them."""
    if isinstance(norm, nn.LayerNorm):
        return int(norm.normalized_shape[0])
    return int(norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features)


def _arguments(old: Module, layer: Layer, inputs: int, outputs: int) -> dict[str, Any]:
    """The constructor's arguments that make a module like `old` of another size."""
    if layer.kind in ("conv", "depthwise"):
        return _convolution(old, layer, inputs, outputs)
    if layer.kind == "linear":
        return {"in_features": inputs, "out_features": outputs, "bias": old.bias is not None}
    if layer.kind == "prelu":
        return {"num_parameters": outputs, "init": old.init}
    if isinstance(old, nn.LayerNorm):
        affine = {"elementwise_affine": old.elementwise_affine, "bias": old.bias is not None}
        return {"normalized_shape": outputs, "eps": old.eps, **affine}
    if isinstance(old, nn.GroupNorm):
        _demand_multiple(layer, outputs, old.num_groups)
        return {"num_groups": old.num_groups, "num_channels": outputs, "eps": old.eps, "affine": old.affine}
    return {
        "num_features": outputs,
        "eps": old.eps,
        "momentum": old.momentum,
        "affine": old.affine,
        "track_running_stats": old.track_running_stats,
    }


def _convolution(old: Module, layer: Layer, inputs: int, outputs: int) -> dict[str, Any]:
    groups = old.groups
    if layer.kind == "depthwise":
        inputs = groups = outputs * old.in_channels // old.out_channels
    else:
        _demand_multiple(layer, inputs, groups)
        _demand_multiple(layer, outputs, groups)
    arguments = {
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": old.kernel_size,
        "stride": old.stride,
        "padding": old.padding,
        "dilation": old.dilation,
        "groups": groups,
        "bias": old.bias is not None,
        "padding_mode": old.padding_mode,
    }
    return arguments | ({"output_padding": old.output_padding} if old.transposed else {})


def _demand_multiple(layer: Layer, channels: int, groups: int) -> None:
    if channels % groups:
        raise UsageError(f"layer {layer.name!r} needs a multiple of its {groups} groups; got {channels} channels")
