"""Whether differences are more than noise when many are looked at: paired p-values, corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtr

SIGNIFICANT = 0.05


def p_value(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of paired differences under Student's t.

    None for fewer than two, and where they do not vary at all: accuracies are multiples of one image, so that a few
    equal differences are chance, not certainty.
    """
    n = len(differences)
    if n < 2:
        return None
    spread, mean = stdev(differences), fmean(differences)
    if spread == 0:
        return None
    return float(2 * stdtr(n - 1, -abs(mean) * math.sqrt(n) / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below 0.05, the chance that any such claim is false is below it.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
