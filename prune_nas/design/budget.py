"""Budgets: what a network may cost, as text, as a value, and as absolute limits of one space."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prune_nas.design.space import Cost, Space
from prune_nas.errors import BudgetError, UsageError

COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}
UNITS: Mapping[str, Mapping[str, float]] = {"macs": COUNTS, "params": COUNTS, "latency": TIMES, "weights": COUNTS}
KINDS = tuple(UNITS)
_BOUND = re.compile(r"\s*(\w+)\s*=\s*([0-9.eE+-]+)\s*([a-zA-Z]*)\s*")
_SHARE = re.compile(r"\s*(?:(\w+)\s*=\s*)?([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*")  # a percentage, or a number without a kind
_HINT = (
    "Write it as macs=0.4, params=1.5M, latency=3ms, macs=0.2,params=0.05 or, for single weights, weights=0.1 "
    "(a number up to 1 without a unit is a fraction of the base)"
)


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound on one cost: a fraction of the base's if `unit` is None, else `value` times the unit."""

    kind: str
    value: float
    unit: str | None

    def __str__(self) -> str:
        return f"{self.kind}={self.value:.12g}{self.unit or ''}"


@dataclass(frozen=True, slots=True)
class Limits:
    """A budget made absolute for one space: cost kind -> largest allowed value, a latency's in milliseconds."""

    bounds: tuple[tuple[str, float], ...]

    def admits(self, cost: Cost) -> bool:
        """Whether `cost` meets every bound."""
        return all(cost.of(kind) <= limit for kind, limit in self.bounds)


@dataclass(frozen=True, slots=True)
class Budget:
    """One or several upper bounds that must hold at once; `str(budget)` is its canonical text."""

    bounds: tuple[Bound, ...]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget such as `macs=0.4`, `params=1.5M` or `macs=0.2,params=0.05`.

        Raises:
            UsageError: the text is unreadable, names an unknown cost or one cost twice, or a value is not above 0.
        """
        bounds = [_parse_bound(part, text) for part in text.split(",")]
        kinds = [bound.kind for bound in bounds]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise UsageError(f"budget {text!r} bounds {kind} twice. Keep one of the two")
        if "weights" in kinds and len(kinds) > 1:
            raise UsageError(
                f"budget {text!r}: weights=... prunes single weights of convolutions. It cannot be combined with a "
                "limit on widths"
            )
        return cls(tuple(sorted(bounds, key=lambda bound: KINDS.index(bound.kind))))

    def __str__(self) -> str:
        return ",".join(map(str, self.bounds))

    @property
    def bounds_latency(self) -> bool:
        """Whether networks must be timed before it can be met."""
        return any(bound.kind == "latency" for bound in self.bounds)

    @property
    def bounds_weights(self) -> bool:
        """Whether single weights are pruned instead of channels."""
        return any(bound.kind == "weights" for bound in self.bounds)

    def share_of(self, total: int) -> Budget:
        """A budget of single weights as a share of `total` weights."""
        (bound,) = self.bounds
        return self if bound.unit is None else Budget((Bound("weights", self.weights(total) / total, None),))

    def weights(self, total: int) -> int:
        """Of `total` weights, how many a budget of single weights leaves."""
        (bound,) = self.bounds
        return min(round(bound.value * (total if bound.unit is None else UNITS["weights"][bound.unit])), total)

    def limits(self, space: Space) -> Limits:
        """The absolute limits for `space`, fractions being of its base.

        Raises:
            BudgetError: even the narrowest network of the space is over a bound.
            UsageError: a latency is bounded, and the space holds none; or single weights are.
        """
        if self.bounds_weights:
            raise UsageError(
                f"budget {self} prunes single weights and keeps all widths. Use it in `transfer`, or in `search` with "
                "--trials 0"
            )
        base, least = space.cost(space.base)._replace(latency=space.base_latency), space.cost(space.narrowest)
        limits = {b.kind: b.value * (base.of(b.kind) if b.unit is None else UNITS[b.kind][b.unit]) for b in self.bounds}
        for bound in self.bounds:
            if least.of(bound.kind) > limits[bound.kind]:
                raise BudgetError(_unreachable(space, bound, limits, least, base))
        return Limits(tuple(limits.items()))


def prune_weights(budgets: Iterable[Budget]) -> bool:
    """Whether budgets are of single weights.

    Raises:
        UsageError: some are, and some are of widths.
    """
    sorts = {budget.bounds_weights for budget in budgets}
    if len(sorts) > 1:
        raise UsageError(
            "budgets of single weights (weights=...) and of widths cannot share a run. Start a run for each"
        )
    return sorts == {True}


def _parse_bound(part: str, text: str) -> Bound:
    match = _BOUND.fullmatch(part)
    if not match:
        raise UsageError(f"cannot read budget {text!r}. {_did_you_mean(_share(part))}{_HINT}")
    kind, number, unit = match.groups()
    if kind not in KINDS:
        near = difflib.get_close_matches(kind.lower(), KINDS, n=1, cutoff=0.5)
        meant = _did_you_mean(f"{near[0]}={number}{unit}" if near else "")
        raise UsageError(f"there is no cost {kind!r} (budget {text!r}). {meant}Known: {', '.join(KINDS)}")
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"cannot read the number {number!r} in budget {text!r}. {_HINT}") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"budget {text!r}: {kind} must be a finite number above 0. Got {number}{unit}")
    fraction = unit == "" and value <= 1
    if unit not in UNITS[kind] and not fraction:
        known = ", ".join(filter(None, UNITS[kind]))
        usual = "ms" if kind == "latency" and not unit else unit
        alike = next((one for one in UNITS[kind] if one and one.lower() == usual.lower()), "")
        meant = _did_you_mean(f"{kind}={number}{alike}" if alike else "")
        what = f"there is no unit {unit!r}" if unit else "the unit is missing"
        raise UsageError(
            f"{what} (budget {text!r}). {meant}Write {kind} in {known}, or as a share of the base such as 0.5"
        )
    return Bound(kind, value, None if fraction else unit)


def _share(part: str) -> str:
    """The bound that a percentage or a bare share stands for; empty where it is neither."""
    match = _SHARE.fullmatch(part)
    if not match:
        return ""
    kind, number, percent = match.groups()
    value = float(number) / 100 if percent else float(number)
    near = difflib.get_close_matches(kind.lower() if kind else "macs", KINDS, n=1, cutoff=0.5)
    return f"{near[0]}={value:g}" if near and 0 < value <= 1 else ""


def _did_you_mean(text: str) -> str:
    return f"Did you mean {text}? " if text else ""


def amount(kind: str, value: float) -> str:
    """A cost in words: `1,234 macs` or `3.21 ms`."""
    return f"{value:.3g} ms" if kind == "latency" else f"{value:,.0f} {kind}"


_MUCH = 0.2  # of the cheapest network's cost
_NAMED = 3  # frozen dimensions in one message


def _unreachable(space: Space, bound: Bound, limits: Mapping[str, float], least: Cost, base: Cost) -> str:
    kind, lowest, whole = bound.kind, least.of(bound.kind), base.of(bound.kind)
    bare = " (a number above 1 without a unit is absolute: millions are written 1.5M)" if bound.unit == "" else ""
    said = (
        f"budget {bound} allows {amount(kind, limits[kind])}{bare}, but the smallest {space.model} possible (every "
        f"width at its floor) has {amount(kind, lowest)}, {lowest / whole:.4f} of the unpruned network's"
    )
    if lowest >= whole:
        return f"{said}. Its {kind} does not depend on widths here: limit macs or params instead"
    value = (
        f"{math.ceil(1e3 * lowest) / 1e3:g}ms" if kind == "latency" else f"{math.ceil(1e4 * lowest / whole) / 1e4:g}"
    )
    return (
        f"{said}.{_held(space, kind, lowest)} Raise the budget to at least {kind}={value}, take a larger "
        "--base-width, or lower `floor` in a --space file"
    )


def _held(space: Space, kind: str, lowest: float) -> str:
    """What is frozen, where that is much of what is left; empty where it is not."""
    held = space.held(kind) / lowest if kind != "latency" and lowest else 0.0
    if held < _MUCH or not space.frozen:
        return ""
    named = [f"{one.dimension} ({one.reason})" for one in space.frozen[:_NAMED]]
    more = f" and {len(space.frozen) - len(named)} more" if len(space.frozen) > len(named) else ""
    return f" Of these {kind}, {100 * held:.0f} % do not depend on a free width. Frozen are {', '.join(named)}{more}."
