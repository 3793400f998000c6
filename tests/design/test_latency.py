"""The latency formula against machines whose time is known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_nas.design.budget import Budget
from prune_nas.design.latency import MULTIPLES, Sample, advice, error, fitted, near, predicted, rounded, spread
from prune_nas.design.projection import project
from prune_nas.errors import BudgetError, UsageError
from tests.design.spaces import chain, keeps, vgg

SPACE = vgg(16)
EVEN = {slot.name: 1.0 for slot in SPACE.slots}


def milliseconds(widths, space=SPACE):
    """A machine with a fixed start-up, one speed for macs and a cost for every activation written."""
    cost = space.cost(widths)
    written = sum(layer.positions * widths[layer.name] for layer in space.layers if layer.name in widths)
    return 0.3 + 2e-8 * cost.macs + 1e-6 * written


def sample(widths, ms, *, at_limit=False):
    return Sample(widths, ms, 0.0, at_limit)


def samples(count=16, noise=0.0, seed=0):
    factors = np.random.default_rng(seed).lognormal(0, noise, 100)
    return [sample(w, milliseconds(w) * f) for w, f in zip(spread(SPACE, count, seed), factors, strict=False)]


def test_a_machine_of_its_own_form_is_learnt_exactly():
    known = samples()
    space = fitted(SPACE, known)
    assert predicted(space, known) == pytest.approx([s.median_ms for s in known], rel=1e-6)
    for widths in spread(SPACE, 5, 99):
        assert space.cost(widths).latency == pytest.approx(milliseconds(widths), rel=1e-3)
    assert error(SPACE, known) < 1e-3
    assert all(ms > 0 for _, ms in space.latency)


def test_a_noisy_machine_is_learnt_to_within_its_noise():
    assert error(SPACE, samples(24, noise=0.03)) < 0.06


def test_spread_reaches_from_the_narrowest_to_the_base():
    macs = [SPACE.cost(w).macs for w in spread(SPACE, 16, 0)]
    assert min(macs) == SPACE.cost(SPACE.narrowest).macs
    assert max(macs) == SPACE.cost(SPACE.base).macs
    assert len(set(macs)) == len(macs) >= 16


@settings(max_examples=25, deadline=None)
@given(keeps(SPACE), st.floats(0.2, 0.9))
def test_projection_lands_under_the_latency_and_next_to_it(keep, share):
    space = fitted(SPACE, samples())
    limits = Budget.parse(f"latency={share:.6g}").limits(space)
    ((_, limit),) = limits.bounds
    assert limit == pytest.approx(share * space.cost(space.base).latency, rel=1e-4)
    widths = project(space, keep, limits)
    assert space.cost(widths).latency <= limit
    if widths != space.widest:
        assert space.cost(widths).latency > 0.8 * limit


def test_networks_near_the_limit_are_at_it_and_the_formula_is_raised_until_most_of_them_keep_to_it():
    space = fitted(SPACE, samples())
    limits = Budget.parse("latency=0.4").limits(space)
    at_limit = near(space, limits, 5, 0)
    assert all(0.9 * limits.bounds[0][1] < space.cost(w).latency <= limits.bounds[0][1] for w in at_limit)
    slower = [*samples(), *(sample(w, milliseconds(w) * (1 + 0.02 * i), at_limit=True) for i, w in enumerate(at_limit))]
    careful = fitted(SPACE, slower)
    kept = [s.median_ms <= ms * 1.001 for s, ms in zip(slower, predicted(careful, slower), strict=True) if s.near]
    assert sum(kept) >= 0.8 * len(kept)
    assert careful.cost(careful.base).latency >= space.cost(space.base).latency


def test_grouped_and_full_convolutions_have_their_own_speed():
    rows = np.array([[s.ceiling for s in SPACE.slots]])
    assert {"constant", "params", "activations", "macs at 1024", "macs at 4"} <= set(SPACE.terms(rows))
    macs = sum(v[0] for name, v in SPACE.terms(rows).items() if "macs" in name)
    assert macs == SPACE.cost(SPACE.base).macs


@pytest.mark.parametrize(
    ("text", "canonical", "ms"),
    [("latency=3ms", "latency=3ms", 3), ("latency=2500us", "latency=2500us", 2.5), ("latency=1s", "latency=1s", 1000)],
)
def test_latencies_take_units_of_time(text, canonical, ms):
    budget = Budget.parse(text)
    assert str(budget) == canonical
    assert budget.bounds_latency
    assert dict(budget.limits(fitted(SPACE, samples())).bounds)["latency"] == pytest.approx(ms)


@pytest.mark.parametrize("text", ["latency=3", "latency=3M", "macs=3ms"])
def test_a_wrong_unit_names_the_right_ones(text):
    with pytest.raises(UsageError, match=r"Write \w+ in (us, ms, s|k, M, G)"):
        Budget.parse(text)


def test_a_latency_out_of_reach_says_what_is_in_reach():
    space = fitted(SPACE, samples())
    with pytest.raises(BudgetError, match=r"allows 0.1 ms.*has 0.3\d+ ms"):
        Budget.parse("latency=0.1ms").limits(space)


def test_a_latency_that_was_not_measured_is_no_number():
    with pytest.raises(UsageError, match="until it was measured"):
        Budget.parse("latency=3ms").limits(SPACE)


def test_rounding_keeps_multiples_floors_and_ceilings():
    space = chain([24, "M", 40], floor=4, multiple=4)
    assert dict(rounded(space, {"conv1": 20, "conv2": 28}, 8)) == {"conv1": 16, "conv2": 32}
    assert dict(rounded(space, {"conv1": 4, "conv2": 40}, 32)) == {"conv1": 4, "conv2": 32}


def judged(time, multiples, spread=0.2):
    widths = project(SPACE, EVEN, Budget.parse("macs=0.1").limits(SPACE))
    arms = {"base": SPACE.base, "found": widths}
    arms |= {f"found in multiples of {m}": rounded(SPACE, widths, m) for m in MULTIPLES}
    times = {"base": 10.0, "found": time, **{f"found in multiples of {m}": t for m, t in multiples.items()}}
    return advice(SPACE, arms, {name: Sample(arms[name], t, spread, False) for name, t in times.items()}, "found")


def test_advice_where_macs_fell_and_time_did_not():
    assert judged(1.5, {8: 1.0}) is None  # time followed
    said = judged(6.0, {8: 6.1, 16: 3.0, 32: 4.0})
    assert "10 % of the unpruned network's macs but takes 60 % of its time" in said
    assert "multiple = 16" in said
    assert "3 (2.9 to 3.1) ms instead of 6 (5.9 to 6.1) (medians, and" in said
    assert "bring no clear gain" in judged(6.0, {8: 5.1, 16: 4.4, 32: 4.6}, spread=2.0)  # the halves overlap
    assert "bring no clear gain" in judged(6.0, {8: 5.9, 16: 6.2})


def test_noise_is_not_taken_for_a_slow_network():
    said = judged(6.0, {8: 1.0}, spread=11.0)
    assert "takes" not in said
    assert "vary too much here" in said
    assert "found: 6 (0.5 to 11.5) ms, base: 10 (4.5 to 15.5) ms" in said
    assert "takes 60 %" in judged(6.0, {8: 6.1}, spread=1.0)
