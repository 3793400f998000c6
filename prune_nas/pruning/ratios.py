"""Ratios: the share of channels, structures or weights that a method takes away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prune_nas.design.selection import Scores, Selection, best_channels
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError


def share_of(ratio: str, letters: Iterable[str] = ()) -> float:
    """The share that goes, as a number.

    Raises:
        UsageError: the ratio is not above 0 and below 1.
    """
    try:
        share = float(ratio)
    except ValueError:
        known = ", ".join(letters)
        other = f", or the letter of a published configuration ({known})" if known else ""
        raise UsageError(f"a ratio is a number above 0 and below 1{other}. Got {ratio!r}") from None
    if not 0 < share < 1:
        raise UsageError(f"a ratio must lie above 0 and below 1: it is the share to remove. Got {ratio}")
    return share


def keep(space: Space, left: Mapping[str, int], scores: Scores) -> Selection:
    """The selection that leaves each slot `left` of its channels, those with the highest scores.

    A slot never goes below its floor, nor off its multiple; those that would are named in `floored`.
    """
    widths = Widths({slot.name: slot.within(left[slot.name]) for slot in space.slots})
    floored = tuple(slot.name for slot in space.slots if left[slot.name] < slot.floor)
    return Selection(widths, best_channels(scores, widths), floored)
