"""Timing networks for a latency budget: measure, fit the cost formula, measure again at the limits, fit again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from prune_nas.design import latency as formula
from prune_nas.design.budget import Budget
from prune_nas.design.files import write_json
from prune_nas.design.latency import Sample
from prune_nas.design.records import SCHEMA
from prune_nas.design.space import Space, Widths
from prune_nas.errors import PruneNasError
from prune_nas.nets import latency
from prune_nas.nets.tracing import Traced
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run, read_json

_SPREAD = 16  # random shapes of all sizes
_NEAR = 5  # random shapes at a limit, a round
_ROUNDS = 2
_SECONDS = 0.3  # a network
_AGREED = 1.25  # times that should be equal may differ by this factor
FILE = "latency.json"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a latency holds for: examples a forward pass, CPU threads, device; eval mode, float32, channels-last."""

    batch: int
    threads: int
    device: str
    dtype: str = "float32"

    @classmethod
    def of(cls, batch: int, threads: int | None, device: torch.device) -> Conditions:
        """The conditions asked for; no threads given means as many as torch uses."""
        return cls(batch, threads or torch.get_num_threads(), str(device))

    def __str__(self) -> str:
        return (
            f"{self.device}, {self.threads} thread{'s' if self.threads > 1 else ''}, {self.dtype}, batch {self.batch}"
        )


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured, and the formula's median relative error at the limits, each network left out in turn."""

    conditions: Conditions
    samples: tuple[Sample, ...]
    error: float


def conditions_of(run: Run, device: torch.device) -> Conditions:
    """What the run's latencies are measured under: as its formula was, else as asked for.

    Raises:
        PruneNasError: the run's `latency.json` is damaged.
    """
    if run.file(FILE).exists():
        return _read(run.file(FILE))[0]
    return Conditions.of(run.config.latency_batch, run.config.latency_threads, device)


def _read(path: Path) -> tuple[Conditions, tuple[tuple[str, float], ...], float]:
    """Conditions, terms and the base's milliseconds as `timed` wrote them."""
    known = read_json(path)
    try:
        terms = tuple((str(name), float(ms)) for name, ms in known["terms"].items())
        return Conditions(**known["conditions"]), terms, float(known["base_ms"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PruneNasError(
            f"{path} is damaged ({error!r}). Restore it, or begin the run anew in another directory"
        ) from error


def timed(run: Run, traced: Traced, device: torch.device, view: View) -> Traced:
    """`traced` with a latency formula where a budget of the run bounds latency: read from the run, else measured.

    Raises:
        BudgetError: not even the narrowest network is fast enough.
        PruneNasError: the run's `latency.json` is damaged.
    """
    config, path = run.config, run.file(FILE)
    budgets = [budget for budget in config.budgets if budget.bounds_latency]
    if not budgets:
        return traced
    conditions = Conditions.of(config.latency_batch, config.latency_threads, device)
    if path.exists():
        before, terms, base = _read(path)
        if before != conditions:
            view.say(f"latency: the run keeps its first measurement ({before}). Now it would be {conditions}")
        return replace(traced, space=replace(traced.space, latency=terms, base_latency=base))
    space, timing = calibrate(traced, budgets, conditions, seed=config.seed, view=view)
    write_json(
        path,
        {
            "schema": SCHEMA,
            "conditions": asdict(conditions),
            "error": timing.error,
            "base_ms": space.base_latency,
            "terms": dict(space.latency),
            "samples": [{**asdict(s), "widths": dict(s.widths), "predicted_ms": ms}
                        for s, ms in zip(timing.samples, formula.predicted(space, timing.samples), strict=True)],
        },
    )  # fmt: skip
    return replace(traced, space=space)


def here(traced: Traced, budget: Budget, view: View) -> Space:
    """The space with a latency formula for one budget, measured now on the CPU at batch 1 with all of torch's threads.

    Raises:
        BudgetError: not even the narrowest network is fast enough.
    """
    conditions = Conditions.of(1, None, torch.device("cpu"))
    space, _ = calibrate(traced, [budget], conditions, seed=0, view=view)
    return space


def calibrate(
    traced: Traced, budgets: Sequence[Budget], conditions: Conditions, *, seed: int, view: View
) -> tuple[Space, Timing]:
    """Fit a latency formula for one network on this machine, with most care at the limits of `budgets`.

    Every round is measured with its networks in turns and the base among them; rounds are brought to one speed by the
    base, so that a machine that slows down in between does not pass for a slow network.

    Raises:
        BudgetError: not even the narrowest network is fast enough.
    """
    space, rounds = traced.space, [formula.spread(traced.space, _SPREAD, seed)]
    expected = len(rounds[0]) + len(budgets) * _ROUNDS * (_NEAR + 3) + 1 + _ROUNDS
    measured: list[list[Sample]] = []
    with view.phase("latency", expected, unit="networks") as bar:
        for number in range(_ROUNDS + 1):
            near = number > 0
            measured.append(_measure(traced, rounds[-1], conditions, bar, near=near))
            samples = _anchored(measured)
            space = formula.fitted(space, samples)
            first = seed + _NEAR * number
            rounds.append([w for b in budgets for w in formula.near(space, b.limits(space), _NEAR, first)])
    timing = Timing(conditions, samples, formula.error(space, samples))
    view.say(
        f"latency on {conditions}: the unpruned network takes {space.base_latency:.3g} ms. The time formula was fitted "
        f"on {len(samples)} networks. Its median error near the limit is {100 * timing.error:.0f} %"
    )
    if doubt := _doubt(space, timing, [samples[0].median_ms for samples in measured]):
        view.say(doubt)
    return space, timing


def _doubt(space: Space, timing: Timing, base: Sequence[float]) -> str:
    """A warning where the times that the formula was fitted on do not agree; empty where they do.

    Args:
        space: with the fitted formula.
        timing: what it was fitted on.
        base: milliseconds of the unpruned network in every round.
    """
    told, usual = space.cost(space.base).latency, median(base)
    reasons = []
    if max(base) > _AGREED * min(base):
        reasons.append(f"the unpruned network took {min(base):.3g} to {max(base):.3g} ms")
    if told is not None and not usual / _AGREED < told < _AGREED * usual:
        reasons.append(f"the formula gives the unpruned network {told:.3g} ms, and {usual:.3g} ms were measured")
    if timing.error > _AGREED - 1:
        reasons.append(f"the formula is {100 * timing.error:.0f} % off near the limit")
    if not reasons:
        return ""
    return (
        f"latency: the budget is uncertain, since {' and '.join(reasons)}. Another program may have taken the "
        f"processor. To measure again, stop this command, end other programs, delete {FILE} in the run directory and "
        "repeat the command"
    )


def _measure(traced: Traced, wanted: Iterable[Widths], conditions: Conditions, bar: Bar, *, near: bool) -> list[Sample]:
    """The base and the wanted networks, in that order."""
    found = _compare(traced, [traced.space.base, *wanted], conditions)
    for _ in found:
        bar.advance("timed")
    return [Sample(w, one.median_ms, one.iqr_ms, near and w != traced.space.base) for w, one in found.items()]


def _compare(traced: Traced, wanted: Iterable[Widths], conditions: Conditions) -> dict[Widths, latency.Latency]:
    """The latencies of networks of these widths, each measured once, in turns."""
    named = {widths.digest: widths for widths in wanted}
    found = latency.compare(
        {digest: traced.build(widths, seed=0) for digest, widths in named.items()},
        traced.space.input_shape,
        batch=conditions.batch,
        device=conditions.device,
        threads=conditions.threads,
        seconds=_SECONDS,
    )
    return {named[digest]: one for digest, one in found.items()}


def _anchored(rounds: Sequence[Sequence[Sample]]) -> tuple[Sample, ...]:
    """All samples at the speed at which the base, the first of every round, takes its median time."""
    usual = median(samples[0].median_ms for samples in rounds)
    return tuple(
        replace(sample, median_ms=sample.median_ms * usual / samples[0].median_ms)
        for samples in rounds
        for sample in samples
    )


def facts(
    traced: Traced,
    candidates: dict[str, list[Widths]],
    subject: str,
    limit_ms: float | None,
    conditions: Conditions,
    before: Mapping[str, Any],
    view: View,
) -> tuple[dict[str, Any], list[str]]:
    """Measured latencies of a budget's arms, and what a reader must be told of them.

    Args:
        traced: the network.
        candidates: arm -> its widths; the first is measured.
        subject: the arm that is judged.
        limit_ms: the budget's bound, if it has one.
        conditions: to measure under.
        before: what an earlier call returned. It is kept where it holds the same networks under the same conditions.
        view: where it is said that networks are measured now.

    Returns:
        Arm -> measurement (`nets.latency.Latency` as a dict, and `candidate`, the digest of its widths), and sentences:
        an arm over its bound, or macs that fell while time did not.
    """
    space = traced.space
    arms = {"base": space.base, **{arm: ws[0] for arm, ws in candidates.items() if arm not in ("random", "inherited")}}
    for multiple in formula.MULTIPLES:
        rounded = formula.rounded(space, arms[subject], multiple)
        if rounded not in arms.values():
            arms[f"{subject} in multiples of {multiple}"] = rounded
    measured = _kept(before, arms.values(), conditions)
    if measured is None:
        view.say(f"latency: timing {len(set(arms.values()))} networks on {conditions}")
        measured = _compare(traced, arms.values(), conditions)
    own = measured[arms[subject]]
    notes = []
    if limit_ms is not None and own.median_ms - own.iqr_ms / 2 > limit_ms:
        notes.append(
            f"{subject} measured {own.median_ms:.3g} ms ({conditions}), over the {limit_ms:.3g} ms asked for: the "
            f"formula is off there. Search again with latency={limit_ms**2 / own.median_ms:.3g}ms"
        )
    warning = formula.advice(space, arms, {arm: measured[widths] for arm, widths in arms.items()}, subject)
    rows = {arm: {**asdict(measured[w]), "candidate": w.digest} for arm, w in arms.items()}
    return rows, [*notes, *([warning] if warning else [])]


def _kept(
    before: Mapping[str, Any], wanted: Iterable[Widths], conditions: Conditions
) -> dict[Widths, latency.Latency] | None:
    """The latencies of all wanted networks as they were measured before, under the same conditions; None if not all."""
    found = {}
    rows = {row.get("candidate"): row for row in before.values()}
    for widths in wanted:
        row = dict(rows.get(widths.digest, {}))
        row.pop("candidate", None)
        try:
            found[widths] = latency.Latency(**row)
        except TypeError:
            return None
        if Conditions(row["batch"], row["threads"], row["device"], row["dtype"]) != conditions:
            return None
    return found
