"""From one score per channel to widths within a budget.

`threshold` is Network Slimming's global threshold. `per-cost` divides each score by what its channel costs
first, since one threshold on |gamma| alone keeps early, mac-heavy channels: efficient in parameters, not in macs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_nas.design.budget import Limits
from prune_nas.design.projection import uniform_widths
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError, unknown

_MIXES = 32  # steps in which the weights of two bounds are tried

Scores = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Widths read from scores and the channels that stay.

    `floored` names the slots that their channels' values alone would have left below the floor.
    """

    widths: Widths
    kept: Mapping[str, tuple[int, ...]]
    floored: tuple[str, ...]


def select(space: Space, scores: Scores, limits: Limits, *, by: str = "threshold") -> Selection:
    """The channels with the best values that fit the limits, as close under them as the slots' multiples allow.

    Args:
        space: the space whose supernet was scored.
        scores: slot -> one score a channel, shape (ceiling,); larger = keep.
        limits: absolute limits (`Budget.limits`).
        by: `threshold` or `per-cost`.

    Raises:
        UsageError: scores are missing, of the wrong length or not finite, or `by` is unknown.
    """
    if by not in SELECTIONS:
        raise unknown("selection", by, SELECTIONS)
    _check(space, scores)
    return max((_select_at(space, scores, limits, price) for price in SELECTIONS[by](space, limits)), key=_held(scores))


def best_channels(scores: Scores, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Slot -> the indices of its `widths[slot]` channels with the highest scores, ascending; of equals the first."""
    return {slot: tuple(sorted(np.argsort(-scores[slot], kind="stable")[:n].tolist())) for slot, n in widths.items()}


def _held(scores: Scores) -> Callable[[Selection], float]:
    """The sum of the scores that a selection keeps: what a choice between prices is made by."""
    return lambda selection: sum(float(scores[name][list(kept)].sum()) for name, kept in selection.kept.items())


def _select_at(space: Space, scores: Scores, limits: Limits, price: Mapping[str, float]) -> Selection:
    """The selection in which a channel's value is its score over its slot's price."""
    values = {slot.name: scores[slot.name].astype(np.float64) / price[slot.name] for slot in space.slots}
    ranked = np.sort(np.concatenate(list(values.values())))[::-1]

    def counts(number: int) -> dict[str, int]:
        cut = ranked[number - 1] if number else np.inf
        return {name: int((v >= cut).sum()) for name, v in values.items()}

    def widths_at(number: int) -> Widths:
        own = counts(number)
        return Widths({slot.name: slot.within(own[slot.name]) for slot in space.slots})

    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if limits.admits(space.cost(widths_at(middle))) else (low, middle - 1)
    widths = _fill(space, limits, widths_at(low), values)
    own = counts(low)
    return Selection(
        widths=widths,
        kept=best_channels(scores, widths),
        floored=tuple(slot.name for slot in space.slots if own[slot.name] < slot.floor),
    )


def _fill(space: Space, limits: Limits, widths: Widths, values: Mapping[str, NDArray[np.float64]]) -> Widths:
    """Add the best channels that still fit, a multiple at a time, until no slot can grow."""
    current = dict(widths)
    ranked = {name: np.sort(v)[::-1] for name, v in values.items()}
    open_slots = set(current)
    while open_slots:
        growable = [s for s in space.slots if s.name in open_slots and current[s.name] + s.multiple <= s.ceiling]
        if not growable:
            break
        best = max(growable, key=lambda s: ranked[s.name][current[s.name]])
        wider = {**current, best.name: current[best.name] + best.multiple}
        if limits.admits(space.cost(wider)):
            current = wider
        else:
            open_slots.discard(best.name)
        open_slots &= {s.name for s in growable}
    return Widths(current)


def _flat(space: Space, limits: Limits) -> list[dict[str, float]]:
    return [{slot.name: 1.0 for slot in space.slots}]


def _marginal(space: Space, limits: Limits) -> list[dict[str, float]]:
    """What one more channel of each slot takes of the budget: a mix over bounds of added cost / limit.

    Costs are quadratic in the widths, so the price depends on where it is asked: at the uniform network that
    meets the budget, which is where the choice is made. Under one bound there is one price; under two, how much each
    bound's share weighs is the multiplier of a knapsack with two constraints, so several mixes are tried.
    """
    there = uniform_widths(space, limits)
    before = space.cost(there)
    shares = {}
    for slot in space.slots:
        after = space.cost({**there, slot.name: there[slot.name] + 1})
        shares[slot.name] = [(after.of(kind) - before.of(kind)) / limit for kind, limit in limits.bounds]
    return [{name: float(np.dot(share, mix)) for name, share in shares.items()} for mix in _mixes(len(limits.bounds))]


def _mixes(bounds: int) -> list[tuple[float, ...]]:
    if bounds != 2:
        return [(1 / bounds,) * bounds]
    return [(1 - i / _MIXES, i / _MIXES) for i in range(_MIXES + 1)]


def _check(space: Space, scores: Scores) -> None:
    for slot in space.slots:
        vector = scores.get(slot.name)
        if vector is None or vector.shape != (slot.ceiling,):
            got = "none" if vector is None else f"shape {vector.shape}"
            raise UsageError(f"scores of slot {slot.name!r} must have shape ({slot.ceiling},). Got {got}")
        if not np.isfinite(vector).all():
            raise UsageError(f"scores of slot {slot.name!r} must be finite. The supernet's training diverged")


SELECTIONS: Mapping[str, Callable[[Space, Limits], list[dict[str, float]]]] = {
    "threshold": _flat,
    "per-cost": _marginal,
}
