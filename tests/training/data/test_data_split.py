from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.errors import UsageError
from prune_nas.training.data.split import stratified, train_and_val

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200).map(lambda xs: np.array(xs, np.int64))


@given(LABELS, st.data(), st.integers(0, 9))
def test_stratified_gives_every_class_its_share(labels, data, seed):
    count = data.draw(st.integers(0, len(labels)))
    chosen = stratified(labels, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    for label in np.unique(labels):
        share = count * (labels == label).sum() / len(labels)
        assert abs((labels[chosen] == label).sum() - share) < 1


@given(LABELS, st.integers(0, 9))
def test_stratified_is_repeatable_and_leaves_the_global_generator_alone(labels, seed):
    before = np.random.get_state()[1].copy()
    first = stratified(labels, len(labels) // 2, np.random.default_rng(seed))
    again = stratified(labels, len(labels) // 2, np.random.default_rng(seed))
    assert (first == again).all()
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("count", [-1, 4])
def test_stratified_refuses_a_count_out_of_range(count):
    with pytest.raises(ValueError, match="from 0 to 3"):
        stratified(np.zeros(3, np.int64), count, np.random.default_rng(0))


@given(LABELS.map(lambda labels: np.tile(labels, 2)), st.data(), st.integers(0, 3))
def test_train_and_val_never_overlap(labels, data, seed):
    val = data.draw(st.integers(1, len(labels) - 1))
    train = data.draw(st.none() | st.integers(1, len(labels) - val))
    split = train_and_val(labels, seed=seed, train_size=train, val_size=val)
    assert len(split.val) == val
    assert len(split.train) == (len(labels) - val if train is None else train)
    assert not set(split.train) & set(split.val)
    assert (split.val == train_and_val(labels, seed=seed, train_size=None, val_size=val).val).all()


@pytest.mark.parametrize(
    ("train_size", "expected"),
    [(None, (900, 100)), (400, (400, 100)), (20, (20, 10)), (800, (800, 200)), (950, (950, 50))],
)
def test_default_validation_sizes(train_size, expected):
    split = train_and_val(np.arange(1000) % 10, seed=0, train_size=train_size, val_size=None)
    assert (len(split.train), len(split.val)) == expected


@pytest.mark.parametrize(("train", "val"), [(0, 10), (10, 0), (-5, None)])
def test_sizes_that_cannot_be_given(train, val):
    with pytest.raises(UsageError, match="at least 1 image each"):
        train_and_val(np.arange(100) % 10, seed=0, train_size=train, val_size=val)


@pytest.mark.parametrize(
    ("train", "val", "sizes"),
    [(91, 10, (90, 10)), (None, 100, (75, 25)), (10_000, 2_500, (75, 25)), (100, None, (75, 25)), (10, None, (10, 10))],
)
def test_sizes_are_the_most_that_is_taken(train, val, sizes):
    """A preset made for a large set serves a small one too."""
    split = train_and_val(np.arange(100) % 10, seed=0, train_size=train, val_size=val)
    assert (len(split.train), len(split.val)) == sizes


def test_another_seed_gives_another_split():
    labels = np.arange(100) % 10
    first, second = (train_and_val(labels, seed=seed, train_size=None, val_size=None) for seed in (0, 1))
    assert (first.val != second.val).any()
