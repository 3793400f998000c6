"""Decoded images kept in a file, so that a set is decoded once and then read as fast as the disk allows."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prune_nas.design.files import write_bytes
from prune_nas.training.data.source import Arrays, cache_dir


def cached(key: str, files: Iterable[Path], build: Callable[[], Arrays]) -> Arrays:
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


def fingerprint(files: Iterable[Path], root: Path | None = None) -> str:
    """The sha256 of the files' paths (below `root`), sizes in bytes and times of change, without opening them."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        name = file.relative_to(root).as_posix() if root else file
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
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
