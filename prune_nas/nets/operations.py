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
from prune_nas.nets.nodes import shapes
from prune_nas.nets.reading import Call, Number, Pieces, Tensor

Rule = Callable[[Call], Tensor]


def keep(call: Call) -> Tensor:
    """Element-wise: every dimension stays what it was. Only `to` and `type_as` take a second tensor, for its type."""
    if len(call.x.shape) != len(call.shape) or (len(call.tensors) > 1 and call.node.target not in ("to", "type_as")):
        return call.unknown()
    return replace(call.x, shape=call.shape)


def pool(call: Call) -> Tensor:
    """Pooling and resizing change only the dimensions after the channels.

    A pool of one dimension reads a tensor (N, C) as channels and places, so that it pools over features.
    """
    if len(call.x.shape) != len(call.shape) or call.x.shape[:2] != call.shape[:2]:
        return call.unknown()
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


def extreme(call: Call) -> Tensor:
    """`max` and `min`: of two tensors element by element, or over all of one."""
    return binary(call) if len(call.tensors) > 1 else reduce(call)


def stack(call: Call) -> Tensor:
    """Tensors of one shape in a new dimension: the channels are the same."""
    tensors, dim = call.tensors, call.arg(1, "dim", 0)
    homes = {one.dim for one in tensors if one.dim is not None and _is_free(call, one)}
    if len(homes) != 1 or not isinstance(dim, int):
        return call.unknown()
    (home,) = homes
    for other in tensors[1:]:
        call.reading.channels.unify(tensors[0].along(home), other.along(home), call.where)
    return Tensor(call.shape, home + (dim % len(call.shape) <= home), tensors[0].along(home))


def unsqueeze(call: Call) -> Tensor:
    """A new dimension of size 1."""
    x, dim = call.x, call.arg(1, "dim", None)
    if x.dim is None or not isinstance(dim, int):
        return call.unknown()
    return replace(x, shape=call.shape, dim=x.dim + (dim % len(call.shape) <= x.dim))


def squeeze(call: Call) -> Tensor:
    """Dimensions of size 1 go: those that are named, or all."""
    x, dims = call.x, call.arg(1, "dim", None)
    if x.dim is None or x.shape[x.dim] == 1:
        return call.unknown()
    named = range(len(x.shape)) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    gone = {dim % len(x.shape) for dim in named if x.shape[dim] == 1}
    return replace(x, shape=call.shape, dim=x.dim - sum(dim < x.dim for dim in gone))


def expand(call: Call) -> Tensor:
    """Dimensions of size 1 are repeated, to sizes that are read from a tensor or are the same at every width."""
    x, sizes = call.x, call.args[1:] or (call.kwargs.get("size", ()),)
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = tuple(sizes[0])
    ahead = len(call.shape) - len(x.shape)
    if len(sizes) != len(call.shape):
        return call.unknown()
    home = None if x.dim is None or not _is_free(call, x) else x.dim + ahead
    met = [x.parts] if home is not None else []
    for dim, size in enumerate(sizes):
        parts = size.parts if isinstance(size, Number) and size.variables else None
        if parts is None:
            if (isinstance(size, Number) and size.variables) or (dim == home and not _stays(size)):
                return call.unknown()
            continue
        if home not in (None, dim) or (dim >= ahead and dim != home and x.shape[dim - ahead] != 1):
            return call.unknown()
        home = dim
        met.append(parts)
    if home is None:
        return Tensor(call.shape)
    if len(met) > 1 and x.dim is not None and x.shape[x.dim] == call.shape[home]:
        call.reading.channels.unify(met[0], met[1], call.where)
    return Tensor(call.shape, home, met[-1])


def _stays(size: Any) -> bool:
    """Whether a size of `expand` leaves a dimension as it is at every width."""
    return not isinstance(size, Number) and size == -1


def make(call: Call) -> Tensor:
    """A tensor of sizes, of which one may be that of a dimension of channels."""
    leaves = [leaf for one in call.args for leaf in (one if isinstance(one, (tuple, list)) else (one,))]
    wide = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Number) and leaf.variables]
    if len(wide) != 1 or len(leaves) < len(call.shape):
        return call.unknown()
    parts = leaves[wide[0]].parts
    return Tensor(call.shape, wide[0], parts) if parts is not None and wide[0] < len(call.shape) else call.unknown()


def glu(call: Call) -> Tensor:
    """The first half of a dimension, gated by the second half."""
    dim = call.module.dim if isinstance(call.module, nn.GLU) else call.arg(1, "dim", -1)
    halves = _cut(call, 2, dim)
    return halves.tensors[0] if halves is not None else call.unknown()


def pixel_shuffle(call: Call) -> Tensor:
    """Each `factor` squared channels in a row become the places of one."""
    x, factor = call.with_channels_in(1), _factor(call, "upscale_factor")
    if x.dim is None or not isinstance(factor, int):
        return call.unknown()
    parts = call.reading.channels.gather(x.parts, factor**2, call.where)
    return Tensor(call.shape, 1, parts) if parts is not None else call.unknown()


def pixel_unshuffle(call: Call) -> Tensor:
    """The places of a square become channels in a row."""
    x, factor = call.with_channels_in(1), _factor(call, "downscale_factor")
    if x.dim is None or not isinstance(factor, int):
        return call.unknown()
    return Tensor(call.shape, 1, _repeat(x.parts, factor**2))


def _factor(call: Call, name: str) -> Any:
    return getattr(call.module, name) if call.module is not None else call.arg(1, name, None)


def attribute(call: Call) -> Tensor:
    """What is read from a tensor and is a tensor itself: its transpose, its data."""
    name, order = call.args[1], list(range(len(call.x.shape)))
    if name == "data":
        return keep(call)
    if name not in ("T", "mT") or (name == "T" and len(order) != 2):
        return call.unknown()
    return _moved(call, [*order[:-2], order[-1], order[-2]])


def unmoved(call: Call) -> Tensor:
    """Along dimensions that hold no channels: every channel stays where it was."""
    x, dims = call.x, call.arg(1, "dims", call.arg(1, "dim", None))
    named = [dims] if isinstance(dims, int) else dims
    if x.dim is None or not isinstance(named, (list, tuple)) or x.dim in {dim % len(x.shape) for dim in named}:
        return call.unknown()
    return replace(x, shape=call.shape)


def rolled(call: Call) -> Tensor:
    """Turned round along dimensions that hold no channels."""
    return unmoved(replace(call, args=(call.args[0], call.arg(2, "dims", None))))


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
    wanted = sizes[x.dim]
    if any(isinstance(one, Number) and one.variables for one in sizes if one is not wanted):
        return call.unknown()
    flat = _repeat(x.parts, math.prod(x.shape[x.dim + 1 :]))
    if new[x.dim] == x.shape[x.dim] and len(new) > x.dim and _computed(call, wanted, x.parts):
        return replace(x, shape=new)
    if len(new) == x.dim + 1 and _computed(call, wanted, flat):
        return Tensor(new, x.dim, flat)
    return call.unknown()


def _computed(call: Call, size: Any, parts: Parts) -> bool:
    """Whether a size is that of `parts` at every width: left to torch (-1), or read from a tensor.

    A size that is read from another tensor demands that both are equal, as the gate of a map demands it that is
    brought to the map's number of channels.
    """
    if not isinstance(size, Number):
        return bool(size == -1)
    if size.parts is None:
        return False
    channels = call.reading.channels
    if not channels.same(size.parts, parts) and size.divisor == 1:
        if sum(map(channels.size, size.parts)) != sum(map(channels.size, parts)):
            return False
        channels.unify(size.parts, parts, call.where)
    return channels.same(size.parts, parts) and size.divisor == 1


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
            if isinstance(k, slice) and k != slice(None) and (half := _half(call, k)) is not None:
                return Tensor(call.shape, home, half)
            return replace(x, shape=call.shape, dim=home) if k == slice(None) else call.unknown()
        home += not isinstance(k, int)
        source += k is not None
    return replace(x, shape=call.shape, dim=home + x.dim - source)


def _half(call: Call, key: slice) -> Parts | None:
    """The half of the channels that a slice takes whose end is half their number; None for any other slice."""
    ends = [end for end in (key.start, key.stop) if end is not None]
    if len(ends) != 1 or key.step is not None:
        return None
    (end,) = ends
    channels = call.reading.channels
    if not (isinstance(end, Number) and end.divisor == 2 and end.parts and channels.same(end.parts, call.x.parts)):
        return None
    first, second = channels.cut(call.x.parts, 2, call.where)
    return first if key.start is None else second


def repeat(call: Call) -> Tensor:
    """Copies behind each other along dimensions that hold no channels."""
    x, times = call.x, call.args[1:]
    if len(times) == 1 and isinstance(times[0], Sequence):
        times = tuple(times[0])
    if x.dim is None or len(times) != len(x.shape) or times[x.dim] != 1:
        return call.unknown()
    return replace(x, shape=call.shape)


def movedim(call: Call) -> Tensor:
    """One dimension changes its place, the others keep their order."""
    order = list(range(len(call.x.shape)))
    source, target = call.arg(1, "source", None), call.arg(2, "destination", None)
    if not isinstance(source, int) or not isinstance(target, int):
        return call.unknown()
    moved = order.pop(source)
    order.insert(target % len(call.shape), moved)
    return _moved(call, order)


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
    return _cut(call, call.arg(1, "chunks", call.kwargs.get("sections")), call.arg(2, "dim", 0)) or number(call)


def split(call: Call) -> Pieces | Number:
    """Pieces of another dimension; of the channels where their size is computed from the number of channels."""
    x, size, dim = call.x, call.arg(1, "split_size_or_sections", call.arg(1, "split_size", None)), call.arg(2, "dim", 0)
    if x.dim is None or not isinstance(dim, int):
        return number(call)
    if dim % len(x.shape) != x.dim:
        return Pieces(tuple(replace(x, shape=one) for one in shapes(call.node) or ()))
    if isinstance(size, Number) and size.parts is not None and call.reading.channels.same(size.parts, x.parts):
        return _cut(call, size.divisor, dim) or number(call)
    return number(call)


def unbind(call: Call) -> Pieces | Number:
    """The places of a dimension, each by itself."""
    x, dim = call.x, call.arg(1, "dim", 0)
    if x.dim is None or not isinstance(dim, int) or dim % len(x.shape) == x.dim:
        return number(call)
    home = x.dim - (dim % len(x.shape) < x.dim)
    return Pieces(tuple(replace(x, shape=one, dim=home) for one in shapes(call.node) or ()))


def extremes(call: Call) -> Pieces | Number:
    """`max`, `min` and the like over a dimension: the values and their places."""
    if call.x.dim is None or call.arg(1, "dim", None) is None:
        return number(call)
    return Pieces(tuple(reduce(replace(call, shape=one)) for one in shapes(call.node) or ()))


def _cut(call: Call, count: Any, dim: Any) -> Pieces | None:
    """Equal pieces of a dimension; None where that cannot be followed."""
    x = call.x
    if x.dim is None or not isinstance(count, int) or not isinstance(dim, int) or x.shape[dim] % count:
        return None
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
        parts, divisor = _multiple(call)
        return Number(call.sizes, parts=parts, divisor=divisor)
    if target is getattr:
        return Number(call.variables, first) if call.args[1] == "shape" else Number()
    if target == "size":
        dim = call.arg(1, "dim", None)
        return Number(call.variables, first) if dim is None else _size(call, first, dim)
    if target not in _HARMLESS:
        call.unknown()
    return Number()


def _size(call: Call, x: Tensor, key: Any) -> Number:
    """One size of `x`, or a slice of its shape."""
    places = range(len(x.shape))
    known = isinstance(key, slice) and all(end is None or isinstance(end, int) for end in (key.start, key.stop))
    picked = [places[key]] if isinstance(key, int) else places[key] if known else places
    own = x.parts if isinstance(key, int) and places[key] == x.dim else None
    return Number(call.reading.channels.free(x.parts) if x.dim in picked else frozenset(), parts=own)


def _multiple(call: Call) -> tuple[Parts | None, int]:
    """The parts of a channel dimension's size times a whole number, and what it is divided by; None for the rest."""
    target = call.node.target
    if target not in (operator.mul, operator.floordiv) or len(call.args) != 2:
        return None, 1
    size, times = call.args if target is operator.floordiv else sorted(call.args, key=lambda one: isinstance(one, int))
    if not (isinstance(size, Number) and size.parts is not None and isinstance(times, int) and times > 0):
        return None, 1
    if target is operator.floordiv:
        return size.parts, size.divisor * times
    return (_repeat(size.parts, times), 1) if size.divisor == 1 else (None, 1)


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


_ACTIVATIONS = (
    "relu relu6 hardtanh silu gelu sigmoid tanh hardsigmoid hardswish leaky_relu elu selu celu mish softplus softsign "
    "logsigmoid hardshrink softshrink tanhshrink threshold"
)
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_POOLS += ["lp_pool1d", "lp_pool2d", "lp_pool3d"]
_BINARIES = "add sub mul div true_divide maximum minimum pow fmod remainder atan2 floor_divide eq ne lt le gt ge"
_BINARIES += " logical_and logical_or logical_xor masked_fill where"
_UNARIES = (
    "abs neg exp expm1 log log1p log2 sqrt rsqrt square reciprocal sign sin cos erf round floor ceil trunc frac "
    "nan_to_num isnan isinf isfinite logical_not relu sigmoid tanh clamp clamp_min clamp_max softmax log_softmax clone"
)
_LIKES = "zeros_like ones_like full_like empty_like"
_METHODS = (
    "contiguous detach float double half bfloat16 long int bool to type type_as relu_ sigmoid_ tanh_ clamp_ cpu "
    "requires_grad_"
)
_HARMLESS = ("dim", "ndimension", "is_floating_point", "is_complex", "is_contiguous")
"""Methods that give a number or a truth that is the same at every width."""
_REDUCTIONS = "mean sum amax amin var std prod logsumexp"

FUNCTIONS: dict[Any, Rule] = {
    **_table(keep, *(getattr(F, name) for name in [*_ACTIVATIONS.split(), *_DROPOUTS.split(), "softmax", "normalize"])),
    **_table(keep, *(getattr(torch, name) for name in (*_UNARIES.split(), *_LIKES.split())), F.log_softmax),
    **_table(keep, torch.relu_, F.relu_, operator.neg, operator.abs, operator.invert),
    **_table(pool, *(getattr(F, name) for name in _POOLS), F.interpolate),
    **_table(binary, *(getattr(torch, name) for name in _BINARIES.split())),
    **_table(binary, operator.add, operator.sub, operator.mul, operator.truediv, operator.pow),
    **_table(binary, operator.iadd, operator.isub, operator.imul, operator.itruediv),
    **_table(binary, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    **_table(binary, operator.mod, operator.floordiv, operator.and_, operator.or_, operator.xor),
    **_table(extreme, torch.max, torch.min),
    **_table(stack, torch.stack),
    **_table(unsqueeze, torch.unsqueeze),
    **_table(squeeze, torch.squeeze),
    **_table(make, torch.zeros, torch.ones, torch.full, torch.empty),
    **_table(glu, F.glu),
    **_table(pixel_shuffle, F.pixel_shuffle),
    **_table(pixel_unshuffle, F.pixel_unshuffle),
    **_table(unmoved, torch.flip, torch.cumsum),
    **_table(rolled, torch.roll),
    **_table(attribute, getattr),
    **_table(cat, torch.cat, torch.concat),
    **_table(shuffle, F.channel_shuffle, torch.channel_shuffle),
    **_table(flatten, torch.flatten),
    **_table(view, torch.reshape),
    **_table(pad, F.pad),
    **_table(reduce, *(getattr(torch, name) for name in _REDUCTIONS.split())),
    **_table(permute, torch.permute),
    **_table(transpose, torch.transpose, torch.swapaxes, torch.swapdims),
    **_table(movedim, torch.movedim, torch.moveaxis),
    **_table(index, operator.getitem),
}

# By name, since torchvision takes as long to import as torch.
NAMED_FUNCTIONS: dict[str, Rule] = {
    "torchvision.models.shufflenetv2.channel_shuffle": shuffle,
    "torchvision.ops.stochastic_depth.stochastic_depth": keep,
}

METHODS: dict[str, Rule] = {
    **_table(keep, *_METHODS.split(), *_UNARIES.split()),
    **_table(binary, "expand_as", *_BINARIES.split(), *(f"{name}_" for name in _BINARIES.split())),
    **_table(extreme, "max", "min"),
    **_table(unsqueeze, "unsqueeze"),
    **_table(squeeze, "squeeze"),
    **_table(expand, "expand"),
    **_table(unmoved, "flip", "cumsum"),
    **_table(rolled, "roll"),
    **_table(flatten, "flatten"),
    **_table(view, "view", "reshape"),
    **_table(reduce, *_REDUCTIONS.split()),
    **_table(permute, "permute"),
    **_table(transpose, "transpose", "swapaxes", "swapdims"),
    **_table(movedim, "movedim", "moveaxis"),
    **_table(repeat, "repeat"),
}

_ACTIVATION_MODULES = (
    "Identity ReLU ReLU6 Hardtanh SiLU GELU Sigmoid Tanh Hardsigmoid Hardswish LeakyReLU ELU SELU CELU Mish Softplus "
    "Softmax LogSoftmax Softmax2d Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout Softsign "
    "LogSigmoid Hardshrink Softshrink Tanhshrink Threshold RReLU"
)
_POOL_MODULES = [f"{kind}Pool{n}d" for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for n in (1, 2, 3)] + [
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
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
    **_table(glu, nn.GLU),
    **_table(pixel_shuffle, nn.PixelShuffle),
    **_table(pixel_unshuffle, nn.PixelUnshuffle),
}

# What gives several tensors at once.
PIECES: dict[Any, Callable[[Call], Pieces | Number]] = {
    **dict.fromkeys((torch.chunk, "chunk", torch.tensor_split, "tensor_split"), chunk),
    **dict.fromkeys((torch.split, "split"), split),
    **dict.fromkeys((torch.unbind, "unbind"), unbind),
    **dict.fromkeys((torch.max, torch.min, torch.median, "max", "min", "median"), extremes),
}

# The rules through which a parameter with one number a channel stays one.
VECTOR_RULES = (view, index)

# The rules for which a width may come in as a number: as a size that `view` checks, or as a mere factor.
SIZE_RULES = (binary, view, expand, make, index)
