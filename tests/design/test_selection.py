import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.budget import Budget, Limits
from prune_nas.design.selection import SELECTIONS, select
from prune_nas.errors import UsageError
from tests.design.spaces import chain, spaces, vgg
from tests.design.test_projection import limits_between


def scores_of(space, seed):
    rng = np.random.default_rng(seed)
    return {s.name: rng.random(s.ceiling).astype(np.float32) for s in space.slots}


@given(spaces(), st.integers(0, 99), st.floats(0, 1), st.sampled_from(sorted(SELECTIONS)))
def test_within_the_budget_above_the_floors_and_full(space, seed, share, by):
    limits, scores = limits_between(space, share), scores_of(space, seed)
    chosen = select(space, scores, limits, by=by)
    assert limits.admits(space.cost(chosen.widths))
    for slot in space.slots:
        width = chosen.widths[slot.name]
        assert slot.floor <= width <= slot.ceiling
        assert len(chosen.kept[slot.name]) == width
        best = np.argsort(-scores[slot.name], kind="stable")[:width]
        assert sorted(best) == list(chosen.kept[slot.name])
        if width + slot.multiple <= slot.ceiling:  # nothing more fits
            assert not limits.admits(space.cost({**chosen.widths, slot.name: width + slot.multiple}))


@given(
    spaces(), st.integers(0, 99), st.floats(0.01, 0.99), st.sampled_from(sorted(SELECTIONS)), st.sampled_from([2, 8])
)
def test_scaling_all_scores_changes_nothing(space, seed, share, by, factor):
    limits, scores = limits_between(space, share), scores_of(space, seed)
    scaled = {name: v * factor for name, v in scores.items()}
    assert select(space, scores, limits, by=by).widths == select(space, scaled, limits, by=by).widths


def test_threshold_is_network_slimmings():
    """Its rule (vggprune.py): sort all |gamma|, cut at one value, each layer keeps what lies above it."""
    space = chain([16, 16, "M", 16], floor=1)
    scores = scores_of(space, 3)
    pooled = np.sort(np.concatenate(list(scores.values())))
    cut = pooled[24]  # 50 % of 48 channels: 25 go
    slimmed = {name: int((v > cut).sum()) for name, v in scores.items()}
    limits = Limits((("macs", space.cost(slimmed).macs),))
    assert dict(select(space, scores, limits).widths) == slimmed


def test_a_layer_that_the_threshold_would_empty_keeps_its_floor_and_is_named():
    space = chain([16, 16], floor=3)
    scores = {"conv1": np.linspace(1, 2, 16, dtype=np.float32), "conv2": np.zeros(16, dtype=np.float32)}
    chosen = select(space, scores, Limits((("params", space.cost({"conv1": 10, "conv2": 3}).params),)))
    assert chosen.widths["conv2"] == 3
    assert chosen.floored == ("conv2",)


def test_per_cost_keeps_more_score_than_the_threshold_and_nearly_the_most_there_is():
    space = chain([6, 6, "M", 6], floor=1)
    scores, limits = scores_of(space, 1), limits_between(space, 0.35)

    def held(widths):
        return sum(np.sort(scores[name])[::-1][:n].sum() for name, n in widths.items())

    every = itertools.product(range(1, 7), repeat=3)
    feasible = [w for n in every if limits.admits(space.cost(w := dict(zip(scores, n, strict=True))))]
    best = max(map(held, feasible))
    assert held(select(space, scores, limits, by="per-cost").widths) >= 0.95 * best
    assert held(select(space, scores, limits, by="per-cost").widths) >= held(select(space, scores, limits).widths)


def test_per_cost_uses_both_bounds_of_a_joint_budget_better():
    space = vgg(16).scaled(0.5)
    limits = Budget.parse("macs=0.2,params=0.05").limits(space)
    macs = {by: space.cost(select(space, scores_of(space, 0), limits, by=by).widths).macs for by in SELECTIONS}
    assert macs["per-cost"] > macs["threshold"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "conv1"),
        ({"conv1": np.ones(3, np.float32), "conv2": np.ones(8, np.float32)}, r"shape \(8,\)"),
        ({"conv1": np.full(8, np.nan, np.float32), "conv2": np.ones(8, np.float32)}, "finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(bad, message):
    space = chain([8, 8])
    with pytest.raises(UsageError, match=message):
        select(space, bad, limits_between(space, 0.5))


def test_unknown_selection_names_its_neighbour():
    space = chain([8, 8])
    with pytest.raises(UsageError, match="Did you mean threshold"):
        select(space, scores_of(space, 0), limits_between(space, 0.5), by="treshold")
