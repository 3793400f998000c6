"""Whether differences are more than noise when many are looked at: paired p-values, corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

SIGNIFICANT = 0.05


_SAME = 1e-9  # equal differences of accuracies differ by rounding


def spread_of(differences: Sequence[float]) -> float | None:
    """The standard deviation of paired differences of accuracies.

    None for fewer than two, and where they do not vary at all: accuracies are multiples of one image, so that a few
    equal differences are chance, not certainty.
    """
    spread = stdev(differences) if len(differences) > 1 else 0.0
    return spread if spread > _SAME else None


def p_value(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of paired differences under Student's t; None where they have no spread (`spread_of`)."""
    n, spread, mean = len(differences), spread_of(differences), fmean(differences)
    if spread is None:
        return None
    from scipy.special import stdtr  # noqa: PLC0415 - as in `evidence.interval`

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
