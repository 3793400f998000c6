"""Latency as a cost formula: fitted on measured networks, monotone in every width, so that a budget can be met by it.

A network's time is modelled as a sum of its terms (`Space.terms`) with coefficients that are never negative. Like macs
and params the sum is a quadratic form in the widths: projecting onto a latency takes no measurement, gives the same
widths on every call, and holds for all arms alike. What it cannot know, such as steps at the widths that fill a vector
register, stays in its error, which is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prune_nas.design import family
from prune_nas.design.budget import Limits
from prune_nas.design.projection import project, uniform_widths
from prune_nas.design.space import Space, Widths
from prune_nas.design.words import capital, spoken

MULTIPLES = (8, 16, 32)
_NEAR = 3.0  # how much more a network near the limit weighs in the fit
_MET = 0.9  # the share of the networks measured near a limit that keep to it
_SLOWER_THAN_MACS = 0.5  # time that falls less than this share of macs' fall, on a log scale, is worth a warning
_GAIN = 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured network: median time in milliseconds, its quartile range, and whether it lies near a limit."""

    widths: Widths
    median_ms: float
    iqr_ms: float
    near: bool


def spread(space: Space, count: int, seed: int) -> list[Widths]:
    """Networks to begin with: the narrowest, uniform ones of five sizes, and `count` random shapes of all sizes."""
    base, least = space.cost(space.base).macs, space.cost(space.narrowest).macs
    shares = np.geomspace(min(1.5 * least / base, 1.0), 1.0, count)
    limits = [Limits((("macs", float(share) * base),)) for share in shares]
    scales = (Limits((("macs", share * base + (1 - share) * least),)) for share in (0.05, 0.2, 0.4, 0.7, 1.0))
    uniform = [uniform_widths(space, limit) for limit in scales]
    random = [family.random_widths(space, limit, seed + i) for i, limit in enumerate(limits)]
    return list(dict.fromkeys([space.narrowest, *uniform, *random]))


def near(space: Space, limits: Limits, count: int, seed: int) -> list[Widths]:
    """Networks at a limit by the present formula: uniform, two tapers and `count` random shapes."""
    tilts = [{s.name: math.exp(tilt * s.stage) for s in space.slots} for tilt in (0.0, -0.5, 0.25)]
    shapes = [project(space, tilt, limits) for tilt in tilts]
    return list(dict.fromkeys([*shapes, *(family.random_widths(space, limits, seed + i) for i in range(count))]))


def fitted(space: Space, samples: Sequence[Sample]) -> Space:
    """`space` with a latency: the non-negative coefficients whose relative error on the samples is least.

    Where networks near a limit were measured, the coefficients are raised until nine in ten of those keep to what the
    formula says, so that a projected network rarely measures above its budget. The base must be among the samples.
    """
    base = median(sample.median_ms for sample in samples if sample.widths == space.base)
    fit = replace(space, latency=_coefficients(space, samples), base_latency=base)
    close = [sample for sample in samples if sample.near]
    if not close:
        return fit
    ratios = [sample.median_ms / ms for sample, ms in zip(close, predicted(fit, close), strict=True)]
    safety = max(1.0, float(np.quantile(ratios, _MET)))
    return replace(fit, latency=tuple((name, safety * ms) for name, ms in fit.latency))


def predicted(space: Space, samples: Sequence[Sample]) -> list[float]:
    """Milliseconds of the samples' networks by the formula of `space`."""
    return [float(ms) for ms in space.latencies(_rows(space, samples))]


def error(space: Space, samples: Sequence[Sample]) -> float:
    """The median relative error of the formula on samples that it was not fitted on: each left out in turn.

    Over the networks near a limit, where there are any.
    """
    errors = []
    for i, sample in enumerate(samples):
        if sample.near or not any(other.near for other in samples):
            others = [*samples[:i], *samples[i + 1 :]]
            (ms,) = predicted(replace(space, latency=_coefficients(space, others)), [sample])
            errors.append(abs(ms / sample.median_ms - 1))
    return median(errors)


class Timed(Protocol):
    """A measured time, in milliseconds: its median and quartile range."""

    @property
    def median_ms(self) -> float:
        """The median."""

    @property
    def iqr_ms(self) -> float:
        """The range of the middle half."""


def advice(space: Space, arms: Mapping[str, Widths], measured: Mapping[str, Timed], arm: str) -> str | None:
    """A warning where macs fell and time did not, with the width multiple that helps; None where time followed.

    A multiple helps where half a quartile range to either side of the medians leaves a gap.

    Args:
        space: of all networks.
        arms: name -> widths; beside `base` and the arm the arm's `rounded` ones as `<arm> in multiples of <m>`.
        measured: name -> its time.
        arm: which to judge.
    """
    base, own = space.cost(space.base).macs, space.cost(arms[arm]).macs
    macs, time = own / base, measured[arm].median_ms / measured["base"].median_ms
    if macs >= 1 or math.log(time) <= _SLOWER_THAN_MACS * math.log(macs):
        return None
    if math.log(_least(measured[arm], measured["base"])) <= _SLOWER_THAN_MACS * math.log(macs):
        return (
            "Times vary too much here to say whether time fell as macs did "
            f"({arm}: {_spoken(measured[arm])} ms, base: {_spoken(measured['base'])} ms, medians, and half a quartile "
            "range to either side). Measure again on an idle machine."
        )
    share, slow = f"{100 * macs:.0f} %", f"{100 * time:.0f} %"
    said = capital(f"{spoken(arm)} has {share} of the unpruned network's macs but takes {slow} of its time.")
    names = {multiple: f"{arm} in multiples of {multiple}" for multiple in MULTIPLES}
    before = measured[arm]
    gains = {
        multiple: measured[name]
        for multiple, name in names.items()
        if name in measured and _is_faster(measured[name], before)
    }
    best = min(gains, key=lambda multiple: gains[multiple].median_ms, default=None)
    if best is None:
        return f"{said} Widths in multiples of {', '.join(map(str, MULTIPLES))} bring no clear gain."
    rounded = space.cost(arms[names[best]]).macs / base
    return (
        f"{said} The same shape in multiples of {best} takes {_spoken(gains[best])} ms instead of {_spoken(before)} "
        f"(medians, and half a quartile range to either side) at {100 * rounded:.0f} % of the macs: set "
        f"multiple = {best} in a --space file."
    )


def _least(time: Timed, base: Timed) -> float:
    """The smallest ratio of two times that half a quartile range to either side leaves possible."""
    return max(time.median_ms - time.iqr_ms / 2, 1e-9) / (base.median_ms + base.iqr_ms / 2)


def _is_faster(time: Timed, before: Timed) -> bool:
    gap = before.median_ms - time.median_ms
    return time.median_ms <= _GAIN * before.median_ms and gap >= (before.iqr_ms + time.iqr_ms) / 2


def _spoken(time: Timed) -> str:
    half = time.iqr_ms / 2
    return f"{time.median_ms:.3g} ({max(time.median_ms - half, 0):.3g} to {time.median_ms + half:.3g})"


def rounded(space: Space, widths: Mapping[str, int], multiple: int) -> Widths:
    """`widths` with every slot at its nearest multiple of `multiple`, where its own multiple and base allow that."""

    def nearest(name: str, width: int) -> int:
        slot = space.by_name[name]
        step = math.lcm(slot.multiple, multiple)
        return slot.snap(max(step, round(width / step) * step)) if step <= slot.ceiling else width

    return Widths({name: nearest(name, width) for name, width in widths.items()})


def _coefficients(space: Space, samples: Sequence[Sample]) -> tuple[tuple[str, float], ...]:
    from scipy.optimize import nnls  # noqa: PLC0415 - it takes a third of a second, which few runs need

    terms = space.terms(_rows(space, samples))
    weight = np.array([(_NEAR if sample.near else 1.0) / sample.median_ms for sample in samples])
    columns = np.stack(list(terms.values()), axis=1) * weight[:, None]
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-30)
    solution, _ = nnls(columns / scale, weight * np.array([sample.median_ms for sample in samples]))
    return tuple((name, float(c)) for name, c in zip(terms, solution / scale, strict=True) if c > 0)


def _rows(space: Space, samples: Sequence[Sample]) -> NDArray[np.int64]:
    return np.array([[sample.widths[slot.name] for slot in space.slots] for sample in samples], dtype=np.int64)
