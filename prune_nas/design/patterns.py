"""Patterns: keep ratios and where they sit, apart from the network they were found on; and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from prune_nas.design.space import Space
from prune_nas.errors import UsageError

_ROUNDING = 0.1  # a non-uniformity below this is rounding
FLAT = "undecided against uniform scaling"


@dataclass(frozen=True, slots=True)
class Ratio:
    """The keep ratio of one slot and where that sits: stage (0 = the first) and depth within it, in [0, 1]."""

    slot: str
    stage: int
    depth: float
    keep: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """The keep ratios of one pruned network of `stages` stages; `weight` is how much it counts beside others."""

    name: str
    stages: int
    ratios: tuple[Ratio, ...]
    weight: float = 1.0


def pattern_of(space: Space, widths: Mapping[str, int], name: str = "", weight: float = 1.0) -> Pattern:
    """The pattern of `widths`: width / ceiling of every slot of `space`."""
    keep = space.keep(widths)
    ratios = tuple(Ratio(slot.name, slot.stage, slot.depth, keep[slot.name]) for slot in space.slots)
    return Pattern(name or space.model, space.stages, ratios, weight)


def stage_means(pattern: Pattern) -> list[float]:
    """The mean keep ratio of each stage's slots; a stage without a slot takes the mean of its nearest ones."""
    means: list[float | None] = []
    for stage in range(pattern.stages):
        own = [ratio.keep for ratio in pattern.ratios if ratio.stage == stage]
        means.append(fmean(own) if own else None)
    known = [i for i, m in enumerate(means) if m is not None]

    def nearest(i: int) -> float:
        gap = min(abs(i - k) for k in known)
        return fmean(m for k in known if abs(i - k) == gap and (m := means[k]) is not None)

    return [m if m is not None else nearest(i) for i, m in enumerate(means)]


def non_uniformity(pattern: Pattern) -> float:
    """How far a shape is from uniform scaling: the keep ratios' standard deviation over their mean; 0 = uniform."""
    keep = [ratio.keep for ratio in pattern.ratios]
    centre = fmean(keep)
    if centre == 0:  # every residual branch is gone
        return 0.0
    return math.sqrt(fmean((ratio - centre) ** 2 for ratio in keep)) / centre


@dataclass(frozen=True, slots=True)
class Stability:
    """How far patterns of one network agree.

    `rank_correlation` is the mean of Spearman's over all pairs (None for one pattern, or where a pattern is flat);
    `spread` the standard deviation over patterns of each slot's share of the whole, a keep ratio over its pattern's
    mean; `non_uniformity` the mean of the patterns' own.
    """

    patterns: int
    rank_correlation: float | None
    spread: dict[str, float]
    non_uniformity: float

    @property
    def noise(self) -> float | None:
        """The spread of a slot, root mean square over the slots: what a non-uniformity must exceed to say anything."""
        return math.sqrt(fmean(s**2 for s in self.spread.values())) if self.spread else None

    @property
    def is_uniform(self) -> bool:
        """Whether there is nothing to transfer: the shape's non-uniformity is rounding, or within its own noise."""
        return self.non_uniformity < max(_ROUNDING, 2 * (self.noise or 0.0))

    def sentence(self) -> str:
        """What follows from the numbers."""
        about = f"non-uniformity {self.non_uniformity:.2f}"
        if self.noise is None:
            about += ", one pattern, so its noise is unknown"
        else:
            agree = "" if self.rank_correlation is None else f", rank correlation {self.rank_correlation:.2f}"
            about += f", spread {self.noise:.2f} over {self.patterns} patterns{agree}"
        if self.is_uniform:
            return f"The pattern is {FLAT} ({about}): scale uniformly."
        than = "" if self.noise is None else " by more than its noise"
        return f"The pattern differs from uniform scaling{than} ({about})."


def stability(patterns: Sequence[Pattern]) -> Stability:
    """How far patterns of one network agree: seeds, lambdas, epochs or datasets.

    Raises:
        UsageError: no pattern is given, or they are of different slots.
    """
    if not patterns:
        raise UsageError("comparing patterns takes at least one. Got none")
    slots = [tuple(ratio.slot for ratio in pattern.ratios) for pattern in patterns]
    if len(set(slots)) > 1:
        raise UsageError(f"patterns must be of one network, and {patterns[0].name} has other slots than the rest")
    shares = [_shares(pattern) for pattern in patterns]
    flat = any(max(share) == min(share) for share in shares)
    several = len(patterns) > 1
    pairs = [_rank_correlation(a, b) for a, b in combinations(shares, 2)] if not flat else []
    spread = {name: stdev(column) for name, *column in zip(slots[0], *shares, strict=True)} if several else {}
    centre = fmean(non_uniformity(pattern) for pattern in patterns)
    return Stability(len(patterns), fmean(pairs) if pairs else None, spread, centre)


def _rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    from scipy.stats import spearmanr  # noqa: PLC0415 - it takes half a second, which one pattern alone need not pay

    return float(spearmanr(left, right).statistic)


def _shares(pattern: Pattern) -> list[float]:
    centre = fmean(ratio.keep for ratio in pattern.ratios)
    return [ratio.keep / centre for ratio in pattern.ratios]
