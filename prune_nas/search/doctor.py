"""`doctor`: what this machine can do."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import torch

from prune_nas.nets.tracing import trace
from prune_nas.search.rundir import machine
from prune_nas.training.data.source import default_data_dir
from prune_nas.training.precision import choose, choose_device

_ABSENT = "not installed"
_CIFAR10 = ("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz")


def examine() -> dict[str, Any]:
    """Devices, versions, the precision that a short self-check picks, and where data sets are looked for."""
    device = choose_device("auto")
    network = trace("vgg16").scaled(base=0.25).build(seed=0)
    batch = torch.randn(64, 3, 32, 32, device=device), torch.zeros(64, dtype=torch.long, device=device)
    precision = choose("auto", network, batch, device)
    data_dir = default_data_dir()
    return {
        **machine(),
        **{name: _version(name) for name in ("prune-nas", "torch", "torchvision", "optuna")},
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "precision check": "; ".join(
            f"{name}: {1000 * s:.0f} ms/step, gradient cosine {c:.3f}" for name, s, c in precision.checked
        ),
        "data_dir": str(data_dir),
        "cifar10 there": any((data_dir / name).exists() for name in _CIFAR10),
        **_extras(),
    }  # fmt: skip


def _extras() -> dict[str, str]:
    """The optional parts of this package: the versions of what they need, or how to install it."""
    needs: dict[str, list[str]] = {}
    for line in requires("prune-nas") or ():
        if found := re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line):
            needs.setdefault(found[2], []).append(found[1])
    needs.pop("dev", None)
    return {f"extra {extra}": _installed(extra, names) for extra, names in needs.items()}


def _installed(extra: str, names: list[str]) -> str:
    found = {name: _version(name) for name in names}
    if _ABSENT in found.values():
        return f"{_ABSENT}. Install it: pip install 'prune-nas[{extra}]'"
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return _ABSENT
