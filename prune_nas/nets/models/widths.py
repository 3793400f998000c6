"""Scaling a whole network's widths."""

from __future__ import annotations

from collections.abc import Sequence

from prune_nas.errors import UsageError


def scaled(widths: Sequence[int], base_width: float) -> list[int]:
    """`base_width` times each width, rounded, at least 1.

    Raises:
        UsageError: `base_width` is not positive.
    """
    check_base_width(base_width)
    return [max(1, round(width * base_width)) for width in widths]


def check_base_width(base_width: float) -> None:
    """Refuse a factor that is not positive.

    Raises:
        UsageError: it is not.
    """
    if not base_width > 0:  # so that NaN is refused too
        raise UsageError(f"--base-width must be above 0. Got {base_width}")
