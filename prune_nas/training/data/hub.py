"""Data sets of the Hugging Face hub: `hf:NAME` or `hf:NAME:CONFIG`, kept by its library and decoded into memory."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from prune_nas.design.sizes import Size
from prune_nas.errors import MissingError, UsageError
from prune_nas.training.data.decode import fitted
from prune_nas.training.data.images import Images
from prune_nas.training.data.source import Arrays, Source

_MEMORY_LIMIT = 8 << 30  # bytes of one decoded split
_MEASURED = 200  # pictures whose size is looked at
_TESTS = ("test", "validation", "valid", "val")  # the first of these that there is


def open_hub(name: str, *, download: bool) -> Source:
    """The set with its `train` split, and its `test` split or, without one, its validation split as the test images.

    Raises:
        UsageError: there is no such set, or it has no images with classes.
        MissingError: `datasets` is not installed, or nothing may be downloaded.
    """
    if not download:
        raise MissingError(f"{name} comes from the hub, and downloads are off")
    splits = _load(name)
    test = next((split for split in _TESTS if split in splits), None)
    if "train" not in splits or test is None:
        raise UsageError(f"{name} must have the splits train and test (or validation). It has {', '.join(splits)}")
    image, label, classes = _columns(name, splits["train"].features)
    rows = {"train": splits["train"], "test": splits[test]}
    for split in ("train", test):
        if min(splits[split][label], default=-1) < 0:
            raise UsageError(f"the {split} images of {name} have no labels, so that nothing can be measured on them")
    if test == "test" and "validation" in splits:
        rows["val"] = splits["validation"]
    found = _sizes(rows["train"], image)
    return Source(
        name=name,
        classes=classes,
        read=partial(_read, rows, image, label),
        tests=len(rows["test"][label]),
        sizes=lambda: found,
        size=next(iter(found)) if len(found) == 1 else None,
        has_val="val" in rows,
    )


def _sizes(rows: Any, image: str) -> Counter[Size]:
    """The sizes of a sample of pictures."""
    count = len(rows)
    pictures = (rows[index][image] for index in range(0, count, -(-count // _MEASURED)))
    return Counter(Size(picture.height, picture.width) for picture in pictures)


def _load(name: str) -> Mapping[str, Any]:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise MissingError(f"{name} needs the package datasets: pip install 'prune-nas[hf]'") from None
    place, _, config = name.removeprefix("hf:").partition(":")
    try:
        loaded: Mapping[str, Any] = library.load_dataset(place, config or None)
    except Exception as error:  # of many kinds: no network, no such set, no such configuration
        raise UsageError(f"{name} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    return loaded


def _columns(name: str, features: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and labels, and the classes; of several kinds of labels the one with most classes."""
    images = [column for column, kind in features.items() if type(kind).__name__ == "Image"]
    labels = {column: kind for column, kind in features.items() if type(kind).__name__ == "ClassLabel"}
    if len(images) != 1 or not labels:
        raise UsageError(f"{name} must have one column of images and one of class labels. It has {', '.join(features)}")
    label = max(labels, key=lambda column: labels[column].num_classes)
    return images[0], label, tuple(labels[label].names)


def _read(rows: Mapping[str, Any], image: str, label: str, split: str, size: Size) -> Images:
    part = rows[split]
    labels = np.array(part[label], np.int64)
    if (size_in_memory := len(labels) * size.height * size.width * 3) > _MEMORY_LIMIT:
        raise UsageError(
            f"the {split} images of a hub's set are kept in memory, and these would take {size_in_memory / 2**30:.1f} "
            f"GiB of at most {_MEMORY_LIMIT >> 30}. Take a smaller --image-size, or save them as class folders and use "
            "folder:DIR with --cache-images"
        )
    pixels = np.empty((len(labels), *size, 3), np.uint8)
    for index in range(len(labels)):
        pixels[index] = fitted(part[index][image], size)
    return Arrays(pixels, labels).images()
