"""How long one forward pass takes on this machine, with everything that the number depends on."""

from __future__ import annotations

import copy
import logging
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from torch import nn

from prune_nas.nets.form import set_mode

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """One measurement: median and interquartile range in milliseconds, and the conditions."""

    median_ms: float
    iqr_ms: float
    batch: int
    threads: int
    device: str
    dtype: str
    runs: int


def measure(
    network: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
) -> Latency:
    """The latency of one network in eval mode, float32, channels-last.

    Args:
        network: any module; a copy is timed, so neither its mode nor its device changes.
        input_shape: of one example.
        batch: examples in one forward pass.
        device: where to run.
        threads: CPU threads; None for as many as torch uses now.
        seconds: how long to measure.
    """
    timed = {"network": network}
    return compare(timed, input_shape, batch=batch, device=device, threads=threads, seconds=seconds, rounds=1)[
        "network"
    ]


def compare(
    networks: Mapping[str, nn.Module],
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
    rounds: int = ROUNDS,
) -> dict[str, Latency]:
    """The latency of several networks, measured in turns: a machine that slows down slows all of them.

    Of several processes that time on one device, one measures and the others wait.

    Args:
        networks: name -> network; see `measure` for these and for the rest.
        input_shape: of one example.
        batch: examples in one forward pass.
        device: where to run.
        threads: CPU threads; None for as many as torch uses now.
        seconds: how long to measure each network, all rounds together.
        rounds: how many turns each network has.
    """
    threads = threads or torch.get_num_threads()
    x = torch.zeros(batch, *input_shape, device=device)
    x = _channels_last(x)
    timers = {name: _timer(network, x, threads) for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    runs = dict.fromkeys(networks, 0)
    with torch.inference_mode(), _alone(device):
        for _ in range(rounds):
            for name, timer in timers.items():
                block = timer.blocked_autorange(min_run_time=seconds / rounds)
                times[name] += block.times
                runs[name] += block.number_per_run * len(block.times)
    return {
        name: Latency(
            median_ms=1e3 * statistics.median(times[name]),
            iqr_ms=1e3 * _iqr(times[name]),
            batch=batch,
            threads=threads,
            device=device,
            dtype=str(x.dtype).removeprefix("torch."),
            runs=runs[name],
        )
        for name in networks
    }


def _alone(device: str) -> FileLock:
    """Held by the one process of this user that may measure on the device."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    name = f"prune-nas-{user}-latency-{device.replace(':', '-')}.lock"
    return FileLock(Path(tempfile.gettempdir()) / name)


def _timer(network: nn.Module, x: torch.Tensor, threads: int) -> Timer:
    # On import, torch's benchmark tool warns of a CUDA toolkit without a device: nothing that matters to a timing.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer  # noqa: PLC0415 - it imports setuptools, and few commands time anything

    copied = set_mode(copy.deepcopy(network).to(x.device), training=False)
    if x.ndim == 4:
        copied = copied.to(memory_format=torch.channels_last)
    return Timer("network(x)", globals={"network": copied, "x": x}, num_threads=threads)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x


def _iqr(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return high - low
