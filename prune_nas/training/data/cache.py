"""Decoded images kept in a file, so that a set is decoded once and then read as fast as the disk allows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prune_nas.design.files import write_bytes
from prune_nas.design.sizes import Size
from prune_nas.training.data.decode import decode
from prune_nas.training.data.download import Progress
from prune_nas.training.data.source import Arrays, cache_dir

_CHUNK = 1024  # images that are decoded between two words on the progress


def cached(key: str, files: Iterable[str | Path], build: Callable[[], Arrays]) -> Arrays:
    """Read the arrays kept under `key`, or build and keep them.

    A file that is damaged, or was made from other files, is built anew and replaced. Where the cache cannot be
    written, nothing is kept and nothing fails.

    Args:
        key: names the set, its place, the split and the image size: one file each.
        files: what the arrays are made from; their paths, sizes and times of change say whether it is still that.
        build: decodes them.
    """
    path = cache_dir() / "decoded" / f"{key}.safetensors"
    source = fingerprint(files)
    kept = _read(path, source)
    if kept is not None:
        return kept
    arrays = build()
    with contextlib.suppress(OSError):
        write_bytes(path, save(arrays._asdict(), {"schema": "1", "source": source}))
    return arrays


def fingerprint(files: Iterable[str | Path], root: Path | None = None) -> str:
    """The sha256 of the files' paths and sizes in bytes, without opening them.

    With a `root`, paths are those below it, and a copy elsewhere has the same; without, times of change count, too.
    """
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)  # noqa: PTH116 (a path takes several times as long)
        name = Path(file).relative_to(root).as_posix() if root else file
        changed = "" if root else status.st_mtime_ns
        digest.update(f"{name}\0{status.st_size}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def place(path: Path) -> str:
    """A short name for a folder, for use in a key."""
    return hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()[:10]


def _read(path: Path, source: str) -> Arrays | None:
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("source") != source:
                return None
            pixels, labels = file.get_tensor("pixels"), file.get_tensor("labels")
    except (OSError, SafetensorError):
        return None
    return Arrays(pixels.astype(np.uint8, copy=False), labels.astype(np.int64, copy=False))


def mapped(key: str, files: Sequence[str], size: Size, progress: Progress) -> NDArray[np.uint8]:
    """Decode files once into a file of pixels, and map that into memory.

    Unlike `cached`, nothing but one chunk is ever held in memory, and a full disk is an error: this was asked for.

    Args:
        key: names the set, its place, the split and the image size.
        files: the images; their paths, sizes and times of change say whether the file is still theirs.
        size: height and width in pixels.
        progress: told the bytes that are decoded and those there will be.

    Returns:
        (N, height, width, 3), read from the disk as it is needed.

    Raises:
        UsageError: an image cannot be read.
        OSError: the cache has no room.
    """
    folder, shape = cache_dir() / "decoded", (len(files), *size, 3)
    path, each = folder / f"{key}-{fingerprint(files)[:16]}.npy", size.height * size.width * 3
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
        if kept.shape == shape and kept.dtype == np.uint8:
            return cast("NDArray[np.uint8]", kept)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{path.name}.{os.getpid()}"
    try:
        with part.open("wb") as file, ThreadPoolExecutor() as pool:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for start in range(0, len(files), _CHUNK):
                for image in pool.map(partial(decode, size=size), files[start : start + _CHUNK]):
                    file.write(image.tobytes())
                progress(min(start + _CHUNK, len(files)) * each, len(files) * each)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        for old in folder.glob(f"{key}-*.npy"):
            if old != path:
                old.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)
    return cast("NDArray[np.uint8]", np.load(path, mmap_mode="r", allow_pickle=False))
