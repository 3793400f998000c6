"""What a space is made of: layers with their extents, slots, residual branches.

Why segments. After a concatenation one tensor dimension holds the channels of several slots, after a
flatten every channel appears H*W times, and a network's input has channels that are nobody's to choose. An
`Extent` says all of that: it is a sum of segments, each a slot taken a number of times, or a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prune_nas.design.files import is_formula
from prune_nas.errors import UsageError

DEFAULT_FLOOR = 4


class Segment(NamedTuple):
    """A part of a channel dimension: a slot's channels, each `times` in a row, or `times` constant channels."""

    slot: str | None
    times: int


Extent = tuple[Segment, ...]


def constant(channels: int) -> Extent:
    """An extent of channels that are nobody's to choose: an input, the classes, a frozen dimension."""
    return (Segment(None, channels),)


def size(extent: Extent, widths: Mapping[str, int]) -> int:
    """The number of channels of `extent` at `widths`."""
    return sum(times if slot is None else times * widths[slot] for slot, times in extent)


@dataclass(frozen=True, slots=True)
class Layer:
    """One module with parameters, as the cost formula and the builder see it.

    The weight holds `kernel * inputs * outputs / groups` numbers and is applied at `positions` places (output
    pixels or tokens); besides it there are `vectors` numbers per output channel (bias 1, BatchNorm 2).
    A depthwise convolution has the constant 1 as inputs; a norm has kernel 0.
    """

    name: str
    kind: str
    inputs: Extent
    outputs: Extent
    kernel: int
    positions: int
    groups: int = 1
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One free width: all channel dimensions that must be equal.

    `stage` is the index of its feature-map size (0 = the first), `depth` in [0, 1] its place within the stage,
    `layers` the conv and linear layers that produce its channels. Widths run from `floor` to `ceiling`, the
    supernet's width, in steps of `multiple`. The channels of a `shuffled` slot have no identity that could be followed:
    its width is free, but no channel of the supernet can be kept. Where a grouped convolution takes or gives them, the
    slot chooses a group's width: `groups`, which stay as many as they are, times that is the width.
    """

    name: str
    stage: int
    depth: float
    ceiling: int
    floor: int
    multiple: int
    layers: tuple[str, ...]
    shuffled: bool = False
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse a name that is none.

        Raises:
            UsageError: a spreadsheet would take it for a formula in `widths.csv`.
        """
        if is_formula(self.name):
            raise UsageError(f"the slot {self.name!r} would be a formula to a spreadsheet. Rename the layer")

    @property
    def kind(self) -> str:
        """What the slot chooses: `width`, or `group width` where a number of groups is kept."""
        return "group width" if self.groups > 1 else "width"

    def within(self, count: int) -> int:
        """The largest allowed width of at most `count` channels; the floor where `count` is below it."""
        return max(self.floor, count - count % self.multiple)

    def snap(self, width: float) -> int:
        """The allowed width nearest to `width`; halves go up."""
        steps = int(np.floor(width / self.multiple + 0.5))
        return int(min(max(steps * self.multiple, self.floor), self.ceiling))


@dataclass(frozen=True, slots=True)
class Branch:
    """A residual branch, which can go as a whole: the addition behind it passes its other side on.

    It is gone where all its `slots` have width 0. `layers` are those that go with it, `last` the one that gives its
    output.
    """

    name: str
    slots: tuple[str, ...]
    layers: tuple[str, ...]
    last: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """A channel dimension that stays as it is, and why."""

    dimension: str
    reason: str
