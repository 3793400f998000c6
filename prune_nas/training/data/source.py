"""What every kind of data set is turned into before it is split: a value that can read its splits, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray

from prune_nas.training.data.augment import Augmentation, Normalisation
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
    read: Callable[[str], ImageSet]
    """Decodes one split by its name: `train`, `test`, and `val` if there is one; not normalised yet."""
    augmentation: Augmentation
    normalisation: Normalisation | None = None
    """None: measured on the training images."""
    has_val: bool = False
    """Whether the set brings validation images; else they are cut from `train`."""


def cache_dir() -> Path:
    """Where this program keeps what it downloads or decodes."""
    return platformdirs.user_cache_path("prune-nas", appauthor=False)


def default_data_dir() -> Path:
    """`PRUNE_NAS_DATA`, else a folder in the cache."""
    given = os.environ.get("PRUNE_NAS_DATA")
    return Path(given).expanduser() if given else cache_dir() / "data"
