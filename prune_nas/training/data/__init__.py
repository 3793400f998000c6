"""Data sets: found or downloaded, decoded once, split by a seed, and handed out as batches on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError, unknown
from prune_nas.training.data.augment import Augmentation, Normalisation
from prune_nas.training.data.dataset import Data, prepare
from prune_nas.training.data.images import FolderImages, Images, ImageSet
from prune_nas.training.data.source import Source, default_data_dir

__all__ = [
    "DATASETS",
    "Augmentation",
    "Data",
    "FolderImages",
    "ImageSet",
    "Images",
    "Normalisation",
    "Outline",
    "load",
    "outline",
    "runs_code",
]

DATASETS = {
    "cifar10": "colour photographs of 32x32 pixels in 10 classes, 60,000 as published (downloaded if need be)",
    "cifar100": "colour photographs of 32x32 pixels in 100 classes, 60,000 as published (downloaded if need be)",
    "digits": "1,797 handwritten digits of 8x8 pixels, which come with scikit-learn",
    "folder:DIR": "your images: DIR/train/ and DIR/val/ or DIR/test/, each with a folder per class",
    "hf:NAME": "a set of the Hugging Face hub, hf:NAME:CONFIG for one of several (pip install 'prune-nas[hf]')",
    "package.module:callable": "your Python code (or path/file.py:callable), which returns (train, test)",
}
_STEP, _USUAL = 32, 224  # pixels: of sizes that are suggested, and the largest of them
_SHOWN = 3  # sizes of pictures that a question names


class Outline(NamedTuple):
    """What is known of a data set before an image is decoded.

    Attributes:
        classes: their number.
        size: the size that the set is trained at unless another is asked for; None where the user must say.
        found: the sizes of its pictures, in words.
        fitting: a size that no picture is smaller than, in steps of 32 pixels.
    """

    classes: int
    size: Size | None
    found: str
    fitting: Size


def load(
    name: str,
    *,
    data_dir: Path | str | None = None,
    seed: int = 0,
    train_size: int | None = None,
    val_size: int | None = None,
    image_size: int | str | Sequence[int] | None = None,
    cache_images: bool = False,
    download: bool = True,
) -> Data:
    """Find a data set, read its training images and split them; the test images stay unread.

    Args:
        name: a name of `DATASETS`, or `folder:` and a path.
        data_dir: where data sets are looked for and kept; None for `PRUNE_NAS_DATA`, else the user's cache folder.
        seed: of the split into training and validation images; the test images never depend on it.
        train_size: training images, every class by its share; None for all that validation leaves.
        val_size: validation images; None for a tenth of the training set, or a quarter of `train_size`.
        image_size: pixels that every image is brought to: one number for both sides, or (height, width), or a text
            such as `64x48`; None for the set's own size, which a folder of pictures of several sizes does not have.
        cache_images: decode a folder that is too large for memory once, into the cache, not in every epoch.
        download: whether the network may be used.

    Raises:
        UsageError: an unknown name, a folder that is not laid out as it must be, an image that cannot be read, sizes
            that the set cannot give, or no `image_size` where the set has none of its own.
        MissingError: the data set is neither on this machine nor to be had from the network, or is damaged.
    """
    size = None if image_size is None else Size.parse(image_size)
    source = _open(name, Path(data_dir) if data_dir else default_data_dir(), download, cache_images)
    size = size or source.size or _only(source.sizes())
    if size is None:
        raise UsageError(f"the image size of {name} must be given: image_size=. Its pictures have {_spoken(source)}")
    return prepare(source, seed=seed, train_size=train_size, val_size=val_size, size=size)


def runs_code(name: str) -> bool:
    """Whether a data set is Python code, so that only a person may name it."""
    return ":" in name and not name.startswith(("folder:", "hf:"))


def outline(name: str, *, data_dir: Path | str | None = None) -> Outline:
    """The number of classes and the size of a data set's images; no image is decoded, and nothing is downloaded.

    Raises:
        UsageError: an unknown name, or a folder that is not laid out as it must be.
    """
    known = {"cifar10": (10, Size(32, 32)), "cifar100": (100, Size(32, 32)), "digits": (10, Size(32, 32))}
    if name in known:
        return Outline(*known[name], str(known[name][1]), known[name][1])
    source = _open(name, Path(data_dir) if data_dir else default_data_dir(), name.startswith("hf:"), False)
    return Outline(len(source.classes), source.size, _spoken(source), _fitting(source.sizes()))


def _fitting(found: Counter[Size]) -> Size:
    least = min((side for size in found for side in size), default=_STEP)
    side = min(max(least // _STEP * _STEP, _STEP), _USUAL)
    return Size(side, side)


def _only(found: Counter[Size]) -> Size | None:
    """The size that all pictures have, if it is one."""
    return next(iter(found)) if len(found) == 1 else None


def _spoken(source: Source) -> str:
    """The sizes of a set's pictures in words: the most common ones, and how far the others reach."""
    found = source.sizes()
    if not found:
        return "no size that can be read"
    common = [f"{size} ({count} of {found.total()})" for size, count in found.most_common(_SHOWN)]
    heights, widths = [size.height for size in found], [size.width for size in found]
    rest = f". In all from {min(heights)}x{min(widths)} to {max(heights)}x{max(widths)}" if len(found) > _SHOWN else ""
    return f"{', '.join(common)}{rest} (height x width)"


def _open(name: str, data_dir: Path, download: bool, cache_images: bool) -> Source:
    # Each imports what it alone needs.
    if name.startswith("folder:"):
        from prune_nas.training.data import folder  # noqa: PLC0415

        return folder.open_folder(Path(name.removeprefix("folder:")).expanduser(), name=name, cache_images=cache_images)
    if name.startswith("hf:"):
        from prune_nas.training.data import hub  # noqa: PLC0415

        return hub.open_hub(name, download=download)
    if runs_code(name):
        from prune_nas.training.data import custom  # noqa: PLC0415

        return custom.open_custom(name)
    if name == "digits":
        from prune_nas.training.data import digits  # noqa: PLC0415

        return digits.open_digits()
    if name in {"cifar10", "cifar100"}:
        from prune_nas.training.data import cifar  # noqa: PLC0415

        return cifar.open_cifar(name, data_dir=data_dir, download=download)
    if Path(name).expanduser().is_dir():
        raise UsageError(f"{name!r} is a folder, not the name of a data set: use --dataset folder:{name}")
    raise unknown("data set", name, DATASETS)
