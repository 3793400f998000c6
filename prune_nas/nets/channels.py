"""Which channel dimensions must be equal: a union-find over the segments of dimensions.

Every width that a layer chooses for itself is a variable. A dimension is a sequence of parts, each a variable
whose channels appear `times` in a row, or `times` constant channels. Operations unify dimensions part by part.
Parts that do not line up, and everything unified with a constant, are frozen: a frozen variable counts as a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prune_nas.design.space import Extent, Segment


class Part(NamedTuple):
    """A run of channels: those of a variable, each `times` in a row, or `times` constant ones."""

    variable: int | None
    times: int


Parts = tuple[Part, ...]


def fixed(channels: int) -> Parts:
    """A dimension of constant size."""
    return (Part(None, channels),)


@dataclass
class _Class:
    """What all variables of one class have in common."""

    width: int
    sources: list[tuple[int, str]]
    multiple: int = 1
    reason: str | None = None


class Channels:
    """The variables of one network, united as its operations demand. Names the root variable of each class."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._classes: dict[int, _Class] = {}

    def new(self, width: int, source: str) -> Part:
        """A variable of its own for the `width` channels that the layer `source` produces."""
        variable = len(self._parents)
        self._parents.append(variable)
        self._classes[variable] = _Class(width, [(variable, source)])
        return Part(variable, 1)

    def root(self, variable: int) -> int:
        """The variable that stands for the class of `variable`."""
        while self._parents[variable] != variable:
            self._parents[variable] = self._parents[self._parents[variable]]
            variable = self._parents[variable]
        return variable

    def roots(self) -> list[int]:
        """One variable a class, in the order of their first sources."""
        return sorted(self._classes)

    def width(self, variable: int) -> int:
        """The traced width."""
        return self._classes[self.root(variable)].width

    def sources(self, variable: int) -> tuple[str, ...]:
        """The layers that produce these channels, in the order of the network."""
        return tuple(source for _, source in self._classes[self.root(variable)].sources)

    def multiple(self, variable: int) -> int:
        """Every allowed width is a multiple of this."""
        return self._classes[self.root(variable)].multiple

    def reason(self, variable: int) -> str | None:
        """Why the width is frozen, or None where it is free."""
        return self._classes[self.root(variable)].reason

    def free(self, parts: Parts) -> frozenset[int]:
        """The roots of the free variables in `parts`."""
        roots = (self.root(part.variable) for part in parts if part.variable is not None)
        return frozenset(root for root in roots if self._classes[root].reason is None)

    def size(self, part: Part) -> int:
        """The traced number of channels of one part."""
        return part.times if part.variable is None else part.times * self.width(part.variable)

    def freeze(self, parts: Parts, reason: str) -> None:
        """Fix every free variable of `parts` at its traced width; the first reason stays."""
        for root in self.free(parts):
            self._classes[root].reason = reason

    def divide(self, parts: Parts, groups: int, where: str) -> None:
        """Demand that the size of each free part is a multiple of `groups`; freeze those that are not so as traced.

        What is left for the constants is then a multiple too, as the whole is.

        Args:
            parts: a dimension whose traced size is a multiple of `groups`.
            groups: of the layer that it enters or leaves.
            where: that layer, for the reasons of what gets frozen.
        """
        for part in parts:
            if self.size(part) % groups:
                size = self.size(part)
                self.freeze((part,), f"its {size} channels are not a multiple of {groups} groups: {where}")
            for root in self.free((part,)):
                one = self._classes[root]
                one.multiple = math.lcm(one.multiple, groups // math.gcd(groups, part.times))

    def unify(self, a: Parts, b: Parts, where: str) -> None:
        """Demand that two dimensions of the same traced size are the same dimension.

        Args:
            a: one dimension.
            b: the other.
            where: the operation that demands it, for the reasons of what gets frozen.
        """
        for left, right in self._runs(a, b):
            if not self.free(left) and not self.free(right):
                continue
            if len(left) == len(right) == 1 and self.free(left) and self.free(right):
                if left[0].times == right[0].times:
                    self._union(left[0], right[0])
                    continue
            elif not self.free(left) or not self.free(right):
                self.freeze(left + right, f"must equal fixed channels: {self._meet(left, right)}, in {where}")
                continue
            self.freeze(left + right, f"parts do not line up: {self._meet(left, right)}, in {where}")

    def extent(self, parts: Parts, names: Mapping[int, str]) -> Extent:
        """`parts` as an extent: free variables by slot name, everything else as constants.

        Args:
            parts: a dimension.
            names: root variable -> slot name.
        """
        segments: list[Segment] = []
        for part in parts:
            if part.variable is not None and self.reason(part.variable) is None:
                segments.append(Segment(names[self.root(part.variable)], part.times))
            elif segments and segments[-1].slot is None:
                segments[-1] = Segment(None, segments[-1].times + self.size(part))
            else:
                segments.append(Segment(None, self.size(part)))
        return tuple(segments)

    def _union(self, a: Part, b: Part) -> None:
        if a.variable is None or b.variable is None:
            return
        first, second = sorted((self.root(a.variable), self.root(b.variable)))
        if first == second:
            return
        one, other = self._classes[first], self._classes.pop(second)
        one.sources = sorted(one.sources + other.sources)
        one.multiple = math.lcm(one.multiple, other.multiple)
        self._parents[second] = first

    def _runs(self, a: Parts, b: Parts) -> Iterator[tuple[Parts, Parts]]:
        """Cut both dimensions at the places where both have a boundary."""
        left, right = list(a), list(b)
        while left and right:
            one, other = [left.pop(0)], [right.pop(0)]
            while (ahead := sum(map(self.size, one)) - sum(map(self.size, other))) != 0:
                if ahead < 0:
                    one.append(left.pop(0))
                else:
                    other.append(right.pop(0))
            yield tuple(one), tuple(other)

    def _meet(self, left: Parts, right: Parts) -> str:
        return f"{self._describe(left)} against {self._describe(right)}"

    def _describe(self, parts: Parts) -> str:
        def one(part: Part) -> str:
            size = self.size(part)
            return str(size) if part.variable is None else f"{self.sources(part.variable)[0]} ({size})"

        return " + ".join(one(part) for part in parts)
