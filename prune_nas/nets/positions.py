"""Where a slot sits: its stage and its depth, the two coordinates in which design rules are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Shape = tuple[int, ...]


class Position(NamedTuple):
    """`stage` is the index of a feature-map size, largest first; `depth` in [0, 1] the place within the stage."""

    stage: int
    depth: float


def stages(maps: Sequence[Shape]) -> dict[int, str]:
    """The distinct feature-map sizes, largest first.

    Args:
        maps: shapes of feature maps, without batch and channels.

    Returns:
        Number of places -> name such as "32x32"; sizes with the same number of places are one stage.
    """
    names: dict[int, str] = {}
    for shape in maps:
        names.setdefault(math.prod(shape), "x".join(map(str, shape)) or "1")
    return dict(sorted(names.items(), reverse=True))


def positions(slots: Mapping[str, tuple[Shape, int]], sizes: Sequence[int]) -> dict[str, Position]:
    """The position of every slot.

    Args:
        slots: name -> (shape of the feature map that its first layer gives, level of that layer). A level is a number
            of conv and linear layers, counted along the longest path.
        sizes: numbers of places, one a stage.

    Returns:
        Name -> position. The first level of a stage has depth 0, the last 1; a level alone in its stage has 0.5.
    """
    stage = {name: sizes.index(math.prod(shape)) for name, (shape, _) in slots.items()}
    found: dict[str, Position] = {}
    for name, (_, level) in slots.items():
        levels = [other for peer, (_, other) in slots.items() if stage[peer] == stage[name]]
        low, high = min(levels), max(levels)
        found[name] = Position(stage[name], (level - low) / (high - low) if high > low else 0.5)
    return found
