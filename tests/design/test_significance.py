"""Paired p-values and Holm's correction, against SciPy, published examples and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prune_nas.design.significance import holm, p_value


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda xs: max(xs) - min(xs) > 1e-3))
def test_p_values_are_those_of_a_paired_t_test(differences):
    expected = stats.ttest_1samp(differences, 0).pvalue
    assert p_value(differences) == pytest.approx(expected, rel=1e-6)


def test_p_values_without_spread():
    assert p_value([0.0, 0.0]) is None
    assert p_value([0.25, 0.25]) is None
    assert p_value([0.3]) is None


def test_holm_by_hand():
    """Four p-values, worked out: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 no lower than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_none_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1, len(p_values) * p) + 1e-12
    ranked = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
