"""What every kind of data set is turned into before it is split: a value that can read its splits, one at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray

from prune_nas.design.sizes import Size
from prune_nas.training.data.augment import Normalisation
from prune_nas.training.data.images import Images, ImageSet


class Arrays(NamedTuple):
    """Decoded images: pixels uint8 (N, H, W, 3) and labels int64 (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def images(self) -> Images:
        """The same memory as tensors; (N, 3, H, W) in channels_last format."""
        return Images(torch.from_numpy(self.pixels).permute(0, 3, 1, 2), torch.from_numpy(self.labels))


@final
@dataclass(frozen=True)
class Source:
    """A data set that has been found but not read."""

    name: str
    classes: tuple[str, ...]
    read: Callable[[str, Size], ImageSet]
    """Decodes one split by its name (`train`, `test`, and `val` if there is one) at a size; not normalised yet."""
    tests: int
    """Number of test images, known without decoding any."""
    sizes: Callable[[], Counter[Size]]
    """The sizes of the training pictures as they are, of a sample where there are many."""
    size: Size | None = None
    """The size that the set is trained at unless another is asked for; None where the user must say."""
    flip: bool = True
    """Whether left and right may be exchanged; not so where it changes the meaning, as for digits."""
    reflect: bool = True
    """Whether a picture may be continued by its mirror image; not so where its ground is empty, as for digits."""
    normalisation: Normalisation | None = None
    """None: measured on the training images."""
    has_val: bool = False
    """Whether the set brings validation images; else they are cut from `train`."""
    notes: tuple[str, ...] = ()
    """What a user must know of the set, in sentences."""


def cache_dir() -> Path:
    """Where this program keeps what it downloads or decodes."""
    return platformdirs.user_cache_path("prune-nas", appauthor=False)


def default_data_dir() -> Path:
    """`PRUNE_NAS_DATA`, else a folder in the cache."""
    given = os.environ.get("PRUNE_NAS_DATA")
    return Path(given).expanduser() if given else cache_dir() / "data"
