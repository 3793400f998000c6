from __future__ import annotations

import pytest
import torch

from prune_nas.errors import UsageError
from prune_nas.training.data import DATASETS, Augmentation, Images, load


def test_digits_have_their_shape_and_number():
    data = load("digits")
    test = data.open_test()
    assert len(data.train) + len(data.val) + len(test) == 1797
    assert len(test) == data.tests == 359
    assert data.classes == tuple("0123456789")
    assert data.augmentation == Augmentation(padding=4, flip=False)
    assert isinstance(data.train, Images)
    assert data.train.pixels.shape[1:] == data.input_shape == (3, 32, 32)
    assert data.train.pixels.dtype == torch.uint8
    assert data.train.pixels.max() > 240
    assert data.train.pixels[:, 0].equal(data.train.pixels[:, 2])
    assert data.mean[0] == data.mean[2]


def test_the_test_digits_are_the_same_for_every_seed():
    one, two = load("digits", seed=0), load("digits", seed=1)
    assert one.open_test().labels.equal(two.open_test().labels)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == load("digits", seed=0).fingerprint


def test_no_digit_is_in_two_splits():
    data = load("digits", image_size=16)
    seen = [
        tuple(image.flatten().tolist()) for part in (data.train, data.val, data.open_test()) for image in part.pixels
    ]
    assert len(set(seen)) >= 1790  # the set itself repeats next to none


def test_digits_at_their_own_size_are_the_published_ones():
    data = load("digits", image_size=8)
    assert set(data.train.pixels.unique().tolist()) == {round(value * 255 / 16) for value in range(17)}


def test_an_unknown_name_lists_its_neighbours():
    with pytest.raises(UsageError, match="Did you mean cifar10"):
        load("cifar")


def test_every_listed_name_opens_something():
    for name in DATASETS:
        with pytest.raises(Exception, match=r"no folder DIR|downloads are off|8 pixels|no Python package"):
            load(name, download=False, image_size=8 if name != "digits" else 4)


def test_sizes_are_exact():
    data = load("digits", train_size=100)
    assert (len(data.train), len(data.val)) == (100, 25)
