"""Data sets in Python code of one's own."""

import pytest
import torch

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.training.data import load, outline, runs_code

CODE = """
import numpy as np
from PIL import Image

class Set(list):
    classes = ["dark", "light"]

def images(count, of):
    return Set((of(i), i % 2) for i in range(count))

def grey(i):
    return np.full((10, 14), 250 * (i % 2), np.uint8)

def picture(i):
    return Image.fromarray(np.full((9, 9, 3), 250 * (i % 2), np.uint8))

def good():
    return images(20, grey), images(6, picture)

def nameless():
    return list(good()[0]), list(good()[1])

def raises():
    raise RuntimeError("no disk")

def one():
    return good()[0]

def floats():
    return images(20, lambda i: np.ones((3, 3, 7))), images(6, picture)

def grey_floats():
    return images(20, lambda i: np.full((9, 9), 0.5, np.float32)), images(6, picture)

def wide():
    return images(20, lambda i: np.full((9, 9), 200, np.int32)), images(6, picture)

def no_test():
    return images(20, grey), []

def endless():
    return images(20, grey), iter(images(6, grey))

def labels():
    return images(20, grey), [(grey(0), 2)]
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def test_images_of_any_size_become_squares(code):
    data = load(code("good"), image_size=8, val_size=4)
    assert (data.classes, len(data.train), len(data.val), len(data.open_test())) == (("dark", "light"), 16, 4, 6)
    x, y = next(data.open_test().batches(6))
    assert x.shape == (6, 3, 8, 8)
    assert torch.equal(x[:, 0, 0, 0] > 0, y.bool())
    assert outline(code("good")) == (2, Size(10, 14), "10x14 (20 of 20) (height x width)", Size(32, 32))
    assert load(code("good")).input_shape == (3, 10, 14)


def test_classes_without_names_are_numbered(code):
    assert load(code("nameless"), image_size=8).classes == ("0", "1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", "RuntimeError: no disk"),
        ("one", r"must return \(train, test\)"),
        ("floats", "uint8 array"),
        ("grey_floats", "uint8 array.*got float32"),
        ("wide", "uint8 array.*got int32"),
        ("no_test", "with images in both. Got 20 and 0"),
        ("endless", r"must return \(train, test\)"),
        ("gone", "has no callable"),
    ],
)
def test_what_is_wrong_with_the_code_is_said(code, name, says):
    with pytest.raises(UsageError, match=says):
        load(code(name), image_size=8)


def test_a_label_without_a_class_is_named(code):
    with pytest.raises(UsageError, match="image 0 has label 2"):
        load(code("labels"), image_size=8).open_test()


def test_only_code_is_code():
    assert [name for name in ("digits", "folder:x", "hf:a/b:c", "a.b:c", "x.py:f") if runs_code(name)] == [
        "a.b:c",
        "x.py:f",
    ]
