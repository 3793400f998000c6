"""The three-parameter family of shapes that the study searches, and the arms that seed it.

    keep ~ g^a * (prior / g)^c * exp(t * stage / (S - 1))

g is the prior's stage mean, S the number of stages. (0, 0, 0) is uniform, (1, 0, 0) guided, (1, 1, 0) pruned,
(0, 0, t) a taper. Few dimensions are what a dozen trainings can search; the scale is the budget's to set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prune_nas.design.budget import Limits
from prune_nas.design.patterns import pattern_of, stage_means
from prune_nas.design.projection import fill_both
from prune_nas.design.space import Space, Widths


class Point(NamedTuple):
    """Coordinates in the family: guided strength, within-stage strength, tilt over the stages."""

    a: float
    c: float
    t: float


BOUNDS: Mapping[str, tuple[float, float]] = {"a": (-0.5, 1.5), "c": (0.0, 1.5), "t": (-3.0, 3.0)}
UNIFORM, GUIDED, PRUNED = Point(0, 0, 0), Point(1, 0, 0), Point(1, 1, 0)


def shape(space: Space, prior: Mapping[str, int], point: Point) -> dict[str, float]:
    """Keep ratios of a point, up to one scale.

    Args:
        space: the space of `prior`.
        prior: widths that the scores gave; all positive.
        point: coordinates within `BOUNDS`.
    """
    keep, means = space.keep(prior), stage_means(pattern_of(space, prior))
    last = max(space.stages - 1, 1)
    return {
        s.name: means[s.stage] ** point.a
        * (keep[s.name] / means[s.stage]) ** point.c
        * math.exp(point.t * s.stage / last)
        for s in space.slots
    }


def taper_point(space: Space, ratio: float) -> Point:
    """The point whose shape is ratio^stage, clipped to the bounds of t."""
    low, high = BOUNDS["t"]
    return Point(0, 0, min(max(math.log(ratio) * max(space.stages - 1, 1), low), high))


def random_widths(space: Space, limits: Limits, seed: int) -> Widths:
    """A random shape that fills the budget: keep ratios drawn from U[0.1, 1] a slot, brought onto all bounds.

    Source: the random channel search of Li et al., CVPR 2022; seeded by `seed` alone.
    """
    draw = np.random.default_rng(seed).uniform(0.1, 1.0, len(space.slots))
    return fill_both(space, {slot.name: float(k) for slot, k in zip(space.slots, draw, strict=True)}, limits)
