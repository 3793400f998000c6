import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_nas.design.budget import Budget, Limits
from prune_nas.design.patterns import Pattern, Ratio, pattern_of
from prune_nas.design.rules import (
    FITS,
    DepthCurve,
    QuantisedLinear,
    Random,
    StageMean,
    Taper,
    Uniform,
    apply,
    fit,
    fit_taper,
    keep_of,
    place,
    rule_from_dict,
    to_dict,
)
from prune_nas.errors import BudgetError, UsageError
from tests.design.spaces import chain, spaces, vgg
from tests.design.test_space import VGG19_70, named

STAGES = (64, 128, 256, 512, 512)
ratios = st.floats(0.1, 1.0)
RULES = {
    "stage-mean": st.lists(ratios, min_size=5, max_size=5).map(lambda rs: StageMean(tuple(rs))),
    "depth-curve": st.lists(st.tuples(ratios, ratios, ratios), min_size=5, max_size=5).map(
        lambda rs: DepthCurve(tuple(rs))
    ),
    "quantised-linear": st.builds(QuantisedLinear, ratios, st.floats(-0.5, 0.5), st.floats(1.1, 2.5), st.just(5)),
}
any_rule = st.one_of(*RULES.values(), st.builds(Taper, st.floats(0.3, 1.5)), st.builds(Random, st.integers(0, 99)))
budgets = st.one_of(st.floats(0.05, 1).map(lambda a: (a, None)), st.tuples(st.floats(0.05, 1), st.floats(0.02, 1)))


def test_the_published_vgg19_row_gives_its_guided_network():
    """57, 128, 236, 48 and 38 channels a layer: 2.24M params and 201M macs."""
    space = vgg(19)
    rule = fit("stage-mean", [pattern_of(space, named(space, VGG19_70))]).rule
    guided = space.snap(keep_of(rule, space))
    assert [guided[f"conv{i}"] for i in (1, 3, 5, 9, 13)] == [57, 128, 236, 48, 38]
    cost = space.cost(guided)
    assert cost.params == pytest.approx(2.24e6, rel=0.01)
    assert cost.macs == pytest.approx(201e6, rel=0.01)


@pytest.mark.parametrize("kind", ["stage-mean", "depth-curve"])
@given(data=st.data())
def test_fit_recovers_a_rule_from_its_own_output(kind, data):
    space, rule = vgg(16), data.draw(RULES[kind])
    again = fit(kind, [sampled(rule, space)])
    assert again.residual == pytest.approx(0, abs=1e-5)
    for name, keep in keep_of(rule, space).items():
        assert keep_of(again.rule, space)[name] == pytest.approx(keep, abs=1e-4)


@settings(max_examples=20)
@given(RULES["quantised-linear"])
def test_fit_recovers_a_quantised_line_from_its_own_output(rule):
    space = vgg(16)
    pattern = sampled(rule, space)
    again = fit("quantised-linear", [pattern])
    size = np.mean([r.keep for r in pattern.ratios])
    flat = fit("stage-mean", [Pattern("flat", 1, tuple(Ratio(r.slot, 0, 0, r.keep) for r in pattern.ratios))])
    assert again.residual <= max(0.06 * size, 0.5 * flat.residual)


def sampled(rule, space):
    """What a rule says at the slots of a space, without rounding to channels."""
    keep = keep_of(rule, space)
    return Pattern(
        "own output", space.stages, tuple(Ratio(s.name, s.stage, s.depth, keep[s.name]) for s in space.slots)
    )


def test_patterns_count_by_their_weights_and_leave_their_spread():
    space = chain([10, "M", 10])
    rows = [(10, 5), (6, 5)]
    alike = fit("stage-mean", [pattern_of(space, named(space, row)) for row in rows])
    assert alike.rule.ratios == pytest.approx((0.8, 0.5))
    assert alike.spread == pytest.approx((0.2 * 2**0.5, 0))
    assert alike.residual == pytest.approx((0.04 / 2) ** 0.5)
    heavier = [pattern_of(space, named(space, row), weight=w) for row, w in zip(rows, (3, 1), strict=True)]
    assert fit("stage-mean", heavier).rule.ratios == pytest.approx((0.9, 0.5))
    assert fit("depth-curve", heavier).rule.keep(0, 0) == pytest.approx(0.9, abs=1e-4)


def test_patterns_that_cannot_be_fitted_together_are_refused():
    one, two = chain([8]), chain([8, "M", 8])
    several = [pattern_of(one, named(one, (4,)), "short"), pattern_of(two, named(two, (4, 4)), "long")]
    with pytest.raises(UsageError, match="Got short: 1, long: 2"):
        fit("stage-mean", several)
    with pytest.raises(UsageError, match="at least one"):
        fit("stage-mean", [])
    with pytest.raises(UsageError, match="Did you mean stage-mean"):
        fit("stage-means", several)


def test_a_depth_curve_bends_within_a_stage_and_stays_at_the_mean_where_nothing_is_known():
    space = vgg(16)
    keep = {s.name: 0.9 - 0.4 * s.depth for s in space.slots}
    pattern = Pattern("falls", 5, tuple(Ratio(s.name, s.stage, s.depth, keep[s.name]) for s in space.slots))
    rule = fit("depth-curve", [pattern]).rule
    assert rule.ratios[4] == pytest.approx((0.9, 0.7, 0.5), abs=1e-4)
    assert rule.keep(4, 0.25) == pytest.approx(0.8, abs=1e-4)
    alone = chain([10])
    (curve,) = fit("depth-curve", [pattern_of(alone, named(alone, (6,)))]).rule.ratios
    assert curve == pytest.approx((0.6, 0.6, 0.6), abs=1e-4)


def test_a_quantised_line_is_regnets():
    """Start 1/4 and slope 1/2 over four stages of one layer: 0.25 to 0.625 in steps of 2 are 1/4, 1/2, 1/2, 1/2."""
    rule = QuantisedLinear(0.25, 0.5, 2.0, 4)
    assert [rule.keep(stage, 0.0) for stage in range(4)] == pytest.approx([0.25, 0.5, 0.5, 0.5])


def test_widths_of_a_19_layer_net_from_a_16_layer_rule():
    """Worked out by hand: stage means 0.5, 0.75, 1, 0.25, 0.125 of 64, 128, 256, 512, 512, whatever the layers."""
    sixteen, nineteen = vgg(16), vgg(19)
    found = (24, 40, 96, 96, 256, 256, 256, 100, 128, 156, 64, 64, 64)
    rule = fit("stage-mean", [pattern_of(sixteen, named(sixteen, found))]).rule
    widths = nineteen.snap(keep_of(rule, nineteen))
    assert list(widths.values()) == [32, 32, 96, 96, *[256] * 4, *[128] * 4, *[64] * 4]


@pytest.mark.parametrize(
    ("stages", "asked"), [(5, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (9, [i / 2 for i in range(9)]), (1, [2])]
)
def test_other_numbers_of_stages_are_asked_in_proportion(stages, asked):
    rule = StageMean((0.2, 0.4, 0.6, 0.8, 1.0))
    places = [place(rule, stage, stages) for stage in range(stages)]
    assert places == asked
    assert [rule.keep(p, 0.5) for p in places] == pytest.approx([0.2 + 0.2 * p for p in places])
    assert place(Taper(), 3, stages) == 3


@settings(max_examples=60)
@given(any_rule, spaces(), budgets)
def test_apply_meets_every_budget_within_the_slots_granularity(rule, space, shares):
    limits = limits_of(space, shares)
    widths = apply(rule, space, limits)
    assert limits.admits(space.cost(widths))
    if widths == space.widest:
        return
    keep, scale = keep_of(rule, space), 1.0
    sizes = {s.name: widths[s.name] / (keep[s.name] * s.ceiling) for s in space.slots}
    scale = max(sizes[s.name] + s.multiple / (keep[s.name] * s.ceiling) for s in space.slots)
    assert not limits.admits(space.cost(space.snap({name: scale * ratio for name, ratio in keep.items()})))


@settings(max_examples=60)
@given(any_rule, spaces(), st.floats(0.05, 1), st.floats(1, 3))
def test_a_larger_budget_never_narrows_a_slot_by_more_than_what_rounding_left(rule, space, share, more):
    """What rounding leaves of the smaller budget may widen a slot by one step, and by none under the larger one."""
    small, large = (limits_of(space, (min(share * factor, 1), None)) for factor in (1, more))
    narrow, wide = apply(rule, space, small), apply(rule, space, large)
    assert all(narrow[slot.name] <= wide[slot.name] + slot.multiple for slot in space.slots)


def limits_of(space, shares):
    """Fractions of the base's macs and params, but never below what the narrowest net costs."""
    base, least = space.cost(space.base), space.cost(space.narrowest)
    kinds = [(kind, share) for kind, share in zip(("macs", "params"), shares, strict=True) if share is not None]
    return Limits(tuple((kind, max(share * base.of(kind), least.of(kind))) for kind, share in kinds))


@given(any_rule)
def test_rules_survive_their_file(rule):
    data = json.loads(json.dumps({"schema": 1, "kind": rule.kind, "parameters": dict(rule.parameters)}))
    assert rule_from_dict(data, "x.json") == rule


def test_a_fit_in_a_file_says_what_it_was_made_of():
    space = vgg(16)
    data = to_dict(fit("stage-mean", [pattern_of(space, space.widest, "run A")]))
    assert rule_from_dict(data, "x.json") == StageMean((1.0,) * 5)
    assert data["fit"] == {"patterns": ["run A"], "residual": 0.0, "spread": []}
    assert data["explanation"].startswith("keep 100 % of stage 1")
    assert set(FITS) == {"stage-mean", "depth-curve", "quantised-linear"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "x.json has schema 2. This version reads schema 1"),
        ({"kind": "stage-men"}, "Did you mean stage-mean"),
        ({"parameters": {}}, "x.json is not a stage-mean rule: 'ratios' is missing"),
        ({"parameters": {"ratios": [0.5, 1.5]}}, r"keep ratios must lie in \(0, 1\]. Got 1.5"),
        ({"parameters": {"ratios": [0.5, 0]}}, r"Got 0"),
        ({"parameters": {"ratios": []}}, "empty"),
        ({"parameters": {"ratios": ["much"]}}, "much"),
        ({"parameters": 3}, "not a stage-mean rule"),
        ({"kind": "depth-curve", "parameters": {"ratios": [[0.5]]}}, "3 numbers for each stage"),
        ({"kind": "taper", "parameters": {"ratio": -1}}, "positive"),
        (
            {"kind": "quantised-linear", "parameters": {"start": 0.5, "slope": 0, "step": 1, "stages": 5}},
            "step must be above 1",
        ),
    ],
)
def test_files_that_are_no_rules(changes, message):
    data = {"schema": 1, "kind": "stage-mean", "parameters": {"ratios": [0.5]}, **changes}
    with pytest.raises(UsageError, match=message):
        rule_from_dict(data, "x.json")


def test_a_budget_that_the_target_cannot_meet():
    with pytest.raises(BudgetError, match="smallest chain possible"):
        apply(Uniform(), vgg(19), Budget.parse("params=0.00001").limits(vgg(19)))


def test_the_tapers_are_those_of_the_measured_table():
    """Half-width VGG-16 at 20 % of its macs: exp(-stage/4) has 15.6M macs and 0.350M params."""
    space = vgg(16).scaled(0.5)
    cost = space.cost(apply(Taper(), space, Budget.parse("macs=0.2").limits(space)))
    assert (round(cost.macs / 1e6, 1), round(cost.params / 1e6, 3)) == (15.7, 0.356)  # filled slot by slot
    uniform = space.cost(apply(Uniform(), space, Budget.parse("macs=0.2").limits(space)))
    assert (round(uniform.macs / 1e6, 1), round(uniform.params / 1e6, 3)) == (15.7, 0.732)


def test_under_a_joint_budget_the_taper_fills_both_bounds():
    space = vgg(16).scaled(0.5)
    limits = Budget.parse("macs=0.2,params=0.05").limits(space)
    cost = space.cost(apply(fit_taper(space, limits), space, limits))
    assert all(0.97 * limit <= cost.of(kind) <= limit for kind, limit in limits.bounds)


def test_rules_explain_themselves():
    assert StageMean((0.5, 0.25)).explain() == "keep 50 % of stage 1, 25 % of stage 2"
    assert "0.78" in Taper().explain()
    assert "90 to 70 to 50 % of stage 1" in DepthCurve(((0.9, 0.7, 0.5),)).explain()
    assert "from 50 % at the first layer to 20 % at the last" in QuantisedLinear(0.5, -0.3, 1.5, 5).explain()
    assert Uniform().explain()
    assert Random(1).explain()
