"""Rules that need no pattern: what every fitted rule has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prune_nas.design.budget import Limits
from prune_nas.design.projection import tilt_to_fill
from prune_nas.design.rules.rule import apply, keep_of
from prune_nas.design.space import Space, Widths

TAPER = math.exp(-1 / 4)


@dataclass(frozen=True, slots=True)
class Uniform:
    """One keep ratio everywhere."""

    kind: str = "uniform"
    stages: None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def keep(self, stage: float, depth: float) -> float:
        """Return 1 everywhere."""
        return 1.0

    def explain(self) -> str:
        """The rule in words."""
        return "keep the same share of every layer"


@dataclass(frozen=True, slots=True)
class Taper:
    """A hand rule: keep ~ ratio^stage."""

    ratio: float = TAPER
    kind: str = "taper"
    stages: None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The ratio from stage to stage."""
        return {"ratio": self.ratio}

    def keep(self, stage: float, depth: float) -> float:
        """Return ratio^stage."""
        return float(self.ratio**stage)

    def explain(self) -> str:
        """The ratio from stage to stage."""
        return f"keep in each stage {self.ratio:.2f} times the share of the stage before"


@dataclass(frozen=True, slots=True)
class Random:
    """A share of its own for every place, drawn from U[0.1, 1] by `seed`."""

    seed: int
    kind: str = "random"
    stages: None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def keep(self, stage: float, depth: float) -> float:
        """A number that the seed and the place decide."""
        place = [self.seed, round(1e6 * stage), round(1e6 * depth)]
        return float(np.random.default_rng(place).uniform(0.1, 1.0))

    def explain(self) -> str:
        """What it is good for."""
        return "keep a random share of every layer, to see what having a pattern at all is worth"


def fit_taper(space: Space, limits: Limits) -> Taper:
    """The taper for a budget: under one bound exp(-1/4) per stage, under two the ratio at which both bind."""
    if len(limits.bounds) < 2:
        return Taper()
    return Taper(math.exp(tilt_to_fill(space, keep_of(Uniform(), space), limits)))


def taper_widths(space: Space, limits: Limits) -> Widths:
    """The taper arm: its rule (`fit_taper`) applied."""
    return apply(fit_taper(space, limits), space, limits)
