"""Bringing keep ratios onto a budget: one scalar for one bound, a scalar and a tilt for two.

Everything is a bisection on a monotone function: widths never shrink when the scale grows, so cost never falls. What
rounding leaves of a bound is then filled by the same rule for every shape, so that rivals have equal costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prune_nas.design.budget import Limits
from prune_nas.design.parts import Slot
from prune_nas.design.space import Space, Widths

_STEPS = 45
_STEEPEST = math.log(20)


def largest(admits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest argument in [low, high] that `admits` accepts, found by bisection; `low` is taken as accepted."""
    if admits(high):
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if admits(middle) else (low, middle)
    return low


def project(space: Space, keep: Mapping[str, float], limits: Limits) -> Widths:
    """Scale `keep` as one until its first bound binds, and fill what rounding leaves slot by slot (`filled`).

    Args:
        space: whose slots `keep` names.
        keep: positive numbers per slot; only their ratios matter.
        limits: must admit the narrowest network of the space (as `Budget.limits` checked).

    Returns:
        Widths within the limits; every slot at its ceiling where the limits bind nothing.
    """
    return filled(space, keep, limits, scaled(space, keep, limits))


def scaled(space: Space, keep: Mapping[str, float], limits: Limits) -> Widths:
    """The largest widths within the limits that one scalar times `keep` gives, rounded; arguments as of `project`."""

    def at(scale: float) -> Widths:
        return space.snap({name: scale * ratio for name, ratio in keep.items()})

    high = 2 / min(keep.values())  # every slot at its ceiling
    return at(largest(lambda scale: limits.admits(space.cost(at(scale))), 0.0, high))


def filled(space: Space, keep: Mapping[str, float], limits: Limits, widths: Widths) -> Widths:
    """Widths that are raised by one step wherever that still fits, so that rounding leaves as little as it can.

    The scalar of `scaled` stops at the first step that does not fit, and all slots that would step at the same scalar
    stop with it. Here every slot takes its own next step, in the order of the scalars at which they come. No slot is
    raised twice: further steps would change the shape.

    Args:
        space: whose slots `keep` names.
        keep: positive numbers per slot.
        limits: admit `widths`.
        widths: what `scaled` gave.
    """
    found = dict(widths)

    def next_scale(slot: Slot) -> float:
        return (found[slot.name] + slot.multiple / 2) / (keep[slot.name] * slot.ceiling)

    open_slots = [slot for slot in space.slots if found[slot.name] + slot.multiple <= slot.ceiling]
    for slot in sorted(open_slots, key=next_scale):
        raised = {**found, slot.name: found[slot.name] + slot.multiple}
        if limits.admits(space.cost(raised)):
            found = raised
    return Widths(found)


def uniform_widths(space: Space, limits: Limits) -> Widths:
    """The uniform net: one keep ratio for all slots, the largest within the limits."""
    return project(space, {slot.name: 1.0 for slot in space.slots}, limits)


def fill_both(space: Space, keep: Mapping[str, float], limits: Limits) -> Widths:
    """Scale and tilt `keep` so that two bounds bind: widths ~ s * keep * r^stage, filled slot by slot.

    Under one bound, or where no tilt fills the second, the result is the projection at the best tilt found.
    """
    tilted = _tilt(space, keep, tilt_to_fill(space, keep, limits))
    return project(space, tilted, limits)


def tilt_to_fill(space: Space, keep: Mapping[str, float], limits: Limits) -> float:
    """The log of the ratio r in [1/20, 20] from stage to stage at which two bounds bind; 0 under one bound.

    The bound that binds without a tilt decides its direction: late stages hold most parameters, early ones most macs.
    Of the tilts around the turning point, where rounding decides which bound is met, the one that fills both best.
    """
    if len(limits.bounds) < 2 or space.stages < 2:
        return 0.0

    def shares(log_r: float) -> dict[str, float]:
        cost = space.cost(scaled(space, _tilt(space, keep, log_r), limits))
        return {kind: cost.of(kind) / limit for kind, limit in limits.bounds}

    def binding(log_r: float) -> str:
        share = shares(log_r)
        return max(share, key=lambda kind: share[kind])

    first = binding(0.0)
    edge = -_STEEPEST if first == "params" else _STEEPEST
    turn = largest(lambda size: binding(math.copysign(size, edge)) == first, 0.0, _STEEPEST)
    near = [0.0, *(math.copysign(turn + delta, edge) for delta in (0.0, 1e-9, 1e-4, 1e-3, 1e-2))]

    def emptiest(log_r: float) -> float:
        cost = space.cost(project(space, _tilt(space, keep, log_r), limits))
        return min(cost.of(kind) / limit for kind, limit in limits.bounds)

    return max(near, key=emptiest)


def _tilt(space: Space, keep: Mapping[str, float], log_r: float) -> dict[str, float]:
    return {s.name: keep[s.name] * math.exp(log_r * s.stage) for s in space.slots}
