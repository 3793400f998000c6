"""The paper's rule: one keep ratio a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prune_nas.design.patterns import Pattern, stage_means
from prune_nas.design.rules.rule import between


@dataclass(frozen=True, slots=True)
class StageMean:
    """Guided pruning (Liu et al. 2019, section 5): every layer of a stage gets the stage's mean keep ratio."""

    ratios: tuple[float, ...]
    kind: str = "stage-mean"

    @property
    def stages(self) -> int:
        """The number of ratios."""
        return len(self.ratios)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The stages' ratios."""
        return {"ratios": list(self.ratios)}

    def keep(self, stage: float, depth: float) -> float:
        """Return the stage's mean, whatever the depth."""
        return between(self.ratios, stage)

    def explain(self) -> str:
        """The stage means as percentages."""
        return "keep " + ", ".join(f"{100 * r:.0f} % of stage {i + 1}" for i, r in enumerate(self.ratios))


def fit_stage_mean(patterns: Sequence[Pattern]) -> StageMean:
    """The mean keep ratio of each stage over all slots of all patterns, each pattern counting by its weight.

    Source: paper section 5 averages channel numbers; where all layers of a stage have one base width, as in VGG,
    that is the same as averaging keep ratios, which also work for other base widths.
    """
    means = np.array([stage_means(pattern) for pattern in patterns])
    weights = [pattern.weight for pattern in patterns]
    return StageMean(tuple(float(mean) for mean in np.average(means, axis=0, weights=weights)))
