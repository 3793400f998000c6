import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.budget import Budget
from prune_nas.design.rules import (
    StageMean,
    Taper,
    Uniform,
    apply,
    fit_stage_mean,
    fit_taper,
    non_uniformity,
)
from prune_nas.design.space import Widths
from prune_nas.errors import UsageError
from tests.design.spaces import chain, spaces, vgg
from tests.design.test_space import VGG19_70, named


def test_stage_means_of_the_published_vgg19_row():
    """Stage means 56.5, 128, 235.5, 47.5 and 37.5 channels; 2.24M params and 201M macs when every layer has them."""
    space = vgg(19)
    rule = fit_stage_mean([(space, named(space, VGG19_70))])
    channels = [r * base for r, base in zip(rule.ratios, (64, 128, 256, 512, 512), strict=True)]
    assert channels == [56.5, 128, 235.5, 47.5, 37.5]
    guided = space.snap({s.name: rule.keep(s.stage, s.depth) for s in space.slots})
    assert [guided[f"conv{i}"] for i in (1, 3, 5, 9, 13)] == [57, 128, 236, 48, 38]
    cost = space.cost(guided)
    assert cost.params == pytest.approx(2.24e6, rel=0.01)
    assert cost.macs == pytest.approx(201e6, rel=0.01)


@given(st.lists(st.floats(0.1, 1.0), min_size=5, max_size=5))
def test_fit_recovers_a_rule_from_its_own_output(ratios):
    space = vgg(16)
    widths = space.snap({s.name: StageMean(tuple(ratios)).keep(s.stage, s.depth) for s in space.slots})
    for got, wanted, base in zip(
        fit_stage_mean([(space, widths)]).ratios, ratios, (64, 128, 256, 512, 512), strict=True
    ):
        assert got == pytest.approx(wanted, abs=0.5 / base + 1e-9)


def test_patterns_count_alike():
    space = chain([10, "M", 10])
    a, b = Widths({"conv1": 10, "conv2": 5}), Widths({"conv1": 6, "conv2": 5})
    assert fit_stage_mean([(space, a), (space, b)]).ratios == pytest.approx((0.8, 0.5))


def test_patterns_of_other_depths_are_refused():
    with pytest.raises(UsageError, match="stages"):
        fit_stage_mean([(chain([8]), Widths({"conv1": 4})), (chain([8, "M", 8]), Widths({"conv1": 4, "conv2": 4}))])
    with pytest.raises(UsageError, match="at least one"):
        fit_stage_mean([])


@given(spaces())
def test_the_widest_net_is_uniform(space):
    assert non_uniformity(space, space.widest) == 0


def test_non_uniformity_sees_differences_within_a_stage_too():
    space = chain([100, 100, "M", 100, 100])
    assert non_uniformity(space, named(space, (20, 60, 20, 60))) == pytest.approx(0.5)  # mean 40, deviation 20
    assert non_uniformity(space, named(space, (20, 20, 60, 60))) == pytest.approx(0.5)


def test_the_tapers_are_those_of_the_measured_table():
    """Half-width VGG-16 at 20 % of its macs: exp(-stage/4) has 15.6M macs and 0.350M params."""
    space = vgg(16).scaled(0.5)
    cost = space.cost(apply(Taper(), space, Budget.parse("macs=0.2").limits(space)))
    assert (round(cost.macs / 1e6, 1), round(cost.params / 1e6, 3)) == (15.6, 0.350)
    uniform = space.cost(apply(Uniform(), space, Budget.parse("macs=0.2").limits(space)))
    assert (round(uniform.macs / 1e6, 1), round(uniform.params / 1e6, 3)) == (15.6, 0.732)


def test_under_a_joint_budget_the_taper_fills_both_bounds():
    space = vgg(16).scaled(0.5)
    limits = Budget.parse("macs=0.2,params=0.05").limits(space)
    cost = space.cost(apply(fit_taper(space, limits), space, limits))
    assert all(0.97 * limit <= cost.of(kind) <= limit for kind, limit in limits.bounds)


def test_rules_explain_themselves():
    assert StageMean((0.5, 0.25)).explain() == "keep 50 % of stage 1, 25 % of stage 2"
    assert "0.78" in Taper().explain()
