"""Design rules: a keep ratio as a short formula of where a slot sits, fitted on patterns, applied to any space.

A new rule is a file here with the five members of `Rule`, and a line in `FITS` (if it is fitted) and in `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

from prune_nas.design.patterns import Pattern, stage_means
from prune_nas.design.records import SCHEMA
from prune_nas.design.rules.depth_curve import KNOTS, DepthCurve, fit_depth_curve
from prune_nas.design.rules.nulls import Random, Taper, Uniform, fit_taper, taper_widths
from prune_nas.design.rules.quantised_linear import QuantisedLinear, fit_quantised_linear
from prune_nas.design.rules.rule import Rule, apply, keep_of, place
from prune_nas.design.rules.stage_mean import StageMean, fit_stage_mean
from prune_nas.errors import UsageError, unknown


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted rule and how well it describes its patterns.

    `residual` is the root mean square of keep ratio minus rule, over all slots of all patterns; `spread` the
    standard deviation of each stage's mean over the patterns (empty for one pattern): what the rule's own numbers are
    uncertain by.
    """

    rule: Rule
    patterns: tuple[str, ...]
    residual: float
    spread: tuple[float, ...]


def fit(kind: str, patterns: Sequence[Pattern]) -> Fit:
    """A rule of the kind, fitted on one or many patterns, each counting by its weight.

    Raises:
        UsageError: the kind cannot be fitted, no pattern is given, or patterns differ in their number of stages.
    """
    if kind not in FITS:
        raise unknown("rule", kind, FITS)
    if not patterns:
        raise UsageError("fitting a rule takes at least one pattern. Got none")
    if len({pattern.stages for pattern in patterns}) > 1:
        spoken = ", ".join(f"{pattern.name}: {pattern.stages}" for pattern in patterns)
        raise UsageError(f"patterns that are fitted together must agree in their number of stages. Got {spoken}")
    rule = FITS[kind](patterns)
    off = [(p.weight, r.keep - rule.keep(r.stage, r.depth)) for p in patterns for r in p.ratios]
    residual = math.sqrt(sum(w * e**2 for w, e in off) / sum(w for w, _ in off))
    means = [stage_means(pattern) for pattern in patterns]
    spread = tuple(stdev(column) for column in zip(*means, strict=True)) if len(patterns) > 1 else ()
    return Fit(rule, tuple(pattern.name for pattern in patterns), residual, spread)


def to_dict(fitted: Fit) -> dict[str, Any]:
    """Plain data for `rule.json` and rule files; `rule_from_dict` reads the rule back."""
    return {
        "schema": SCHEMA,
        "kind": fitted.rule.kind,
        "parameters": dict(fitted.rule.parameters),
        "explanation": fitted.rule.explain(),
        "fit": {"patterns": list(fitted.patterns), "residual": fitted.residual, "spread": list(fitted.spread)},
    }


def rule_from_dict(data: Mapping[str, Any], source: str) -> Rule:
    """The rule in a rule file.

    Args:
        data: what `to_dict` wrote, with or without more.
        source: the file's name, for errors.

    Raises:
        UsageError: the schema or the kind is unknown, or parameters are missing or out of range.
    """
    if data.get("schema") != SCHEMA:
        raise UsageError(f"{source} has schema {data.get('schema')!r}. This version reads schema {SCHEMA}")
    kind = str(data.get("kind"))
    if kind == "kernel-mean":
        raise UsageError(f"{source} is a rule of single weights. It takes a budget such as weights=0.1")
    if kind not in KINDS:
        raise unknown(f"rule in {source}", kind, KINDS)
    try:
        return KINDS[kind](dict(data["parameters"]))
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{source} is not a {kind} rule: {said}") from None


def _ratio(value: Any) -> float:
    ratio = float(value)
    if not 0 < ratio <= 1:
        raise ValueError(f"keep ratios must lie in (0, 1]. Got {value}")
    return ratio


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"it must be a positive number. Got {value}")
    return number


def _count(value: Any, least: int) -> int:
    if int(value) != value or value < least:
        raise ValueError(f"it must be a whole number of at least {least}. Got {value}")
    return int(value)


def _stage_mean(data: Mapping[str, Any]) -> Rule:
    ratios = tuple(map(_ratio, data["ratios"]))
    if not ratios:
        raise ValueError("ratios are empty")
    return StageMean(ratios)


def _depth_curve(data: Mapping[str, Any]) -> Rule:
    curves = tuple(tuple(map(_ratio, curve)) for curve in data["ratios"])
    if not curves or any(len(curve) != len(KNOTS) for curve in curves):
        raise ValueError(f"ratios must hold {len(KNOTS)} numbers for each stage")
    return DepthCurve(curves)


def _quantised_linear(data: Mapping[str, Any]) -> Rule:
    if _positive(data["step"]) <= 1:
        raise ValueError(f"step must be above 1. Got {data['step']}")
    slope = float(data["slope"])
    if not math.isfinite(slope):
        raise ValueError(f"slope must be finite. Got {slope}")
    return QuantisedLinear(_ratio(data["start"]), slope, float(data["step"]), _count(data["stages"], 1))


FITS: Mapping[str, Callable[[Sequence[Pattern]], Rule]] = {
    "stage-mean": fit_stage_mean,
    "depth-curve": fit_depth_curve,
    "quantised-linear": fit_quantised_linear,
}
KINDS: Mapping[str, Callable[[Mapping[str, Any]], Rule]] = {
    "stage-mean": _stage_mean,
    "depth-curve": _depth_curve,
    "quantised-linear": _quantised_linear,
    "uniform": lambda data: Uniform(),
    "taper": lambda data: Taper(_positive(data["ratio"])),
    "random": lambda data: Random(_count(data["seed"], 0)),
}

__all__ = [
    "FITS",
    "KINDS",
    "DepthCurve",
    "Fit",
    "QuantisedLinear",
    "Random",
    "Rule",
    "StageMean",
    "Taper",
    "Uniform",
    "apply",
    "fit",
    "fit_taper",
    "keep_of",
    "place",
    "rule_from_dict",
    "taper_widths",
    "to_dict",
]
