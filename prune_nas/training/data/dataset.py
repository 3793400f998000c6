"""A data set ready for training: split, normalised, and with the test images out of reach until they are asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from prune_nas.design.learning import Chance
from prune_nas.design.preprocessing import Preprocessing
from prune_nas.design.sizes import Size
from prune_nas.training.data.augment import Augmentation, Normalisation
from prune_nas.training.data.cache import fingerprint
from prune_nas.training.data.decode import decode
from prune_nas.training.data.images import FolderImages, Images, ImageSet
from prune_nas.training.data.source import Source
from prune_nas.training.data.split import stratified, train_and_val

_OPENED = 100  # files of such a set whose content counts for its fingerprint; of the others names and sizes do
_SAMPLE = 1000  # images decoded to measure the mean and deviation of a set that does not fit in memory


@final
@dataclass(frozen=True, eq=False)
class Data:
    """What a training may see of a data set, and the one call that shows the rest."""

    name: str
    classes: tuple[str, ...]
    """Names in the order of the labels; a folder's names are whatever text its author chose."""
    train: ImageSet
    val: ImageSet
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of a channel, in units of [0, 1]."""
    augmentation: Augmentation
    fingerprint: str
    """16 hex digits that change with any pixel or label of train and val; where they are too many for memory, with any
    file's name or size, and with the content of some."""
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    tests: int
    """Number of test images."""
    read_test: Callable[[], ImageSet] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What a user must know of the set, in sentences."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image must be fed to a network that was trained on this set."""
        return Preprocessing(Size(*self.input_shape[1:]), self.mean, self.std, self.classes)

    @property
    def chance(self) -> Chance:
        """What guessing reaches on the validation images."""
        return Chance(float(self.val.labels.bincount().max() / len(self.val)), len(self.val))

    def open_test(self) -> ImageSet:
        """Read the test images; the finals do so once, and nothing that makes a choice ever does."""
        return dataclasses.replace(self.read_test(), normalisation=Normalisation(self.mean, self.std))


def prepare(source: Source, *, seed: int, train_size: int | None, val_size: int | None, size: Size) -> Data:
    """Read a source's training images at a size and split them.

    Raises:
        UsageError: sizes that the set cannot give, or an image that cannot be read.
    """
    train, val = _split(source, size, seed, train_size, val_size)
    normalisation = source.normalisation or _measure(train)
    return Data(
        name=source.name,
        classes=source.classes,
        train=dataclasses.replace(train, normalisation=normalisation),
        val=dataclasses.replace(val, normalisation=normalisation),
        mean=normalisation.mean,
        std=normalisation.std,
        augmentation=Augmentation(padding=min(size) // 8, flip=source.flip, reflect=source.reflect),
        fingerprint=_fingerprint(train, val),
        input_shape=(3, *size),
        tests=source.tests,
        read_test=_Test(source, size),
        notes=source.notes,
    )


@final
@dataclass(frozen=True)
class _Test:
    source: Source
    size: Size

    def __call__(self) -> ImageSet:
        return self.source.read("test", self.size)


def _split(
    source: Source, size: Size, seed: int, train_size: int | None, val_size: int | None
) -> tuple[ImageSet, ImageSet]:
    train = source.read("train", size)
    labels = train.labels.numpy()
    if not source.has_val:
        split = train_and_val(labels, seed=seed, train_size=train_size, val_size=val_size)
        return train.subset(torch.from_numpy(split.train)), train.subset(torch.from_numpy(split.val))
    return _at_most(train, train_size, [seed, 1]), _at_most(source.read("val", size), val_size, [seed, 0])


def _at_most(images: ImageSet, count: int | None, seed: list[int]) -> ImageSet:
    if count is None or count >= len(images):
        return images
    chosen = stratified(images.labels.numpy(), max(count, 1), np.random.default_rng(seed))
    return images.subset(torch.from_numpy(chosen))


def _measure(images: ImageSet) -> Normalisation:
    """Mean and deviation of each channel over all pixels, exactly, from counts of the 256 values."""
    values = np.arange(256) / 255
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(_sample(images), 3, 0)])
    share = counts / counts.sum(axis=1, keepdims=True)  # (3, 256)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    red, green, blue = mean.tolist()
    # A channel of one value has no deviation; one step of it keeps the images finite.
    red_std, green_std, blue_std = np.maximum(std, 1 / 255).tolist()
    return Normalisation((red, green, blue), (red_std, green_std, blue_std))


def _sample(images: ImageSet) -> np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]:
    """uint8 (N, H, W, 3): all images, or evenly spaced ones of those that are still files."""
    if isinstance(images, Images):
        return images.pixels.permute(0, 2, 3, 1).numpy()
    step = -(-len(images) // _SAMPLE)
    return np.stack([decode(path, images.size) for path in images.paths[::step]])


def _fingerprint(train: ImageSet, val: ImageSet) -> str:
    digest = hashlib.sha256()
    for images in (train, val):
        digest.update(f"{len(images)}\n".encode())
        digest.update(_bytes(images.labels))
        if isinstance(images, FolderImages):
            digest.update(fingerprint(images.paths, Path(images.root)).encode())
            for path in images.paths[:: -(-len(images) // _OPENED)]:
                digest.update(Path(path).read_bytes())
        else:
            digest.update(_bytes(images.pixels.permute(0, 2, 3, 1)))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().numpy().data.cast("B")
