"""Data sets: found or downloaded, decoded once, split by a seed, and handed out as batches on the device."""

from __future__ import annotations

from pathlib import Path

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
    "load",
    "outline",
    "runs_code",
]

DATASETS = {
    "cifar10": "60,000 colour photographs of 32x32 pixels in 10 classes (downloaded if need be)",
    "cifar100": "60,000 colour photographs of 32x32 pixels in 100 classes (downloaded if need be)",
    "digits": "1,797 handwritten digits of 8x8 pixels, which come with scikit-learn",
    "folder:DIR": "your images: DIR/train/ and DIR/val/ or DIR/test/, each with a folder per class",
    "hf:NAME": "a set of the Hugging Face hub, hf:NAME:CONFIG for one of several (pip install 'prune-nas[hf]')",
    "package.module:callable": "your Python code (or path/file.py:callable), which returns (train, test)",
}


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    seed: int = 0,
    train_size: int | None = None,
    val_size: int | None = None,
    image_size: int = 32,
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
        image_size: height and width in pixels that every image is brought to.
        cache_images: decode a folder that is too large for memory once, into the cache, not in every epoch.
        download: whether the network may be used.

    Raises:
        UsageError: an unknown name, a folder that is not laid out as it must be, an image that cannot be read, or
            sizes that the set cannot give.
        MissingError: the data set is neither on this machine nor to be had from the network, or is damaged.
    """
    if image_size < 8:
        raise UsageError(f"the image size must be at least 8 pixels; got {image_size}")
    source = _open(name, data_dir or default_data_dir(), image_size, download, cache_images)
    return prepare(source, seed=seed, train_size=train_size, val_size=val_size, image_size=image_size)


def runs_code(name: str) -> bool:
    """Whether a data set is Python code, so that only a person may name it."""
    return ":" in name and not name.startswith(("folder:", "hf:"))


def outline(name: str, *, image_size: int = 32, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """The shape of one image as networks get it, and the number of classes; no image is read.

    Raises:
        UsageError: an unknown name, or a folder that is not laid out as it must be.
    """
    known = {"cifar10": 10, "cifar100": 100, "digits": 10}
    if name not in known:
        known[name] = len(
            _open(name, data_dir or default_data_dir(), image_size, name.startswith("hf:"), False).classes
        )
    return (3, image_size, image_size), known[name]


def _open(name: str, data_dir: Path, image_size: int, download: bool, cache_images: bool) -> Source:
    # Each imports what it alone needs.
    if name.startswith("folder:"):
        from prune_nas.training.data import folder  # noqa: PLC0415

        root = Path(name.removeprefix("folder:")).expanduser()
        return folder.open_folder(root, name=name, image_size=image_size, cache_images=cache_images)
    if name.startswith("hf:"):
        from prune_nas.training.data import hub  # noqa: PLC0415

        return hub.open_hub(name, image_size=image_size, download=download)
    if runs_code(name):
        from prune_nas.training.data import custom  # noqa: PLC0415

        return custom.open_custom(name, image_size=image_size)
    if name == "digits":
        from prune_nas.training.data import digits  # noqa: PLC0415

        return digits.open_digits(image_size=image_size)
    if name in {"cifar10", "cifar100"}:
        from prune_nas.training.data import cifar  # noqa: PLC0415

        return cifar.open_cifar(name, data_dir=data_dir, image_size=image_size, download=download)
    raise unknown("data set", name, DATASETS)
