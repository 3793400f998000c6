from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own, and no network but this machine's, for every test."""
    home = tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: home)
    monkeypatch.delenv("PRUNE_NAS_DATA", raising=False)
    resolve = socket.getaddrinfo

    def only_local(host, *arguments, **named):
        if host != "127.0.0.1":
            raise OSError("no network in tests")
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", only_local)
    return home


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write class folders of noise: `make_folder(train={"cat": 3}, test={"cat": 1})`."""

    def make(root: Path | None = None, size: int = 32, **splits: dict[str, int]) -> Path:
        root = root or tmp_path / "pictures"
        rng = np.random.default_rng(0)
        for split, classes in splits.items():
            (root / split).mkdir(parents=True)
            for name, count in classes.items():
                (root / split / name).mkdir()
                for index in range(count):
                    pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f"{index:03}.png")
        return root

    return make
