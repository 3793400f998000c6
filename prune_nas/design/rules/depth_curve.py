"""A keep ratio that changes within a stage: a line with one bend, by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_nas.design.patterns import Pattern, stage_means
from prune_nas.design.rules.rule import between

KNOTS = (0.0, 0.5, 1.0)
_PULL = 1e-6  # towards the stage's mean, as a share of the data's weight: decides only what the data leave open
_LEAST = 0.01


@dataclass(frozen=True, slots=True)
class DepthCurve:
    """Piecewise linear in depth: for each stage the keep ratios at its beginning, middle and end."""

    ratios: tuple[tuple[float, ...], ...]
    kind: str = "depth-curve"

    @property
    def stages(self) -> int:
        """The number of curves."""
        return len(self.ratios)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Each stage's three ratios."""
        return {"ratios": [list(curve) for curve in self.ratios]}

    def keep(self, stage: float, depth: float) -> float:
        """On the stage's line at `depth`; between two stages, between their lines."""
        return between(tuple(float(np.interp(depth, KNOTS, curve)) for curve in self.ratios), stage)

    def explain(self) -> str:
        """Beginning, middle and end of every stage as percentages."""
        curves = (
            f"{' to '.join(f'{100 * r:.0f}' for r in curve)} % of stage {i + 1}" for i, curve in enumerate(self.ratios)
        )
        return "keep, from its beginning over its middle to its end, " + ", ".join(curves)


def fit_depth_curve(patterns: Sequence[Pattern]) -> DepthCurve:
    """Least squares, stage by stage; what too few layers leave open stays at the stage's mean."""
    weights = [pattern.weight for pattern in patterns]
    means = np.average([stage_means(pattern) for pattern in patterns], axis=0, weights=weights)
    return DepthCurve(tuple(_curve(patterns, stage, float(mean)) for stage, mean in enumerate(means)))


def _curve(patterns: Sequence[Pattern], stage: int, mean: float) -> tuple[float, ...]:
    own = [(r.depth, r.keep, p.weight) for p in patterns for r in p.ratios if r.stage == stage]
    if not own:
        return (mean,) * len(KNOTS)
    depth, keep, weight = np.array(own).T
    basis: NDArray[np.float64] = np.stack([np.interp(depth, KNOTS, row) for row in np.eye(len(KNOTS))], axis=1)
    pull = _PULL * weight.sum()
    normal = basis.T @ (weight[:, None] * basis) + pull * np.eye(len(KNOTS))
    solution = mean + np.linalg.solve(normal, basis.T @ (weight * (keep - mean)))
    return tuple(float(np.clip(ratio, _LEAST, 1.0)) for ratio in solution)
