"""Keep probabilities of 3x3 kernels: fitted, moved to another network, brought onto a number of weights."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.kernels import (
    EVEN,
    Kernel,
    KernelMean,
    Mask,
    counts,
    kernel_mean,
    kernel_mean_from_dict,
    planned,
    shares,
)
from prune_nas.errors import BudgetError, UsageError

NINE = (0.1, 0.2, 0.1, 0.2, 0.4, 0.2, 0.1, 0.2, 0.1)
probability = st.floats(0.01, 1)
rules = st.lists(st.tuples(*[probability] * 9), min_size=1, max_size=5).map(lambda nines: KernelMean(tuple(nines)))
kernels = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([(3, 3), (1, 1), (5, 5)]), st.integers(1, 3000)),
    min_size=1,
    max_size=6,
).map(lambda layers: [Kernel(f"conv{i}", stage, shape, many, 16) for i, (stage, shape, many) in enumerate(layers)])


def test_means_are_pooled_over_the_layers_of_a_stage():
    own = [Kernel("a", 0, (3, 3), 10, 64), Kernel("b", 0, (3, 3), 30, 64), Kernel("c", 2, (3, 3), 100, 16)]
    kept = {"a": np.full(9, 10), "b": np.full(9, 6), "c": np.arange(9)}
    rule = kernel_mean(own, kept, 3)
    assert rule.ratios[0] == pytest.approx([16 / 40] * 9)
    assert rule.ratios[2] == pytest.approx([1e-4, *(np.arange(1, 9) / 100)])
    # Stage 2 has no convolution: between its neighbours.
    assert rule.ratios[1] == pytest.approx((np.array(rule.ratios[0]) + rule.ratios[2]) / 2)


def test_kernels_of_other_shapes_get_the_mean_and_do_not_teach():
    own = [Kernel("a", 0, (3, 3), 10, 64), Kernel("b", 0, (1, 1), 10, 64)]
    assert kernel_mean(own, {"a": np.full(9, 5), "b": np.array([10])}, 1).ratios[0] == (0.5,) * 9
    assert KernelMean((NINE,)).keep(0, (1, 1)) == pytest.approx([np.mean(NINE)])
    assert KernelMean((NINE,)).keep(0, (1, 9)) == pytest.approx([np.mean(NINE)] * 9)
    assert KernelMean((NINE,)).keep(0, (5, 5)) == pytest.approx([np.mean(NINE)] * 25)


def test_a_network_without_3x3_kernels_teaches_nothing():
    own = [Kernel("a", 0, (5, 5), 10, 64)]
    with pytest.raises(UsageError, match="no 3x3 convolution"):
        kernel_mean(own, {"a": np.full(25, 5)}, 1)


def test_a_rule_of_other_stages_is_asked_in_proportion():
    rule = KernelMean(((0.9,) * 9, (0.6,) * 9, (0.3,) * 9, (0.2,) * 9, (0.1,) * 9))
    own = [Kernel(f"conv{i}", i, (3, 3), 1000, 16) for i in range(3)]
    # First, third and fifth of its stages: .9, .3, .1 of 9000 weights each; together 11700.
    got = shares(rule, own, 3, 11_700)
    assert [float(got[kernel.layer][0]) for kernel in own] == pytest.approx([0.9, 0.3, 0.1])


@given(rules, kernels, st.floats(0.01, 1))
def test_every_number_of_weights_is_met_exactly(rule, own, share):
    total = sum(kernel.weights for kernel in own)
    weights = max(round(share * total), len(own))
    kept = planned(rule, own, 4, weights)
    assert sum(int(kept[kernel.layer].sum()) for kernel in own) == weights
    for kernel in own:
        assert kept[kernel.layer].shape == (kernel.places,)
        assert 0 <= kept[kernel.layer].min() <= kept[kernel.layer].max() <= kernel.many
        assert kept[kernel.layer].sum() >= 1


@given(rules, kernels, st.floats(0.05, 0.5), st.floats(1, 2))
def test_probabilities_never_shrink_when_more_may_stay(rule, own, share, more):
    total = sum(kernel.weights for kernel in own)
    less = shares(rule, own, 4, max(round(share * total), len(own)))
    greater = shares(rule, own, 4, max(round(min(more * share, 1) * total), len(own)))
    assert all((greater[layer] >= less[layer] - 1e-9).all() for layer in less)


def test_a_rule_comes_back_from_its_own_masks():
    rule = KernelMean((NINE, tuple(reversed(NINE)), (0.25,) * 9))
    own = [Kernel(f"conv{i}", i % 3, (3, 3), 5000, 16) for i in range(6)]
    weights = round(sum(float(rule.keep(k.stage, (3, 3)).sum()) * k.many for k in own))
    again = kernel_mean(own, planned(rule, own, 3, weights), 3)
    assert np.array(again.ratios) == pytest.approx(np.array(rule.ratios), abs=1e-3)


def test_rounding_goes_to_the_largest_fractions():
    own = [Kernel("a", 0, (1, 1), 10, 1), Kernel("b", 0, (1, 1), 10, 1)]
    kept = counts(own, {"a": np.array([0.27]), "b": np.array([0.23])}, 5)
    assert {layer: n.tolist() for layer, n in kept.items()} == {"a": [3], "b": [2]}


def test_even_keeps_one_share_everywhere():
    own = [Kernel("a", 0, (3, 3), 1000, 64), Kernel("b", 3, (5, 5), 400, 4)]
    got = shares(EVEN, own, 4, 1900)
    assert np.concatenate(list(got.values())) == pytest.approx(0.1)
    assert EVEN.non_uniformity == 0


def test_less_than_a_weight_a_layer():
    own = [Kernel(f"conv{i}", 0, (3, 3), 100, 64) for i in range(10)]
    with pytest.raises(BudgetError, match=r"Raise the budget to at least weights=0\.0012"):
        planned(EVEN, own, 1, 9)


def test_rules_and_masks_survive_their_files():
    rule = KernelMean((NINE, (0.5,) * 9))
    assert kernel_mean_from_dict(json.loads(json.dumps(rule.to_dict())), "x.json") == rule
    assert "keep 17.8 % of stage 1 (middle 40.0, edges 20.0, corners 10.0), 50.0 % of stage 2" in rule.explain()
    for mask in (Mask(100, rule), Mask(100, None, "0a1b2c3d")):
        assert Mask.from_dict(json.loads(json.dumps(mask.to_dict()))) == mask
    masks = (Mask(100, rule), Mask(101, rule), Mask(100, None), Mask(100, None, "0a1b2c3d"))
    assert len({mask.digest for mask in masks}) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"schema": 2, "kind": "kernel-mean", "parameters": {"ratios": [NINE]}}, "schema 2"),
        ({"schema": 1, "kind": "stage-mean", "parameters": {"ratios": [0.5]}}, "is a rule of widths"),
        ({"schema": 1, "kind": "kernel-mean"}, "is not a kernel-mean rule"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[0.5] * 8]}}, "9 shares"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[0.5] * 8 + [1.5]]}}, "9 shares from"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[0.5] * 8 + ["x"]]}}, "9 shares from"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": []}}, "9 shares"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": ["111111111"]}}, "9 shares"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[True] * 9]}}, "9 shares"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[1e-15] * 9]}}, "9 shares"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": 7}}, "is not a kernel-mean rule"),
        ({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[float("nan")] * 9]}}, "9 shares from"),
    ],
)
def test_files_that_are_no_rule_of_kernels(data, message):
    with pytest.raises(UsageError, match=message):
        kernel_mean_from_dict(data, "x.json")
