"""Construct a network at chosen widths: a copy of the traced one, every layer brought to its size.

A layer starts with a part of the values that its author gives it at full width. Where fewer inputs are left, the values
grow by sqrt(inputs before / inputs now), so that a layer's outputs keep their size, as under He's and PyTorch's own
rules (He et al. 2015, section 2.2).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from prune_nas.design.parts import Layer, size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.absent import Absent
from prune_nas.nets.form import set_mode
from prune_nas.nets.initialise import InitialValues, published
from prune_nas.nets.reading import PARAMETER

Module = Any  # a torch.nn module whose kind its layer tells

_CHANNELS = ("out_channels", "out_features", "num_channels", "num_features", "num_parameters", "normalized_shape")
"""Under one of these names a layer has the channels that it gives."""


@torch.no_grad()
def build(template: nn.Module, space: Space, widths: Mapping[str, int], values: InitialValues, seed: int) -> nn.Module:
    """The network of `space` at `widths`, with fresh initial values, in training mode, on the CPU.

    Args:
        template: the network that was traced; it is not changed.
        space: its space.
        widths: of every slot; they may lie outside [floor, ceiling], and be 0 throughout a residual branch.
        values: how its parameters begin.
        seed: of the initial values.

    Raises:
        UsageError: `widths` does not name exactly the slots, or groups do not divide a width.
    """
    widths = space.check(widths)
    network, generator = copy.deepcopy(template), torch.Generator().manual_seed(seed)
    own = network.state_dict(keep_vars=True)
    for name, value in values.of(template, seed).items():
        own[name].data.copy_(value)
    gone = {name for branch in space.gone(widths) for name in branch.layers}
    for layer in space.layers:
        if layer.name in gone:
            old = network.get_submodule(layer.name)
            network.set_submodule(layer.name, Absent(old, size(layer.outputs, widths)))
        elif layer.kind == PARAMETER:
            owner, _, name = layer.name.rpartition(".")
            setattr(
                network.get_submodule(owner), name, _stretched(network, layer, size(layer.outputs, widths), generator)
            )
        elif layer.kind != "fixed":
            inputs, outputs = size(layer.inputs, widths), size(layer.outputs, widths)
            by_hand = f"{layer.name}.bias" in values.by_hand
            _resize(network.get_submodule(layer.name), layer, (inputs, outputs), generator, by_hand=by_hand)
    for module in network.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()
    return set_mode(published(network, seed) if values.as_published else network, training=True)


def _stretched(network: nn.Module, layer: Layer, outputs: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter with one number per channel, at another number of channels."""
    old = network.get_parameter(layer.name)
    dim = max(range(old.ndim), key=lambda i: old.shape[i])
    shape = [outputs if i == dim else length for i, length in enumerate(old.shape)]
    return nn.Parameter(_cut(old.detach(), shape, generator), old.requires_grad)


def _resize(
    module: Module, layer: Layer, channels: tuple[int, int], generator: torch.Generator, *, by_hand: bool
) -> None:
    """Change a layer's size in place; its constructor is not called: another library's is not known.

    Args:
        module: the layer.
        layer: what the space says of it.
        channels: inputs and outputs that it shall have.
        generator: draws what a wider layer needs.
        by_hand: whether its bias was set by hand, so that its values are kept.
    """
    inputs, outputs = channels
    before, sizes = _channels(module), _sizes(module, layer, inputs, outputs)
    weighted = layer.kind in ("conv", "depthwise", "linear")
    shape = _weight_shape(module, sizes) if weighted else ()
    gain = (module.weight.shape[1] / shape[1]) ** 0.5 if weighted and shape[1] else 1.0
    if weighted and hasattr(module, "scale"):  # a weight-standardised convolution's, which is gamma / sqrt(fan-in)
        module.scale *= gain
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, value in own:
        if weighted and name == "weight":
            new = _cut(value.detach(), shape, generator) * gain
        elif value.ndim and value.shape[0] == before:
            new = _cut(value.detach(), (outputs, *value.shape[1:]), generator)
            new = new * gain if name == "bias" and not (by_hand or _is_constant(value)) else new
        else:
            continue
        setattr(module, name, nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new)
    for name, count in sizes.items():
        setattr(module, name, count)


def _cut(value: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The first part of `value` in every dimension; where `shape` is larger, numbers of `value` drawn at random.

    Repeating a layer's channels instead would give channels that learn the same.
    """
    shape = torch.Size(shape)
    if shape == value.shape or not value.numel():
        return value.clone() if shape == value.shape else value.new_zeros(shape)
    if all(new <= old for new, old in zip(shape, value.shape, strict=True)):
        return value[tuple(slice(length) for length in shape)].clone()
    return value.flatten()[torch.randint(value.numel(), (shape.numel(),), generator=generator)].view(shape)


def _is_constant(value: Tensor) -> bool:
    return not value.numel() or bool((value == value.flatten()[0]).all())


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
        raise UsageError(f"layer {layer.name!r} needs a multiple of its {groups} groups. Got {channels} channels")
