"""Bringing keep ratios onto a budget: one scalar for one bound, a scalar and a tilt for two.

Everything is a bisection on a monotone function: widths never shrink when the scale grows, so cost never falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prune_nas.design.budget import Limits
from prune_nas.design.space import Space, Widths

_STEPS = 60


def largest(admits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest argument in [low, high] that `admits` accepts, found by bisection; `low` is taken as accepted."""
    if admits(high):
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if admits(middle) else (low, middle)
    return low


def project(space: Space, keep: Mapping[str, float], limits: Limits) -> Widths:
    """Scale `keep` as one until its first bound binds.

    Args:
        space: whose slots `keep` names.
        keep: positive numbers per slot; only their ratios matter.
        limits: must admit the narrowest network of the space (as `Budget.limits` checked).

    Returns:
        Widths within the limits, such that the next larger scale that changes any width is over them; every slot
        at its ceiling where the limits bind nothing.
    """

    def at(scale: float) -> Widths:
        return space.snap({name: scale * ratio for name, ratio in keep.items()})

    high = 2 / min(keep.values())  # every slot at its ceiling
    return at(largest(lambda scale: limits.admits(space.cost(at(scale))), 0.0, high))


def fill_both(space: Space, keep: Mapping[str, float], limits: Limits) -> Widths:
    """Scale and tilt `keep` so that two bounds bind: widths ~ s * keep * r^stage.

    The fuller of the two bounds at r = 1 decides the direction of the tilt: late stages hold most parameters,
    early ones most macs. Under one bound, or where no tilt in [1/20, 20] fills the second, the result is the
    projection at the best tilt found, so it never wastes budget against `project`.
    """
    flat = project(space, keep, limits)
    if len(limits.bounds) < 2 or space.stages < 2:
        return flat

    def at(log_r: float) -> Widths:
        return project(space, {s.name: keep[s.name] * math.exp(log_r * s.stage) for s in space.slots}, limits)

    def fill(widths: Widths) -> float:
        cost = space.cost(widths)
        return min(cost.of(kind) / limit for kind, limit in limits.bounds)

    def binding(widths: Widths) -> str:
        cost = space.cost(widths)
        return max(limits.bounds, key=lambda bound: cost.of(bound[0]) / bound[1])[0]

    first = binding(flat)
    edge = -math.log(20) if first == "params" else math.log(20)
    turn = largest(lambda size: binding(at(math.copysign(size, edge))) == first, 0.0, abs(edge))
    near = [flat, *(at(math.copysign(turn + delta, edge)) for delta in (0.0, 1e-9, 1e-4, 1e-3, 1e-2))]
    return max(near, key=fill)
