"""Data sets in Python code of one's own: `package.module:callable` or `path/file.py:callable`.

The callable returns (train, test): two sequences of (image, label) with images as Pillow's or uint8 (H, W) or (H, W, 3)
arrays and labels from 0, as torchvision's data sets are; `train.classes`, where there is one, names the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prune_nas.design.sizes import LEAST, Size
from prune_nas.errors import UsageError
from prune_nas.imports import imported, said
from prune_nas.training.data.decode import fitted
from prune_nas.training.data.images import Images
from prune_nas.training.data.source import Arrays, Source

_MEASURED = 200  # images whose size is looked at


def open_custom(name: str) -> Source:
    """What the callable returns, every image scaled and cut to one size.

    Raises:
        UsageError: there is no such callable, it raises, or returns something else.
    """
    place, _, function = name.rpartition(":")
    made = imported(place, function, "makes a data set")
    try:
        train, test = made()
        sizes = len(train), len(test)
        classes = getattr(train, "classes", None) or [str(n) for n in range(1 + max(int(y) for _, y in _items(train)))]
        names = tuple(map(str, classes))
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name}() must return (train, test), sequences of (image, label). It gave {said(error)}"
        ) from error
    if not all(sizes):
        raise UsageError(f"{name}() must return (train, test) with images in both. Got {sizes[0]} and {sizes[1]}")
    found = _sizes(train)
    return Source(
        name=name,
        classes=names,
        read=partial(_read, {"train": train, "test": test}, name, len(names)),
        tests=sizes[1],
        sizes=lambda: found,
        size=next(iter(found)) if len(found) == 1 else None,
    )


def _sizes(images: Sequence[Any]) -> Counter[Size]:
    """The sizes of a sample of images; what is no picture is left out, and refused when it is read."""
    found: Counter[Size] = Counter()
    for index in range(0, len(images), -(-len(images) // _MEASURED)):
        image = images[index][0]
        height, width = (image.height, image.width) if isinstance(image, Image.Image) else (*np.shape(image), 0, 0)[:2]
        if min(height, width) >= LEAST:
            found[Size(height, width)] += 1
    return found


def _items(images: Sequence[Any]) -> Any:
    return (images[index] for index in range(len(images)))


def _read(splits: dict[str, Sequence[Any]], name: str, classes: int, split: str, size: Size) -> Images:
    images = splits[split]
    pixels = np.empty((len(images), *size, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    for index, (image, label) in enumerate(_items(images)):
        labels[index] = int(label)
        if not 0 <= labels[index] < classes:
            raise UsageError(f"{name}: {split} image {index} has label {label}. There are {classes} classes, from 0")
        try:
            pixels[index] = fitted(image if isinstance(image, Image.Image) else _picture(np.asarray(image)), size)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{name}: {split} image {index} must be Pillow's or a uint8 array of (H, W) or (H, W, 3) ({error})"
            ) from error
    return Arrays(pixels, labels).images()


def _picture(pixels: NDArray[Any]) -> Image.Image:
    """Pillow would take floats and wider integers, too, and make something else of them."""
    if pixels.dtype != np.uint8:
        raise TypeError(f"got {pixels.dtype}")
    return Image.fromarray(pixels)
