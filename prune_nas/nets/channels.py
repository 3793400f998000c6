"""Which channel dimensions must be equal: a union-find over the segments of dimensions.

Every width that a layer chooses for itself is a variable. A dimension is a sequence of parts, each a variable
whose channels appear `times` in a row, or `times` constant channels. Operations unify dimensions part by part.
A variable that meets several parts in a row, as where a convolution is added to a concatenation, becomes their row.
Parts that line up in no such way, and everything unified with a constant, are frozen: a frozen variable counts as a
constant.

A dimension that is cut into equal pieces makes its variable a sequence of them (`cut`). Where a cut takes the pieces
of channels that were interleaved before, as ShuffleNet's blocks do, the pieces have the right sizes, but which channel
is which is lost: such a class is `shuffled`, free in its width and in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prune_nas.design.parts import Extent, Segment


class Part(NamedTuple):
    """A run of channels: those of a variable, each `times` in a row, or `times` constant ones."""

    variable: int | None
    times: int


Parts = tuple[Part, ...]
_LAST = 1 << 32  # above the number of any variable


def fixed(channels: int) -> Parts:
    """A dimension of constant size."""
    return (Part(None, channels),)


@dataclass
class _Class:
    """What all variables of one class have in common."""

    width: int
    sources: list[tuple[int, str]]
    multiple: int = 1
    groups: int = 1
    reason: str | None = None
    shuffled: bool = False


class Channels:
    """The variables of one network, united as its operations demand. Names the root variable of each class."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._classes: dict[int, _Class] = {}
        self._pieces: dict[int, Parts] = {}  # a variable that was cut, or met several parts in a row

    def new(self, width: int, source: str) -> Part:
        """A variable of its own for the `width` channels that the layer `source` produces."""
        variable = len(self._parents)
        self._parents.append(variable)
        self._classes[variable] = _Class(width, [(variable, source)])
        return Part(variable, 1)

    def root(self, variable: int) -> int:
        """The variable that stands for the class of `variable`; of one that was cut, for that of its first piece."""
        while self._parents[variable] != variable:
            self._parents[variable] = self._parents[self._parents[variable]]
            variable = self._parents[variable]
        if variable in self._pieces and (piece := self._pieces[variable][0].variable) is not None:
            return self.root(piece)
        return variable

    def roots(self) -> list[int]:
        """One variable a class, in the order of their first sources."""
        return sorted(self._classes, key=lambda root: self._classes[root].sources)

    def width(self, variable: int) -> int:
        """The traced width."""
        return self._classes[self.root(variable)].width

    def sources(self, variable: int) -> tuple[str, ...]:
        """The layers that produce these channels, in the order of the network."""
        return tuple(source for _, source in self._classes[self.root(variable)].sources)

    def multiple(self, variable: int) -> int:
        """Every allowed width is a multiple of this."""
        return self._classes[self.root(variable)].multiple

    def groups(self, variable: int) -> int:
        """The most groups of a convolution that these channels are dealt to; 1 where none is grouped."""
        return self._classes[self.root(variable)].groups

    def shuffled(self, variable: int) -> bool:
        """Whether these channels lost their order somewhere."""
        return self._classes[self.root(variable)].shuffled

    def reason(self, variable: int) -> str | None:
        """Why the width is frozen, or None where it is free."""
        return self._classes[self.root(variable)].reason

    def free(self, parts: Parts) -> frozenset[int]:
        """The roots of the free variables in `parts`."""
        roots = (self.root(part.variable) for part in self._whole(parts) if part.variable is not None)
        return frozenset(root for root in roots if self._classes[root].reason is None)

    def size(self, part: Part) -> int:
        """The traced number of channels of one part."""
        whole = self._whole((part,))
        return sum(one.times if one.variable is None else one.times * self.width(one.variable) for one in whole)

    def same(self, a: Parts, b: Parts) -> bool:
        """Whether two dimensions are equal at every width, part by part."""

        def known(parts: Parts) -> list[tuple[int | None, int]]:
            return [(None if p.variable is None else self.root(p.variable), p.times) for p in self._whole(parts)]

        return known(a) == known(b)

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
        for part in self._whole(parts):
            if self.size(part) % groups:
                size = self.size(part)
                self.freeze((part,), f"its {size} channels are not a multiple of {groups} groups: {where}")
            for root in self.free((part,)):
                one = self._classes[root]
                one.multiple = math.lcm(one.multiple, groups // math.gcd(groups, part.times))

    def group(self, parts: Parts, groups: int, where: str) -> None:
        """`divide` for a convolution's groups: what is chosen is then the width of a group."""
        self.divide(parts, groups, where)
        for root in self.free(parts):
            one = self._classes[root]
            one.groups = max(one.groups, groups)

    def unify(self, a: Parts, b: Parts, where: str) -> None:
        """Demand that two dimensions of the same traced size are the same dimension.

        Args:
            a: one dimension.
            b: the other.
            where: the operation that demands it, for the reasons of what gets frozen.
        """
        for left, right in self._runs(a, b):
            if (self._whole(left), self._whole(right)) != (left, right):  # by an earlier run of this loop
                self.unify(left, right, where)
                continue
            if not self.free(left) and not self.free(right):
                continue
            if len(left) == len(right) == 1 and self.free(left) and self.free(right):
                if left[0].times == right[0].times:
                    self._union(left[0], right[0])
                    continue
            elif self._sequence(left, right, where) or self._sequence(right, left, where):
                continue
            elif not self.free(left) or not self.free(right):
                self.freeze(left + right, f"must equal fixed channels: {self._meet(left, right)}, in {where}")
                continue
            self.freeze(left + right, f"parts do not line up: {self._meet(left, right)}, in {where}")

    def cut(self, parts: Parts, count: int, where: str) -> list[Parts]:
        """Cut a dimension into `count` equal pieces, and demand that they are equal at every width.

        Args:
            parts: a dimension whose traced size is a multiple of `count`.
            count: of pieces.
            where: the operation that cuts, for the reasons of what gets frozen.

        Returns:
            The pieces in their order, frozen where no boundary lies at the cuts.
        """
        whole = self._whole(parts)
        if len(whole) == 1 and whole[0].variable is not None and self.free(whole):
            return self._cut_one(whole[0], count, where)
        each = sum(map(self.size, whole)) // count
        pieces: list[list[Part]] = [[]]
        for part in whole:
            if sum(map(self.size, pieces[-1])) == each:
                pieces.append([])
            pieces[-1].append(part)
        if any(sum(map(self.size, piece)) != each for piece in pieces):
            self.freeze(whole, f"its parts do not lie in {count} equal pieces: {where}")
            return [fixed(each)] * count
        for piece in pieces[1:]:
            self.unify(tuple(pieces[0]), tuple(piece), where)
        return [self._whole(tuple(piece)) for piece in pieces]

    def gather(self, parts: Parts, count: int, where: str) -> Parts | None:
        """The dimension of which each channel is made of `count` channels of `parts` in a row.

        A free variable is then chosen in steps of `count`.

        Returns:
            The parts of the new dimension; None, and all frozen, where the channels do not lie so.
        """
        found: list[Part] = []
        for part in self._whole(parts):
            if part.times % count == 0:
                found.append(Part(part.variable, part.times // count))
            elif part.variable is None or part.times > 1 or not self.free((part,)) or self.width(part.variable) % count:
                self.freeze(parts, f"its channels are not {count} in a row for each place: {where}")
                return None
            else:
                found.append(self._in_steps(part.variable, count))
        return tuple(found)

    def _in_steps(self, variable: int, count: int) -> Part:
        """A variable for every `count` channels in a row of a free one, which becomes `count` times the new one."""
        root = self.root(variable)
        one = self._classes.pop(root)
        step = Part(len(self._parents), 1)
        self._parents.append(len(self._parents))
        multiple = one.multiple // math.gcd(one.multiple, count)
        self._classes[step.variable or 0] = _Class(
            one.width // count, one.sources, multiple, one.groups, None, one.shuffled
        )
        self._pieces[root] = (Part(step.variable, count),)
        return step

    def _cut_one(self, part: Part, count: int, where: str) -> list[Parts]:
        root = self.root(part.variable or 0)
        one = self._classes[root]
        if part.times % count == 0:  # interleaved before: the pieces have the right sizes and mixed channels
            one.shuffled = True
            return [(Part(root, part.times // count),)] * count
        if part.times > 1 or one.width % count:
            self.freeze((part,), f"its channels do not lie in {count} equal pieces: {where}")
            return [fixed(self.size(part) // count)] * count
        piece = Part(len(self._parents), 1)
        self._parents.append(len(self._parents))
        del self._classes[root]
        multiple = one.multiple // math.gcd(one.multiple, count)
        self._classes[piece.variable or 0] = _Class(
            one.width // count, one.sources, multiple, one.groups, None, one.shuffled
        )
        self._pieces[root] = (piece,) * count
        return [(piece,)] * count

    def _sequence(self, one: Parts, many: Parts, where: str) -> bool:
        """Make a free variable the sequence of the free parts that it meets; False where it cannot be that."""
        times = one[0].times
        if len(one) > 1 or not all(part.times == times and self.free((part,)) for part in (*one, *many)):
            return False
        root = self.root(one[0].variable or 0)
        gone = self._classes.pop(root)
        self._pieces[root] = tuple(Part(part.variable, 1) for part in many)
        for part in many:
            other = self._classes[self.root(part.variable or 0)]
            # Last, so that it is named after none of them.
            other.sources = sorted({*other.sources, *((_LAST + number, name) for number, name in gone.sources)})
            other.shuffled = other.shuffled or gone.shuffled
            other.groups = max(other.groups, gone.groups)
        self.divide(self._pieces[root], gone.multiple, where)
        return True

    def _whole(self, parts: Parts) -> Parts:
        """`parts` with every variable that was cut replaced by its pieces."""
        found: list[Part] = []
        for part in parts:
            root = part.variable
            while root is not None and self._parents[root] != root:
                root = self._parents[root]
            if root is None or root not in self._pieces:
                found.append(part)
                continue
            found += self._whole(tuple(Part(piece.variable, piece.times * part.times) for piece in self._pieces[root]))
        return tuple(found)

    def extent(self, parts: Parts, names: Mapping[int, str]) -> Extent:
        """`parts` as an extent: free variables by slot name, everything else as constants.

        Args:
            parts: a dimension.
            names: root variable -> slot name.
        """
        segments: list[Segment] = []
        for part in self._whole(parts):
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
        one.sources = sorted({*one.sources, *other.sources})
        one.multiple, one.groups = math.lcm(one.multiple, other.multiple), max(one.groups, other.groups)
        one.shuffled = one.shuffled or other.shuffled
        self._parents[second] = first

    def _runs(self, a: Parts, b: Parts) -> Iterator[tuple[Parts, Parts]]:
        """Cut both dimensions at the places where both have a boundary."""
        left, right = list(self._whole(a)), list(self._whole(b))
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
