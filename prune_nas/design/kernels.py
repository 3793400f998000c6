"""Patterns of single weights: at which places of 3x3 kernels the weights sit that magnitude pruning keeps, by stage.

Widths are what structured pruning leaves; this is what unstructured pruning leaves (Liu et al. 2019, section 5). Here
are the shares and counts; which weights they are is `pruning.magnitude`'s to say.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_nas.design.patterns import Pattern, Ratio
from prune_nas.design.projection import largest
from prune_nas.design.records import SCHEMA
from prune_nas.design.rules.rule import between, on_scale
from prune_nas.errors import BudgetError, UsageError

TAUGHT = (3, 3)  # the kernels that a rule is read from
PLACES = math.prod(TAUGHT)
_LEAST = 1e-4

Counts = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Kernel:
    """The weights of one convolution: `many` kernels (outputs x inputs / groups) of the shape `shape`.

    `stage` is the index of its feature-map size, as a slot's; its output has `positions` pixels.
    """

    layer: str
    stage: int
    shape: tuple[int, ...]
    many: int
    positions: int

    @property
    def places(self) -> int:
        """Weights of one kernel."""
        return math.prod(self.shape)

    @property
    def weights(self) -> int:
        """Weights of the layer."""
        return self.places * self.many


@dataclass(frozen=True, slots=True)
class KernelMean:
    """Guided sparsification (Liu et al. 2019, section 5): a keep probability for every place of a stage's 3x3 kernels.

    `ratios` holds nine numbers in (0, 1] a stage, row by row. Kernels of other shapes get the mean of the nine.
    """

    ratios: tuple[tuple[float, ...], ...]
    kind: str = "kernel-mean"

    @property
    def stages(self) -> int:
        """The number of stages it was fitted on."""
        return len(self.ratios)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The stages' probabilities."""
        return {"ratios": [list(stage) for stage in self.ratios]}

    def keep(self, stage: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The probabilities of a kernel of that shape at `stage`, whole or between two; shape (places,)."""
        own = np.array([between(column, stage) for column in zip(*self.ratios, strict=True)])
        return own if shape == TAUGHT else np.full(math.prod(shape), own.mean())

    def explain(self) -> str:
        """Each stage's share, and how it differs between the middle, the edges and the corners of a kernel."""
        stages = []
        for i, nine in enumerate(self.ratios):
            edges, corners = np.mean(np.take(nine, (1, 3, 5, 7))), np.mean(np.take(nine, (0, 2, 6, 8)))
            where = f"middle {100 * nine[PLACES // 2]:.1f}, edges {100 * edges:.1f}, corners {100 * corners:.1f}"
            stages.append(f"{100 * np.mean(nine):.1f} % of stage {i + 1} ({where})")
        return "keep " + ", ".join(stages) + " of the weights of 3x3 kernels"

    @property
    def non_uniformity(self) -> float:
        """How far stages and places are from alike: the probabilities' standard deviation over their mean."""
        flat = np.array(self.ratios)
        return float(flat.std() / flat.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for rule files; `kernel_mean_from_dict` reads it back."""
        explained = {"parameters": dict(self.parameters), "explanation": self.explain()}
        return {"schema": SCHEMA, "kind": self.kind, **explained}


EVEN = KernelMean(((1.0,) * PLACES,))
"""Every weight alike: what guided sparsification has to beat."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What decides which `weights` weights a training has: a rule that they are drawn from, or the supernet.

    Drawn masks are others for every seed of a training; without a rule the weights stay that are largest in the
    trained supernet, and `chosen` is the digest of those masks (`magnitude.digest`).
    """

    weights: int
    rule: KernelMean | None
    chosen: str = ""

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name it in `finals.csv`."""
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for another process."""
        ratios = self.rule and [list(nine) for nine in self.rule.ratios]
        return {"weights": self.weights, "ratios": ratios, "chosen": self.chosen}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Mask:
        """The inverse of `to_dict`."""
        ratios = data["ratios"]
        return cls(data["weights"], ratios and KernelMean(tuple(tuple(nine) for nine in ratios)), data["chosen"])


def kernel_mean_from_dict(data: Mapping[str, Any], source: str) -> KernelMean:
    """The rule in a rule file of the kind `kernel-mean`.

    Raises:
        UsageError: the schema or the kind is another, or the probabilities are missing or out of range.
    """
    if data.get("schema") != SCHEMA:
        raise UsageError(f"{source} has schema {data.get('schema')!r}. This version reads schema {SCHEMA}")
    if data.get("kind") != "kernel-mean":
        raise UsageError(
            f"{source} is a rule of widths ({data.get('kind')}). A budget of single weights takes a rule of the "
            "kind kernel-mean"
        )
    try:
        ratios = [list(nine) for nine in data["parameters"]["ratios"]]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{source} is not a kernel-mean rule: {error!r}") from None
    if not ratios or any(len(nine) != PLACES or not all(map(_is_share, nine)) for nine in ratios):
        raise UsageError(
            f"{source} is not a kernel-mean rule: it must hold {PLACES} shares from {_LEAST} to 1 for each stage"
        )
    return KernelMean(tuple(tuple(float(share) for share in nine) for nine in ratios))


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _LEAST <= value <= 1


def kernel_mean(kernels: Sequence[Kernel], kept: Counts, stages: int) -> KernelMean:
    """The rule that a pruned network's masks give.

    Args:
        kernels: its convolutions.
        kept: layer -> the number of weights kept at each place, shape (places,).
        stages: of the network. A stage without a 3x3 convolution takes the probabilities of its nearest ones.

    Raises:
        UsageError: no convolution has 3x3 kernels.
    """
    means: dict[int, NDArray[np.float64]] = {}
    for stage in range(stages):
        own = [kernel for kernel in kernels if kernel.stage == stage and kernel.shape == TAUGHT]
        if own:
            total = np.sum([kept[kernel.layer] for kernel in own], axis=0)
            means[stage] = np.clip(total / sum(kernel.many for kernel in own), _LEAST, 1.0)
    if not means:
        raise UsageError("the network has no 3x3 convolution, so there is no pattern of places to learn from it")
    ratios = []
    for stage in range(stages):
        gap = min(abs(stage - known) for known in means)
        near = np.mean([mean for known, mean in means.items() if abs(stage - known) == gap], axis=0)
        ratios.append(tuple(float(share) for share in near))
    return KernelMean(tuple(ratios))


def pattern_of(rule: KernelMean, name: str) -> Pattern:
    """The rule as a pattern with a ratio for each place of each stage, to see how far several agree (`stability`)."""
    ratios = (
        Ratio(f"stage {stage + 1} place {place + 1}", stage, place / (PLACES - 1), keep)
        for stage, nine in enumerate(rule.ratios)
        for place, keep in enumerate(nine)
    )
    return Pattern(name, rule.stages, tuple(ratios))


def average(rules: Sequence[KernelMean]) -> KernelMean:
    """The mean of rules of one number of stages.

    Raises:
        UsageError: no rule is given, or they differ in their number of stages.
    """
    if len({rule.stages for rule in rules}) != 1:
        raise UsageError(
            f"the rules have different numbers of stages, so no mean exists: {[rule.stages for rule in rules]}"
        )
    means = np.mean([rule.ratios for rule in rules], axis=0)
    return KernelMean(tuple(tuple(float(share) for share in nine) for nine in means))


def share_taught(kernels: Sequence[Kernel]) -> float:
    """The share of a network's weights that sits in 3x3 kernels: of the rest a rule knows only the stage's mean."""
    return sum(k.weights for k in kernels if k.shape == TAUGHT) / sum(k.weights for k in kernels)


def shares(rule: KernelMean, kernels: Sequence[Kernel], stages: int, weights: int) -> dict[str, NDArray[np.float64]]:
    """The rule's keep probabilities on another network, scaled as one until it keeps `weights` weights on average.

    Returns:
        Layer -> probabilities of its places, shape (places,).

    Raises:
        BudgetError: fewer than one weight a layer may be kept.
    """
    if weights < len(kernels):
        raise BudgetError(
            f"{weights:,} weights are less than one for each of {len(kernels)} layers. Raise the budget to at least "
            f"weights={math.ceil(1e4 * len(kernels) / sum(kernel.weights for kernel in kernels)) / 1e4:g}"
        )
    plain = {k.layer: rule.keep(on_scale(rule.stages, k.stage, stages), k.shape) for k in kernels}

    def at(scale: float) -> dict[str, NDArray[np.float64]]:
        return {layer: np.minimum(scale * keep, 1.0) for layer, keep in plain.items()}

    def expected(scale: float) -> float:
        own = at(scale)
        return sum(float(own[kernel.layer].sum()) * kernel.many for kernel in kernels)

    most = 1 / min(float(keep.min()) for keep in plain.values())
    return at(largest(lambda scale: expected(scale) <= weights, 0.0, most))


def planned(rule: KernelMean, kernels: Sequence[Kernel], stages: int, weights: int) -> Counts:
    """How many weights each place of each layer keeps, `weights` in all, by a rule on a network of `stages` stages."""
    return counts(kernels, shares(rule, kernels, stages, weights), weights)


def counts(kernels: Sequence[Kernel], probabilities: Mapping[str, NDArray[np.float64]], weights: int) -> Counts:
    """How many weights each place of each layer keeps: whole numbers near the probabilities that sum to `weights`.

    The rounding's remainder goes to the largest fractions; a layer keeps at least one weight.
    """
    wanted = np.concatenate([probabilities[kernel.layer] * kernel.many for kernel in kernels])
    room = np.concatenate([np.full(kernel.places, kernel.many) for kernel in kernels])
    given = np.floor(wanted + 1e-9).astype(np.int64)
    starts = np.cumsum([0, *(kernel.places for kernel in kernels)])
    for start, stop in pairwise(starts):
        if not given[start:stop].any():
            given[start + int(np.argmax(wanted[start:stop]))] = 1
    total = min(weights, int(room.sum()))
    order = np.argsort(-(wanted - given), kind="stable")
    while (left := total - int(given.sum())) > 0:
        open_ = order[given[order] < room[order]][:left]
        given[open_] += 1
    owner = np.repeat(np.arange(len(kernels)), [kernel.places for kernel in kernels])
    while int(given.sum()) > total:  # a layer's one weight may have taken more than there was
        in_layer = np.bincount(owner, given)
        spare = order[(given[order] > 0) & (in_layer[owner[order]] > 1)]
        given[spare[-1]] -= 1
    return {kernel.layer: given[a:b] for kernel, (a, b) in zip(kernels, pairwise(starts), strict=True)}
