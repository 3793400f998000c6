"""Data sets of the hub, made with its own library and read from the disk: nothing is downloaded."""

import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from prune_nas.errors import MissingError, UsageError
from prune_nas.training.data import hub, load

datasets = pytest.importorskip("datasets")


def part(count, **more):
    pixels = [Pillow.fromarray(np.full((9, 12, 3), 20 * (i % 3), np.uint8)) for i in range(count)]
    columns = {"img": pixels, "label": [i % 3 for i in range(count)], **more}
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    if "coarse" in more:
        kinds["coarse"] = datasets.ClassLabel(names=["x", "y"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.fixture
def on_the_hub(monkeypatch):
    def put(**splits):
        monkeypatch.setattr(datasets, "load_dataset", lambda place, config: datasets.DatasetDict(splits))

    return put


def test_splits_columns_and_classes_are_found(on_the_hub):
    on_the_hub(train=part(30, coarse=[i % 2 for i in range(30)]), test=part(6, coarse=[0] * 6))
    data = load("hf:somebody/some", image_size=8, val_size=3)
    assert (data.classes, len(data.train), len(data.val), len(data.open_test())) == (("a", "b", "c"), 27, 3, 6)
    assert data.train.pixels.unique().tolist() == [0, 20, 40]


def test_validation_is_used_as_such_beside_a_test_split_and_as_the_test_split_without(on_the_hub):
    on_the_hub(train=part(30), validation=part(9), test=part(6))
    data = load("hf:somebody/some", image_size=8)
    assert (len(data.train), len(data.val), len(data.open_test())) == (30, 9, 6)
    on_the_hub(train=part(30), validation=part(9))
    data = load("hf:somebody/some", image_size=8, val_size=3)
    assert (len(data.train), len(data.val), len(data.open_test())) == (27, 3, 9)


def test_a_set_that_would_fill_the_memory_is_refused_with_what_to_do(on_the_hub, monkeypatch):
    on_the_hub(train=part(30), test=part(6))
    monkeypatch.setattr(hub, "_MEMORY_LIMIT", 30 * 8 * 8 * 3 - 1)
    with pytest.raises(UsageError, match=r"folder:DIR with --cache-images"):
        load("hf:somebody/some", image_size=8)


def test_what_cannot_be_used_is_said(on_the_hub, monkeypatch):
    on_the_hub(train=part(30))
    with pytest.raises(UsageError, match="splits train and test"):
        load("hf:somebody/some", image_size=8)
    on_the_hub(train=part(30).remove_columns("label"), test=part(3).remove_columns("label"))
    with pytest.raises(UsageError, match="It has img"):
        load("hf:somebody/some", image_size=8)

    def nowhere(place, config):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", nowhere)
    with pytest.raises(UsageError, match=r"cannot be loaded \(ConnectionError: no route\)"):
        load("hf:somebody/some", image_size=8)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError, match=r"prune-nas\[hf\]"):
        load("hf:somebody/some", image_size=8)
