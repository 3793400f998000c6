"""RegNet's form: a line over the whole depth, rounded to a few sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_nas.design.patterns import Pattern

_LEAST = 0.01
_GRID = (25, 41, 21)  # starts, slopes and steps that are tried at once
_ZOOMS = 6


@dataclass(frozen=True, slots=True)
class QuantisedLinear:
    """keep = start * step^round(log_step((start + slope * g) / start)), g = (stage + depth) / stages.

    Source: Radosavovic et al. 2020 (RegNet), section 3.3, equations 2 to 4, with keep ratios in the place of widths.
    """

    start: float
    slope: float
    step: float
    stages: int
    kind: str = "quantised-linear"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The line's start and slope, the step between sizes, and the stages."""
        return {"start": self.start, "slope": self.slope, "step": self.step, "stages": self.stages}

    def keep(self, stage: float, depth: float) -> float:
        """The line at this place, rounded to a size."""
        g = np.array([(stage + depth) / self.stages])
        return float(_values(g, np.array(self.start), np.array(self.slope), np.array(self.step))[0])

    def explain(self) -> str:
        """The line and its sizes in words."""
        end = max(self.start + self.slope, _LEAST)
        return (
            f"keep a share on the line from {100 * self.start:.0f} % at the first layer to {100 * end:.0f} % at the "
            f"last, rounded to sizes a factor {self.step:.2f} apart"
        )


def fit_quantised_linear(patterns: Sequence[Pattern]) -> QuantisedLinear:
    """The line and step with the least squared error of log keep, by a grid that zooms in on its best point."""
    stages = patterns[0].stages
    points = [((r.stage + r.depth) / stages, r.keep, p.weight) for p in patterns for r in p.ratios]
    g, keep, weight = np.array(points).T
    low, high = np.array([math.log(0.02), -1.0, math.log(1.05)]), np.array([0.0, 1.0, math.log(3.0)])
    centre, span = (low + high) / 2, high - low
    for _ in range(_ZOOMS):
        axes = [np.clip(np.linspace(c - s / 2, c + s / 2, n), a, b)
                for c, s, n, a, b in zip(centre, span, _GRID, low, high, strict=True)]  # fmt: skip
        start, slope, step = (m.reshape(-1, 1) for m in np.meshgrid(*axes, indexing="ij"))
        off = np.log(_values(g, np.exp(start), slope, np.exp(step))) - np.log(keep)
        best = int(np.argmin((weight * off**2).sum(axis=1)))
        centre, span = np.array([m[best, 0] for m in (start, slope, step)]), span / 4
    return QuantisedLinear(math.exp(centre[0]), float(centre[1]), math.exp(centre[2]), stages)


def _values(
    g: NDArray[np.float64], start: NDArray[np.float64], slope: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float64]:
    line = np.maximum(start + slope * g, _LEAST)
    values: NDArray[np.float64] = start * step ** np.round(np.log(line / start) / np.log(step))
    return values
