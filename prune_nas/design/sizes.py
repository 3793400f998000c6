"""Sizes of images: height and width in pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from prune_nas.errors import UsageError

LEAST = 8
_TEXT = re.compile(r"\s*(\d+)\s*(?:x\s*(\d+)\s*)?")


class Size(NamedTuple):
    """Height and width in pixels; as text `64x48`."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, value: int | str | Sequence[int]) -> Size:
        """The size that `64`, `"64"`, `"64x48"` or `(64, 48)` stands for.

        Raises:
            UsageError: the value is no size, or a side has fewer than 8 pixels.
        """
        if isinstance(value, str):
            match = _TEXT.fullmatch(value.lower())
            sides = [int(side) for side in match.groups() if side] if match else []
        else:
            sides = [value] if isinstance(value, int) else [int(side) for side in value]
        if len(sides) not in (1, 2):
            raise UsageError(f"--image-size must be pixels such as 64, or height x width such as 64x48. Got {value!r}")
        if min(sides) < LEAST:
            raise UsageError(f"the image size must be at least {LEAST} pixels. Got {value!r}")
        return cls(sides[0], sides[-1])
