"""What a rule is, where it is asked, and how it becomes widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from prune_nas.design.budget import Limits
from prune_nas.design.projection import project
from prune_nas.design.space import Space, Widths


class Rule(Protocol):
    """A function of a slot's place. Anything with these members is a rule."""

    @property
    def kind(self) -> str:
        """The formula's name, as rule files have it."""
        ...

    @property
    def stages(self) -> int | None:
        """The number of stages that it was fitted on; None where the formula holds for any."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The formula's numbers as plain data, as rule files have them."""
        ...

    def keep(self, stage: float, depth: float) -> float:
        """The keep ratio at `stage` in [0, stages - 1], whole or between two, and `depth` in [0, 1]; above 0."""
        ...

    def explain(self) -> str:
        """The rule in one sentence."""
        ...


def place(rule: Rule, stage: int, stages: int) -> float:
    """Where a stage of a network of `stages` stages lies on the rule's own scale.

    First falls on first and last on last, the others in proportion: a network of three stages is asked at a
    five-stage rule's first, third and fifth. A network of one stage is asked in the middle.
    """
    return float(stage) if rule.stages is None else on_scale(rule.stages, stage, stages)


def on_scale(own: int, stage: int, stages: int) -> float:
    """`place` for a rule of `own` stages."""
    if own == stages:
        return float(stage)
    return (own - 1) * (stage / (stages - 1) if stages > 1 else 0.5)


def keep_of(rule: Rule, space: Space) -> dict[str, float]:
    """Slot name -> the rule's keep ratio, before any budget."""
    return {slot.name: rule.keep(place(rule, slot.stage, space.stages), slot.depth) for slot in space.slots}


def apply(rule: Rule, space: Space, limits: Limits) -> Widths:
    """The rule's keep ratios on `space`, scaled as one until the first bound binds; floors are kept."""
    return project(space, keep_of(rule, space), limits)


def between(values: tuple[float, ...], stage: float) -> float:
    """The value at a whole stage, or on the line between its two neighbours'."""
    low = min(max(int(stage), 0), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    share = min(max(stage - low, 0.0), 1.0)
    return (1 - share) * values[low] + share * values[high]
