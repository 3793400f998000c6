"""How fast this machine trains a network: timed on a few real steps, and remembered for an hour.

Why remember. Timing costs a command seconds before its first training step, and the next command times the same steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_nas.design.files import parse_json, write_json
from prune_nas.design.space import Widths
from prune_nas.nets.tracing import Traced
from prune_nas.search.rundir import machine
from prune_nas.training.convolution import has_amx, quick_convolutions
from prune_nas.training.data.source import cache_dir
from prune_nas.training.loop import Setting, place
from prune_nas.training.precision import FORMATS, Precision, choose, synchronise

if TYPE_CHECKING:
    from prune_nas.search.experiment import Experiment

T = TypeVar("T")

_HOUR = 3600.0
_PROBES = 3
_AGREED = 1.1  # two probes whose times differ by less are enough


def precision_for(
    wanted: str, traced: Traced, widths: Widths, batch: tuple[Tensor, Tensor], device: torch.device
) -> Precision:
    """`training.precision.choose` for a network of these widths.

    Raises:
        UsageError: there is no such format.
    """
    if wanted != "auto":
        return choose(wanted, traced.template, batch, device)
    return remembered(
        ["precision", *_subject(traced, widths, batch[0], device)],
        lambda: choose("auto", traced.build(widths, seed=0), batch, device),
        Precision.to_dict,
        Precision.from_dict,
    )


def seconds_per_image(job: Experiment, widths: Widths, threads: int, *, anew: bool = False) -> float:
    """Seconds per training image of a network on so many CPU threads: of the fastest of a few steps.

    What was measured within the last hour is remembered, unless it is to be measured `anew`.

    Raises:
        RuntimeError: the network does not fit into memory.
    """
    setting, before = job.setting, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batch = next(iter(setting.data.train.batches(job.batch, device=setting.device)))
        return remembered(
            ["step", setting.precision.name, *_subject(job.traced, widths, batch[0], setting.device)],
            lambda: (
                _fastest_step(place(job.traced.build(widths, seed=0), setting.device), batch, setting) / len(batch[1])
            ),
            float,
            _positive,
            anew=anew,
        )
    finally:
        torch.set_num_threads(before)


def _fastest_step(network: nn.Module, batch: tuple[Tensor, Tensor], setting: Setting) -> float:
    network.train()
    times: list[float] = []
    with quick_convolutions(network, setting.device, FORMATS[setting.precision.name]):
        while len(times) < _PROBES and not (len(times) > 1 and max(times[-2:]) < _AGREED * min(times[-2:])):
            start = time.perf_counter()
            with setting.precision.autocast(setting.device):
                loss = F.cross_entropy(network(batch[0]), batch[1])
            loss.backward()
            synchronise(setting.device)
            times.append(time.perf_counter() - start)
    return min(times)


def _subject(traced: Traced, widths: Widths, images: Tensor, device: torch.device) -> list[Any]:
    """All that a speed depends on, but for what else the machine does."""
    space = replace(traced.space, latency=(), base_latency=None).to_dict()
    here = [dict(machine()), torch.__version__, str(device), torch.get_num_threads(), has_amx()]
    return [space, widths.digest, list(images.shape), *here]


def _positive(seconds: Any) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds} seconds")
    return float(seconds)


def remembered(
    of: list[Any], measure: Callable[[], T], write: Callable[[T], Any], read: Callable[[Any], T], *, anew: bool = False
) -> T:
    """What was found of the same within an hour, or is now; a file that is damaged is as good as none."""
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_dir() / "speeds" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if not anew and 0 <= time.time() - path.stat().st_mtime < _HOUR:
            return read(parse_json(path.read_text()))
    found = measure()
    with contextlib.suppress(OSError):
        _forget(path.parent)
        write_json(path, write(found))
    return found


def _forget(folder: Path) -> None:
    """Delete what is older than an hour."""
    for path in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # another command was faster
            if not 0 <= time.time() - path.stat().st_mtime < _HOUR:
                path.unlink()
