"""What each kind of layer with parameters does to channels, and what it costs; one rule a kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from prune_nas.nets.channels import Part, Parts, fixed
from prune_nas.nets.nodes import BATCH, of_batch
from prune_nas.nets.reading import Call, Record, Tensor

Module = Any  # a torch.nn module whose type the table has checked


def convolution(call: Call) -> Tensor:
    """Conv and ConvTranspose: a new width; grouped: both sides are multiples of the groups; depthwise: ties them."""
    conv: Module = call.module
    if len(call.x.shape) != len(conv.kernel_size) + 2:  # without a batch, torch reads the first dimension as channels
        return call.unknown()
    x = call.with_channels_in(1)
    # A transposed convolution applies its weight once for each of its input's places.
    applied = _applied(call, x.shape if conv.transposed else call.shape, 1)
    if is_depthwise(conv):
        times = conv.out_channels // conv.in_channels
        outputs = tuple(Part(part.variable, part.times * times) for part in x.along(1))
        record = _record(call, "depthwise", fixed(1), outputs, positions=applied)
        # The inputs of a depthwise layer are the constant 1, so its second call is tied to the first by its outputs.
        call.reading.channels.unify(outputs, record.outputs, call.where)
    else:
        record = _produce(call, "conv", x.along(1), conv.out_channels, applied)
        call.reading.channels.group(record.inputs, conv.groups, call.where)
        call.reading.channels.group(record.outputs, conv.groups, call.where)
    record.kernel = math.prod(conv.kernel_size)
    record.vectors = _vectors(conv, conv.out_channels)  # the bias, a gain
    record.groups = 1 if record.kind == "depthwise" else conv.groups
    record.spatial = record.spatial or call.shape[2:]
    return Tensor(call.shape, 1, record.outputs)


def linear(call: Call) -> Tensor:
    """Linear: a new width in the last dimension, applied at every place of the dimensions between."""
    layer: Module = call.module
    last = len(call.shape) - 1
    x = call.with_channels_in(last)
    record = _produce(call, "linear", x.along(last), layer.out_features, _applied(call, call.shape, last))
    record.kernel, record.vectors = 1, _vectors(layer, layer.out_features)
    record.spatial = record.spatial or call.shape[1:-1]
    return Tensor(call.shape, last, record.outputs)


def norm(call: Call) -> Tensor:
    """BatchNorm and InstanceNorm follow the channels in dimension 1."""
    return _follow(call, 1)


def group_norm(call: Call) -> Tensor:
    """GroupNorm follows, and its groups must divide the channels."""
    group: Module = call.module
    x = call.with_channels_in(1)
    call.reading.channels.divide(x.along(1), group.num_groups, call.where)
    return _follow(call, 1)


def layer_norm(call: Call) -> Tensor:
    """LayerNorm over the last dimension alone follows it; over more than that it is not followed."""
    layer: Module = call.module
    return _follow(call, len(call.shape) - 1) if len(layer.normalized_shape) == 1 else call.unknown()


def layer_norm_2d(call: Call) -> Tensor:
    """ConvNeXt's LayerNorm of the channels in dimension 1, between two permutes."""
    return _follow(call, 1)


def prelu(call: Call) -> Tensor:
    """PReLU: one slope for all channels, or one for each."""
    layer: Module = call.module
    if layer.num_parameters > 1:
        return _follow(call, 1)
    _record(call, "prelu", fixed(0), fixed(1))
    return Tensor(call.shape, call.x.dim, call.x.parts)


def _applied(call: Call, shape: tuple[int, ...], channels: int) -> int:
    """How often a layer applies its weight for one example.

    Tiles, frames or tokens may lie in the batch, and the batch may lie in any dimension. So all dimensions but that of
    the channels are counted, and divided by the batch where the operation depends on an input.
    """
    times = math.prod(shape) // max(shape[channels], 1)
    return times // BATCH if of_batch(call.node) else times


def _vectors(layer: Module, channels: int) -> int:
    """Parameters of a layer, beside its weight, with one number a channel: a bias, a gain."""
    own = layer.named_parameters(recurse=False)
    return sum(name != "weight" and value.numel() == channels for name, value in own)


def is_depthwise(module: Module) -> bool:
    """Whether a convolution has one group for each of its (several) input channels."""
    return bool(module.groups == module.in_channels > 1)


def _record(call: Call, kind: str, inputs: Parts, outputs: Parts, *, positions: int = 0) -> Record:
    """The record of the called layer; a second call of a layer ties its dimensions to those of the first."""
    name, records = str(call.node.target), call.reading.records
    if name not in records:
        vectors = sum(1 for _ in call.module.parameters(recurse=False)) if call.module else 0
        records[name] = Record(name, kind, inputs, outputs, vectors=vectors, level=call.level)
    else:
        call.reading.channels.unify(inputs, records[name].inputs, call.where)
    records[name].positions += positions
    return records[name]


def _produce(call: Call, kind: str, inputs: Parts, width: int, positions: int) -> Record:
    """The record of a layer that chooses its own output width."""
    name, records = str(call.node.target), call.reading.records
    if name in records:
        return _record(call, kind, inputs, records[name].outputs, positions=positions)
    part = call.reading.channels.new(width, name)
    record = _record(call, kind, inputs, (part,), positions=positions)
    record.variable = part.variable
    return record


def _follow(call: Call, dim: int) -> Tensor:
    """The record of a layer with numbers for each channel that leaves the channels as they are."""
    x = call.with_channels_in(dim)
    kind = "prelu" if isinstance(call.module, nn.PReLU) else "norm"
    record = _record(call, kind, fixed(0), x.along(dim))
    layer: Module = call.module
    record.vectors = sum(value.numel() == x.shape[dim] for value in layer.parameters(recurse=False))
    call.reading.channels.unify(x.along(dim), record.outputs, call.where)
    return Tensor(call.shape, dim, x.along(dim))


Rule = Callable[[Call], Tensor]


def rule_of(module: nn.Module) -> Rule | None:
    """What a module does to channels, if it is a layer with parameters that is known.

    A subclass of a known layer counts as that layer if it changes nothing but how the layer is made and shown.
    """
    kind = type(module)
    for one in kind.__mro__:
        if one is nn.Module:
            return None
        if (found := LAYERS.get(one) or NAMED.get(f"{one.__module__}.{one.__qualname__}")) is not None:
            return found
        if not _adds_nothing(one):
            return None
    return None


_HARMLESS = {"__init__", "__module__", "__doc__", "__qualname__", "__annotations__", "__constants__", "__parameters__",
             "__orig_bases__", "__firstlineno__", "__static_attributes__", "__dict__", "__weakref__", "__repr__",
             "__annotate_func__", "__annotations_cache__", "extra_repr", "reset_parameters"}  # fmt: skip
"""What a subclass may define without doing anything else in `forward`."""


@lru_cache(maxsize=1024)
def _adds_nothing(kind: type) -> bool:
    """Whether a class defines nothing that its bases have, so that `forward` does what theirs does."""
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)}
    return not (vars(kind).keys() - _HARMLESS) & inherited


LAYERS: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: convolution,
    nn.ConvTranspose2d: convolution,
    nn.ConvTranspose3d: convolution,
    nn.Linear: linear,
    nn.BatchNorm1d: norm,
    nn.BatchNorm2d: norm,
    nn.BatchNorm3d: norm,
    nn.InstanceNorm1d: norm,
    nn.InstanceNorm2d: norm,
    nn.InstanceNorm3d: norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.PReLU: prelu,
}

# Subclasses of these, with an activation behind a norm or another way to pad, by name: timm need not be installed, and
# torchvision takes as long to import as torch.
NAMED: dict[str, Rule] = {
    "torchvision.models.convnext.LayerNorm2d": layer_norm_2d,
    "timm.layers.norm_act.BatchNormAct2d": norm,
    "timm.layers.norm_act.GroupNormAct": group_norm,
    "timm.layers.norm_act.LayerNormAct": layer_norm,
    "timm.layers.norm_act.LayerNormAct2d": layer_norm_2d,
    "timm.layers.norm.GroupNorm": group_norm,
    "timm.layers.norm.GroupNorm1": group_norm,
    "timm.layers.norm.LayerNorm": layer_norm,
    "timm.layers.norm.LayerNorm2d": layer_norm_2d,
    "timm.layers.linear.Linear": linear,
    "timm.layers.conv2d_same.Conv2dSame": convolution,
    "timm.layers.std_conv.StdConv2d": convolution,
    "timm.layers.std_conv.StdConv2dSame": convolution,
    "timm.layers.std_conv.ScaledStdConv2d": convolution,
    "timm.layers.std_conv.ScaledStdConv2dSame": convolution,
}
