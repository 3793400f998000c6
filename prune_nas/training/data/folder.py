"""A folder of images: `train/` and `val/` or `test/`, each with one folder a class."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.training.data.cache import cached, mapped, place
from prune_nas.training.data.decode import decode
from prune_nas.training.data.download import show_progress
from prune_nas.training.data.images import Decoded, FolderImages, ImageSet
from prune_nas.training.data.source import Arrays, Source

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_MEASURED = 500  # pictures whose size is read where the user must be asked for one
MEMORY_LIMIT = 1 << 30  # bytes of one decoded split; a larger one is decoded anew in every epoch


def _no_train(root: Path) -> str:
    """Why a folder is no data set, with the one that was meant where that is plain."""
    if not root.is_dir():
        return f"there is no folder {root}"
    must = f"{root} must hold train/ with a folder of images for each class"
    inside = [path for path in sorted(root.iterdir()) if (path / "train").is_dir()]
    outside = [root.parent] if (root.parent / "train").is_dir() else []
    near = (outside + inside)[:3]
    return f"{must}. Did you mean {' or '.join(f'folder:{path}' for path in near)}?" if near else must


def open_folder(root: Path, *, name: str, cache_images: bool = False) -> Source:
    """Find the splits and classes of a folder; no image is read.

    A split that is too large for memory is decoded in every epoch, or, with `cache_images`, once into the cache.
    `test/` is the test set and `val/` the validation set. With only one of the two, that one is the test set and
    validation is cut from `train/`; where that is `val/`, the notes say so.

    Raises:
        UsageError: no `train/`, neither `test/` nor `val/`, fewer than two classes, or splits that differ in classes.
    """
    splits = {split: root / split for split in ("train", "val", "test") if (root / split).is_dir()}
    if "train" not in splits:
        raise UsageError(_no_train(root))
    notes: tuple[str, ...] = ()
    if "test" not in splits:
        if "val" not in splits:
            raise UsageError(f"{root} must hold test/ or val/ beside train/, with the same class folders")
        splits["test"] = splits.pop("val")
        notes = (
            f"{root} has no test/: the images of val/ serve as the test set. Validation images are cut from train/.",
        )
    classes = _classes(splits["train"])
    if len(classes) < 2:
        raise UsageError(f"{splits['train']} must hold at least two class folders. Got {len(classes)}")
    for directory in splits.values():
        _check_classes(directory, classes)
    return Source(
        name=name,
        classes=classes,
        read=partial(_read, root, splits, classes, cache_images),
        tests=sum(len(_files(splits["test"] / label)) for label in classes),
        sizes=partial(_sizes, splits["train"], classes),
        has_val="val" in splits,
        notes=notes,
    )


def _sizes(directory: Path, classes: tuple[str, ...]) -> Counter[Size]:
    """The sizes of pictures, read from the heads of a sample of files; what cannot be read is left out."""
    files = [file for label in classes for file in _files(directory / label)]
    found: Counter[Size] = Counter()
    for file in files[:: -(-len(files) // _MEASURED) or 1]:
        with contextlib.suppress(Exception), Image.open(file) as picture:  # Pillow's errors are of many kinds
            found[Size(picture.height, picture.width)] += 1
    return found


def _read(
    root: Path, splits: dict[str, Path], classes: tuple[str, ...], cache_images: bool, split: str, size: Size
) -> ImageSet:
    """Every image of one split, in the order of the classes' and the files' names."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _files(splits[split] / name)
        if not found:
            raise UsageError(f"{splits[split] / name} holds no image. Known kinds: {', '.join(sorted(SUFFIXES))}")
        files += found
        labels += [label] * len(found)
    if len(files) * size.height * size.width * 3 > MEMORY_LIMIT:
        images = FolderImages(str(root), tuple(files), torch.tensor(labels), size)
        if not cache_images:
            return images
        pixels = mapped(f"folder-{place(splits[split])}-{size}", files, size, show_progress)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the file may not be written to, which nobody does
            rows = Decoded(torch.from_numpy(pixels), torch.arange(len(files)))
        return dataclasses.replace(images, decoded=rows)
    key = f"folder-{place(splits[split])}-{size}"
    return cached(key, files, partial(_decode_all, files, labels, size)).images()


def _decode_all(files: list[str], labels: list[int], size: Size) -> Arrays:
    pixels = np.empty((len(files), *size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:  # threads: Pillow releases the interpreter while it decodes
        for index, image in enumerate(pool.map(partial(decode, size=size), files)):
            pixels[index] = image
    return Arrays(pixels, np.array(labels, np.int64))


def _classes(directory: Path) -> tuple[str, ...]:
    with os.scandir(directory) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))


def _check_classes(directory: Path, classes: tuple[str, ...]) -> None:
    found = set(_classes(directory))
    missing, extra = sorted(set(classes) - found), sorted(found - set(classes))
    if missing:
        raise UsageError(f"{directory / missing[0]} is missing: every split must have every class of train/")
    if extra:
        raise UsageError(f"{directory / extra[0]} has no counterpart in train/: every split must have its classes")


def _files(directory: Path) -> list[str]:
    """The images below a class folder, at any depth; what starts with a dot is another program's."""
    found: list[str] = []
    for base, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        kept = (name for name in names if not name.startswith("."))
        found += [f"{base}{os.sep}{name}" for name in kept if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122
    return sorted(found, key=lambda path: path.split(os.sep))  # noqa: PTH206 (25,000 paths)
