"""The state of one reading of a graph: what each operation gave, and the layers met so far."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx, nn

from prune_nas.nets.channels import Channels, Part, Parts, fixed

PARAMETER = "parameter"  # the kind of a bare parameter with one number a channel, such as ConvNeXt's layer_scale


@dataclass(frozen=True)
class Tensor:
    """A tensor of the forward pass: its shape at batch 2, and the dimension that holds channels, if it has one.

    Without such a dimension (`dim` None) every size is constant. Only `dim` may have free parts. `parameter` is the
    name of the network's own tensor that it is, if it is one.
    """

    shape: tuple[int, ...]
    dim: int | None = None
    parts: Parts = ()
    parameter: str | None = None

    def along(self, dim: int) -> Parts:
        """The parts of dimension `dim`."""
        return self.parts if dim == self.dim else fixed(self.shape[dim])


@dataclass(frozen=True)
class Number:
    """Anything that is not a tensor: a size, a shape, a tuple. `variables` are the free widths it depends on.

    `shape_of` is set for the whole shape of a tensor, so that picking the batch from it depends on nothing; `parts` for
    the size of a dimension of channels, or a whole number of times that, divided by `divisor` without a rest.
    """

    variables: frozenset[int] = frozenset()
    shape_of: Tensor | None = None
    parts: Parts | None = None
    divisor: int = 1


@dataclass(frozen=True)
class Pieces:
    """Several tensors at once, as `chunk` gives them."""

    tensors: tuple[Tensor, ...]


@dataclass
class Record:
    """One layer with parameters, as `prune_nas.design.space.Layer` but with parts in the place of extents.

    `spatial` is the shape of its (first) output without batch and channels, `level` the number of conv and linear
    layers on the longest path that ends with it; `variable` the width that it produces, None for a follower.
    """

    name: str
    kind: str
    inputs: Parts
    outputs: Parts
    kernel: int = 0
    positions: int = 0
    groups: int = 1
    vectors: int = 0
    spatial: tuple[int, ...] = ()
    level: int = 0
    variable: int | None = None


@dataclass
class Reading:
    """Everything that is known of a network so far; `parameters` are the names of all that it has."""

    parameters: frozenset[str] = frozenset()
    channels: Channels = field(default_factory=Channels)
    records: dict[str, Record] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    """How often an operation takes each parameter that is read directly."""
    carries: Counter[str] = field(default_factory=Counter)
    """How often it does so as one number a channel, element by element."""


@dataclass(frozen=True)
class Call:
    """One operation, with its arguments already read.

    `shape` is the shape of the result, `level` as in `Record`, `where` names the operation and its source line.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    module: nn.Module | None
    level: int
    where: str
    reading: Reading

    @property
    def x(self) -> Tensor:
        """The first argument."""
        found = self.arg(0, "input", None)
        return found if isinstance(found, Tensor) else Tensor(())

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, those in lists included."""
        return [one for one in _flat([self.args, self.kwargs]) if isinstance(one, Tensor)]

    @property
    def sizes(self) -> frozenset[int]:
        """The free variables that any argument depends on through a size that was read from a tensor."""
        numbers = [one for one in _flat([self.args, self.kwargs]) if isinstance(one, Number)]
        found = tuple(Part(variable, 1) for one in numbers for variable in one.variables)
        return self.reading.channels.free(found)

    @property
    def variables(self) -> frozenset[int]:
        """The free variables that any argument has or depends on."""
        return self.sizes.union(*(self.reading.channels.free(one.parts) for one in self.tensors))

    def carried(self, x: Tensor, dim: int, parts: Parts) -> Parts:
        """The parts of dimension `dim` of `x` where it meets `parts`: a parameter with one number each follows them."""
        width = x.shape[dim]
        if x.parameter not in self.reading.parameters or width == 1 or math.prod(x.shape) != width:
            return x.along(dim)
        records = self.reading.records
        self.reading.carries[x.parameter] += 1
        if x.parameter not in records:
            records[x.parameter] = Record(x.parameter, PARAMETER, fixed(0), parts, vectors=1, level=self.level)
        return records[x.parameter].outputs

    def arg(self, index: int, name: str, default: Any) -> Any:
        """An argument by position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def freeze(self, reason: str) -> Tensor:
        """Freeze every variable involved; the result has constant sizes."""
        self.reading.channels.freeze(tuple(Part(variable, 1) for variable in self.variables), f"{reason}: {self.where}")
        return Tensor(self.shape)

    def unknown(self) -> Tensor:
        """Freeze, because no rule says what becomes of the channels here."""
        return self.freeze("meets an operation that the tracer does not follow")

    def with_channels_in(self, dim: int) -> Tensor:
        """The first argument, if its channels are where the operation expects them; otherwise it is frozen."""
        x = self.x
        if x.dim is None or x.dim == dim:
            return x
        self.freeze(f"its channels are in dimension {x.dim}, where this operation does not expect them")
        return replace(x, dim=None, parts=())


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return _flat(list(value.values()))
    if isinstance(value, Pieces):
        return list(value.tensors)
    if isinstance(value, slice):
        return _flat([value.start, value.stop, value.step])
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]
