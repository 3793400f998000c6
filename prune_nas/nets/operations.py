"""What each operation without parameters does to the channels of a tensor.

The tables at the end are the whole knowledge: an operation that is not there freezes every width it meets. A rule
returns the result as a `Tensor`, or calls `unknown` for arguments that it does not follow.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from prune_nas.nets.channels import Part, Parts
from prune_nas.nets.reading import Call, Number, Pieces, Tensor

Rule = Callable[[Call], Tensor]


def keep(call: Call) -> Tensor:
    """Element-wise: every dimension stays what it was. Only `to` and `type_as` take a second tensor, for its type."""
    if len(call.x.shape) != len(call.shape) or (len(call.tensors) > 1 and call.node.target not in ("to", "type_as")):
        return call.unknown()
    return replace(call.x, shape=call.shape)


def pool(call: Call) -> Tensor:
    """Pooling and resizing change only the dimensions after the channels."""
    return replace(call.with_channels_in(1), shape=call.shape)


def binary(call: Call) -> Tensor:
    """Two tensors, broadcast from the right: their channels are the same. With a number: element-wise."""
    tensors, n = call.tensors, len(call.shape)
    homes = {one.dim + n - len(one.shape) for one in tensors if one.dim is not None and _is_free(call, one)}
    if not homes:
        return Tensor(call.shape)
    if len(homes) != 1:
        return call.freeze("meets channels in another dimension")
    (home,) = homes
    met: list[Parts] = []
    for one in sorted(tensors, key=lambda one: one.parameter is not None):
        dim = home - (n - len(one.shape))
        if dim < 0:
            continue
        if one.shape[dim] == call.shape[home]:
            met.append(call.carried(one, dim, met[0]) if met else one.along(dim))
        else:
            call.reading.channels.freeze(one.along(dim), f"its one channel is broadcast over others: {call.where}")
    for other in met[1:]:
        call.reading.channels.unify(met[0], other, call.where)
    return Tensor(call.shape, home, met[0])


def cat(call: Call) -> Tensor:
    """Along the channels: one after the other. Along another dimension: the channels are the same."""
    tensors, dim = call.tensors, call.arg(1, "dim", call.kwargs.get("axis", 0))
    homes = {one.dim for one in tensors if one.dim is not None and _is_free(call, one)}
    if len(homes) != 1 or not isinstance(dim, int):
        return call.unknown()
    (home,) = homes
    if dim % len(call.shape) == home:
        return Tensor(call.shape, home, tuple(part for one in tensors for part in one.along(home)))
    for other in tensors[1:]:
        call.reading.channels.unify(tensors[0].along(home), other.along(home), call.where)
    return Tensor(call.shape, home, tensors[0].along(home))


def flatten(call: Call) -> Tensor:
    """Merge dimensions: each channel then stands as many times in a row as there were places behind it."""
    x = call.x
    if isinstance(call.module, nn.Flatten):
        start, end = call.module.start_dim, call.module.end_dim
    else:
        start, end = call.arg(1, "start_dim", 0), call.arg(2, "end_dim", -1)
    start, end = start % len(x.shape), end % len(x.shape)
    if x.dim is None or x.dim < start:
        return replace(x, shape=call.shape)
    if x.dim > end:
        return replace(x, shape=call.shape, dim=x.dim - (end - start))
    if math.prod(x.shape[start : x.dim]) != 1:
        return call.unknown()
    return Tensor(call.shape, start, _repeat(x.parts, math.prod(x.shape[x.dim + 1 : end + 1])))


def view(call: Call) -> Tensor:
    """The reshapes that keep the channels in place, or flatten from the channels on, with computed sizes.

    A literal size where the channels are would be wrong at every other width, so it is not followed.
    """
    x, new = call.x, call.shape
    sizes = call.args[1:] or (call.kwargs.get("shape", ()),)
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = tuple(sizes[0])
    if x.dim is None or x.dim >= len(sizes) or new[: x.dim] != x.shape[: x.dim]:
        return call.unknown()
    wanted, mine = sizes[x.dim], call.reading.channels.free(x.parts)
    if call.sizes - mine or any(isinstance(one, Number) and one.variables for one in sizes if one is not wanted):
        return call.unknown()
    flat = _repeat(x.parts, math.prod(x.shape[x.dim + 1 :]))
    if new[x.dim] == x.shape[x.dim] and len(new) > x.dim and _computed(call, wanted, x.parts):
        return replace(x, shape=new)
    if len(new) == x.dim + 1 and _computed(call, wanted, flat):
        return Tensor(new, x.dim, flat)
    return call.unknown()


def _computed(call: Call, size: Any, parts: Parts) -> bool:
    """Whether a size is that of `parts` at every width: left to torch (-1), or read from a tensor."""
    if not isinstance(size, Number):
        return bool(size == -1)
    return size.parts is not None and call.reading.channels.same(size.parts, parts)


def pad(call: Call) -> Tensor:
    """Zeros before and after the channels are constant channels."""
    x, amounts = call.x, call.arg(1, "pad", ())
    if x.dim is None or not isinstance(amounts, Sequence):
        return call.unknown()
    pair = 2 * (len(x.shape) - 1 - x.dim)  # torch pads from the last dimension backwards
    before, after = amounts[pair : pair + 2] if pair + 1 < len(amounts) else (0, 0)
    if not isinstance(before, int) or not isinstance(after, int) or min(before, after) < 0:
        return call.unknown()
    if (before or after) and call.arg(2, "mode", "constant") != "constant":
        return call.unknown()
    head = (Part(None, before),) if before else ()
    tail = (Part(None, after),) if after else ()
    return Tensor(call.shape, x.dim, head + x.parts + tail)


def reduce(call: Call) -> Tensor:
    """Means, sums and the like: the reduced dimensions go, or stay with size 1."""
    x, dims = call.x, call.arg(1, "dim", call.kwargs.get("axis"))
    if x.dim is None or dims is None:
        return Tensor(call.shape)
    if isinstance(dims, bool):  # the `unbiased` of var and std
        return call.unknown()
    gone = {dim % len(x.shape) for dim in ([dims] if isinstance(dims, int) else dims)}
    if x.dim in gone:
        return Tensor(call.shape)
    if len(call.shape) == len(x.shape):
        return replace(x, shape=call.shape)
    return replace(x, shape=call.shape, dim=x.dim - sum(dim < x.dim for dim in gone))


def permute(call: Call) -> Tensor:
    """The channels move with their dimension."""
    dims = call.args[1:] or (call.kwargs["dims"],)
    order = list(dims[0]) if isinstance(dims[0], Sequence) else list(dims)
    return _moved(call, order)


def transpose(call: Call) -> Tensor:
    """Two dimensions change places."""
    order = list(range(len(call.x.shape)))
    a, b = call.arg(1, "dim0", 0), call.arg(2, "dim1", 0)
    order[a], order[b] = order[b], order[a]
    return _moved(call, order)


def index(call: Call) -> Tensor:
    """Slices and single places of the other dimensions; every channel is kept."""
    x, key = call.x, call.args[1]
    keys = list(key) if isinstance(key, tuple) else [key]
    if x.dim is None or not all(k is None or k is Ellipsis or isinstance(k, (int, slice)) for k in keys):
        return call.unknown()
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        named = sum(k is not None and k is not Ellipsis for k in keys)
        keys[at : at + 1] = [slice(None)] * (len(x.shape) - named)
    home, source = 0, 0
    for k in keys:
        if source == x.dim and k is not None:
            return replace(x, shape=call.shape, dim=home) if k == slice(None) else call.unknown()
        home += not isinstance(k, int)
        source += k is not None
    return replace(x, shape=call.shape, dim=home + x.dim - source)


def is_vector(call: Call) -> bool:
    """Whether a parameter with one number a channel only gets dimensions of size 1, as in `gamma.view(1, -1, 1, 1)`.

    Sizes that are written out would be wrong at every other width.
    """
    arguments = call.args[1:] or tuple(call.kwargs.values())
    leaves = [leaf for one in arguments for leaf in (one if isinstance(one, (tuple, list)) else (one,))]
    harmless = all(leaf is None or leaf is Ellipsis or leaf in (1, -1, slice(None)) for leaf in leaves)
    vector = math.prod(call.x.shape) == math.prod(call.shape) == max(call.shape, default=0)
    return harmless and vector


def chunk(call: Call) -> Pieces | Number:
    """Equal pieces: of another dimension, with the channels whole; of the channels, which are cut."""
    x, count, dim = call.x, call.arg(1, "chunks", None), call.arg(2, "dim", 0)
    if x.dim is None or not isinstance(count, int) or not isinstance(dim, int) or x.shape[dim] % count:
        return number(call)
    dim %= len(x.shape)
    shape = tuple(size // count if i == dim else size for i, size in enumerate(x.shape))
    if dim != x.dim:
        return Pieces((replace(x, shape=shape),) * count)
    cut = call.reading.channels.cut(x.parts, count, call.where)
    return Pieces(tuple(Tensor(shape, x.dim, parts) for parts in cut))


def shuffle(call: Call) -> Tensor:
    """Channel shuffle: the channels of equal pieces take turns, so that each stands as many times in a row."""
    x = call.with_channels_in(1)
    groups = call.module.groups if isinstance(call.module, nn.ChannelShuffle) else call.arg(1, "groups", None)
    if x.dim is None or not isinstance(groups, int):
        return call.unknown()
    pieces = call.reading.channels.cut(x.parts, groups, call.where)
    if len(pieces[0]) != 1:
        return call.unknown()
    return Tensor(call.shape, 1, _repeat(pieces[0], groups))


def number(call: Call) -> Number:
    """What gives no tensor: sizes and arithmetic on them, which remember the widths that they depend on.

    Several tensors at once, but for those from `chunk`, are not followed.
    """
    first, target = call.arg(0, "input", None), call.node.target
    if isinstance(first, Number) and first.shape_of is not None and target is operator.getitem:
        return _size(call, first.shape_of, call.args[1])
    if not isinstance(first, Tensor):
        if call.tensors:
            call.unknown()
        return Number(call.sizes, parts=_multiple(call))
    if target is getattr:
        return Number(call.variables, first) if call.args[1] == "shape" else Number()
    if target == "size":
        dim = call.arg(1, "dim", None)
        return Number(call.variables, first) if dim is None else _size(call, first, dim)
    if target not in ("dim", "is_floating_point"):
        call.unknown()
    return Number()


def _size(call: Call, x: Tensor, key: Any) -> Number:
    """One size of `x`, or a slice of its shape."""
    places = range(len(x.shape))
    known = isinstance(key, slice) and all(end is None or isinstance(end, int) for end in (key.start, key.stop))
    picked = [places[key]] if isinstance(key, int) else places[key] if known else places
    own = x.parts if isinstance(key, int) and places[key] == x.dim else None
    return Number(call.reading.channels.free(x.parts) if x.dim in picked else frozenset(), parts=own)


def _multiple(call: Call) -> Parts | None:
    """The parts of a channel dimension's size times a whole number; None for any other arithmetic."""
    if call.node.target is not operator.mul or len(call.args) != 2:
        return None
    size, times = sorted(call.args, key=lambda one: isinstance(one, int))
    known = isinstance(size, Number) and size.parts is not None and isinstance(times, int) and times > 0
    return _repeat(size.parts, times) if known else None


def _is_free(call: Call, x: Tensor) -> bool:
    return bool(call.reading.channels.free(x.parts))


def _repeat(parts: Parts, times: int) -> Parts:
    return tuple(Part(part.variable, part.times * times) for part in parts)


def _moved(call: Call, order: Sequence[int]) -> Tensor:
    x = call.x
    places = [dim % len(x.shape) for dim in order]
    return replace(x, shape=call.shape, dim=None if x.dim is None else places.index(x.dim))


def _table(rule: Rule, *keys: Any) -> dict[Any, Rule]:
    return dict.fromkeys(keys, rule)


_ACTIVATIONS = "relu relu6 hardtanh silu gelu sigmoid tanh hardsigmoid hardswish leaky_relu elu selu celu mish softplus"
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout"
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_BINARIES = "add sub mul div true_divide maximum minimum pow"
_UNARIES = "abs neg exp log sqrt rsqrt square relu sigmoid tanh clamp clamp_min clamp_max softmax log_softmax clone"
_METHODS = "contiguous detach float double half to type_as relu_ sigmoid_ tanh_ clamp_"
_REDUCTIONS = "mean sum amax amin var std"

FUNCTIONS: dict[Any, Rule] = {
    **_table(keep, *(getattr(F, name) for name in [*_ACTIVATIONS.split(), *_DROPOUTS.split(), "softmax", "normalize"])),
    **_table(keep, *(getattr(torch, name) for name in _UNARIES.split()), torch.relu_, F.relu_, operator.neg),
    **_table(pool, *(getattr(F, name) for name in _POOLS), F.interpolate),
    **_table(binary, *(getattr(torch, name) for name in _BINARIES.split())),
    **_table(binary, operator.add, operator.sub, operator.mul, operator.truediv, operator.pow),
    **_table(binary, operator.iadd, operator.isub, operator.imul, operator.itruediv),
    **_table(cat, torch.cat, torch.concat),
    **_table(shuffle, F.channel_shuffle, torch.channel_shuffle),
    **_table(flatten, torch.flatten),
    **_table(view, torch.reshape),
    **_table(pad, F.pad),
    **_table(reduce, *(getattr(torch, name) for name in _REDUCTIONS.split())),
    **_table(permute, torch.permute),
    **_table(transpose, torch.transpose),
    **_table(index, operator.getitem),
}

# By name, since torchvision takes as long to import as torch.
NAMED_FUNCTIONS: dict[str, Rule] = {
    "torchvision.models.shufflenetv2.channel_shuffle": shuffle,
    "torchvision.ops.stochastic_depth.stochastic_depth": keep,
}

METHODS: dict[str, Rule] = {
    **_table(keep, *_METHODS.split(), *_UNARIES.split()),
    **_table(binary, *_BINARIES.split(), *(f"{name}_" for name in _BINARIES.split())),
    **_table(flatten, "flatten"),
    **_table(view, "view", "reshape"),
    **_table(reduce, *_REDUCTIONS.split()),
    **_table(permute, "permute"),
    **_table(transpose, "transpose"),
}

_ACTIVATION_MODULES = (
    "Identity ReLU ReLU6 Hardtanh SiLU GELU Sigmoid Tanh Hardsigmoid Hardswish LeakyReLU ELU SELU CELU Mish Softplus "
    "Softmax LogSoftmax Dropout Dropout1d Dropout2d Dropout3d AlphaDropout"
)
_POOL_MODULES = [f"{kind}Pool{n}d" for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for n in (1, 2, 3)] + [
    "Upsample",
    "UpsamplingNearest2d",
    "UpsamplingBilinear2d",
    "ZeroPad2d",
    "ReflectionPad2d",
    "ReplicationPad2d",
]

MODULES: dict[type[nn.Module], Rule] = {
    **_table(keep, *(getattr(nn, name) for name in _ACTIVATION_MODULES.split())),
    **_table(pool, *(getattr(nn, name) for name in _POOL_MODULES)),
    **_table(flatten, nn.Flatten),
    **_table(shuffle, nn.ChannelShuffle),
}

# The rules through which a parameter with one number a channel stays one.
VECTOR_RULES = (view, index)

# The rules for which a width may come in as a number: as a size that `view` checks, or as a mere factor.
SIZE_RULES = (binary, view)
