"""Design rules: a keep ratio as a short formula of where a slot sits, fitted on patterns, applied to any space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from prune_nas.design.budget import Limits
from prune_nas.design.projection import project, tilt_to_fill
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError

TAPER = math.exp(-1 / 4)


class Rule(Protocol):
    """A function of a slot's place. Anything with these three members is a rule."""

    @property
    def kind(self) -> str:
        """The formula's name, as `rule.json` has it."""
        ...

    def keep(self, stage: int, depth: float) -> float:
        """The keep ratio of a slot in `stage` (0 = first) at `depth` in [0, 1] within it; above 0."""
        ...

    def explain(self) -> str:
        """The rule in one sentence."""
        ...


def apply(rule: Rule, space: Space, limits: Limits) -> Widths:
    """The rule's keep ratios on `space`, scaled as one until the first bound binds; floors are kept."""
    return project(space, keep_of(rule, space), limits)


def keep_of(rule: Rule, space: Space) -> dict[str, float]:
    """Slot name -> the rule's keep ratio, before any budget."""
    return {slot.name: rule.keep(slot.stage, slot.depth) for slot in space.slots}


@dataclass(frozen=True, slots=True)
class StageMean:
    """Guided pruning (Liu et al. 2019, section 5): every layer of a stage gets the stage's mean keep ratio."""

    ratios: tuple[float, ...]
    kind: str = "stage-mean"

    def keep(self, stage: int, depth: float) -> float:
        """Return the stage's mean, whatever the depth; stages beyond the last fitted one take the last."""
        return self.ratios[min(stage, len(self.ratios) - 1)]

    def explain(self) -> str:
        """The stage means as percentages."""
        return "keep " + ", ".join(f"{100 * r:.0f} % of stage {i + 1}" for i, r in enumerate(self.ratios))


@dataclass(frozen=True, slots=True)
class Uniform:
    """One keep ratio everywhere: the null rule."""

    kind: str = "uniform"

    def keep(self, stage: int, depth: float) -> float:
        """Return 1 everywhere."""
        return 1.0

    def explain(self) -> str:
        """The null rule in words."""
        return "keep the same share of every layer"


@dataclass(frozen=True, slots=True)
class Taper:
    """A hand rule that needs no supernet: keep ~ ratio^stage."""

    ratio: float = TAPER
    kind: str = "taper"

    def keep(self, stage: int, depth: float) -> float:
        """Return ratio^stage."""
        return float(self.ratio**stage)

    def explain(self) -> str:
        """The ratio from stage to stage."""
        return f"keep {self.ratio:.2f} times as large a share of each stage as of the one before"


def fit_stage_mean(patterns: Sequence[tuple[Space, Mapping[str, int]]]) -> StageMean:
    """The mean keep ratio of each stage over all slots of all patterns, each pattern counting alike.

    Source: paper section 5 averages channel numbers; where all layers of a stage have one base width, as in VGG,
    that is the same as averaging keep ratios, which also work for other base widths.

    Raises:
        UsageError: no pattern is given, or the patterns differ in their number of stages.
    """
    if not patterns:
        raise UsageError("fitting a rule takes at least one pattern; got none")
    means = [stage_means(space, widths) for space, widths in patterns]
    if len({len(m) for m in means}) > 1:
        raise UsageError(f"patterns must agree in their number of stages; got {[len(m) for m in means]}")
    return StageMean(tuple(fmean(column) for column in zip(*means, strict=True)))


def stage_means(space: Space, widths: Mapping[str, int]) -> list[float]:
    """The mean keep ratio of each stage's slots; a stage without a slot takes the mean of its neighbours' ones."""
    keep = space.keep(widths)
    means: list[float | None] = []
    for stage in range(space.stages):
        own = [keep[slot.name] for slot in space.slots if slot.stage == stage]
        means.append(fmean(own) if own else None)
    known = [i for i, m in enumerate(means) if m is not None]

    def nearest(i: int) -> float:
        gap = min(abs(i - k) for k in known)
        return fmean(m for k in known if abs(i - k) == gap and (m := means[k]) is not None)

    return [m if m is not None else nearest(i) for i, m in enumerate(means)]


def non_uniformity(space: Space, widths: Mapping[str, int]) -> float:
    """How far a shape is from uniform scaling: the keep ratios' standard deviation over their mean; 0 = uniform."""
    keep = space.keep(widths).values()
    centre = fmean(keep)
    return math.sqrt(fmean((ratio - centre) ** 2 for ratio in keep)) / centre


def fit_taper(space: Space, limits: Limits) -> Taper:
    """The taper for a budget: under one bound exp(-1/4) per stage, under two the ratio at which both bind."""
    if len(limits.bounds) < 2:
        return Taper()
    return Taper(math.exp(tilt_to_fill(space, keep_of(Uniform(), space), limits)))


def taper_widths(space: Space, limits: Limits) -> Widths:
    """The taper arm: its rule (`fit_taper`) applied."""
    return apply(fit_taper(space, limits), space, limits)


def to_dict(rule: StageMean) -> dict[str, Any]:
    """Plain data for `rule.json`."""
    return {"kind": rule.kind, "ratios": list(rule.ratios), "explanation": rule.explain()}
