"""Splits that keep the classes' shares, from a seed and nothing else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prune_nas.errors import UsageError

Indices = NDArray[np.int64]


class Split(NamedTuple):
    """Disjoint, ascending indices into one set."""

    train: Indices
    val: Indices


def stratified(labels: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Choose `count` images so that every class has its share of them.

    Args:
        labels: (N,).
        count: from 0 to N.
        rng: the only source of chance.

    Returns:
        Ascending indices, (count,). A class of n images gives `count * n / N`, rounded down or up.

    Raises:
        ValueError: `count` is out of range.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"count must be from 0 to {len(labels)}. Got {count}")
    chosen = [np.empty(0, np.int64)]
    classes, sizes = np.unique(labels, return_counts=True)
    for label, take in zip(classes, _apportion(sizes, count), strict=True):
        chosen.append(rng.permutation(np.flatnonzero(labels == label))[:take])
    return np.sort(np.concatenate(chosen))


def train_and_val(labels: Indices, *, seed: int, train_size: int | None, val_size: int | None) -> Split:
    """Cut the validation images from a training set, then the training images from what is left.

    The validation images depend on the seed and their number alone.

    Args:
        labels: (N,).
        seed: of both cuts.
        train_size: the most training images; None for all that validation leaves.
        val_size: the most validation images; None for a tenth of N, or, with a `train_size`, a quarter of that, at
            least one a class. Where N is less than was asked for, validation gets a quarter of it at most.

    Raises:
        UsageError: a size below 1, or fewer than two images.
    """
    total, classes = len(labels), len(np.unique(labels))
    if val_size is None:
        val_size = max(total // 10 if train_size is None else train_size // 4, classes)
        if train_size is not None and classes <= total - train_size:
            val_size = min(val_size, total - train_size)
    if total < 2 or val_size < 1 or (train_size is not None and train_size < 1):
        raise UsageError(
            f"--train-size and --val-size must leave at least 1 image each. Got {train_size} and {val_size} of {total}"
        )
    if (train_size or 1) + val_size > total:
        val_size = min(val_size, max(total // 4, 1))
        train_size = None if train_size is None else min(train_size, total - val_size)
    val = stratified(labels, val_size, np.random.default_rng([seed, 0]))
    rest = np.setdiff1d(np.arange(total), val, assume_unique=True)
    if train_size is not None:
        rest = rest[stratified(labels[rest], train_size, np.random.default_rng([seed, 1]))]
    return Split(train=rest, val=val)


def _apportion(sizes: Indices, count: int) -> Indices:
    """Whole shares of `count` by the largest remainder, the first class first among equals."""
    whole, rest = np.divmod(count * sizes, max(int(sizes.sum()), 1))
    extra = np.argsort(-rest, kind="stable")[: count - int(whole.sum())]
    whole[extra] += 1
    return whole
