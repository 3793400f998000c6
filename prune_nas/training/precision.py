"""Which number format trains fastest here without changing the result: measured once a run, then recorded.

Why measure. bf16 convolutions are up to 2.5 times as fast as fp32 on a CPU with AVX512-BF16 and many times slower on
one without; no flag of the machine says which holds for the kernels that the installed PyTorch picks.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_nas.errors import MissingError, unknown
from prune_nas.tensors import seeded
from prune_nas.training.convolution import quick_convolutions

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_GAIN = 1.1  # a lower precision must be at least this much faster to be chosen
_CALLS = 3  # at least, where two turns do not agree
_AGREED = 1.1  # times that differ by less agree
_SLOWER = 2.0  # a run goes on in its first format unless that is this much slower than the best
_AGREEMENT = 0.9  # and its gradient must point where the fp32 gradient does (cosine)


@dataclass(frozen=True, slots=True)
class Precision:
    """A number format for forward and backward; weights, norms and the optimiser's state stay fp32.

    `checked` holds what the self-check measured: seconds per step and the gradient's cosine to fp32, by format.
    `before` names the formats of earlier parts of the run, trained on a machine where those were faster.
    """

    name: str
    checked: tuple[tuple[str, float, float], ...] = ()
    before: tuple[str, ...] = ()

    def or_faster(self, other: Precision) -> Precision:
        """The other format where its self-check found this one more than twice as slow, or not to be had."""
        spent = {name: seconds for name, seconds, _ in other.checked}
        if spent.get(self.name, math.inf) <= _SLOWER * spent.get(other.name, 0.0):
            return self
        return replace(other, before=(*self.before, self.name))

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context that forward passes run in."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=FORMATS[self.name])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Precision:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        checked = tuple((str(name), float(spent), float(cosine)) for name, spent, cosine in data["checked"])
        if not {data["name"], *(name for name, _, _ in checked)} <= set(FORMATS):
            raise ValueError("a format that is none")
        return cls(data["name"], checked, tuple(data.get("before", ())))


def choose_device(name: str) -> torch.device:
    """The device called `name`: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        MissingError: this machine does not have it.
        UsageError: there is no such kind of device.
    """
    kind, _, index = name.partition(":")
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps"))
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise MissingError(f"--device {name}: this machine has {found} CUDA devices. Use --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MissingError("--device mps: this machine has no MPS device. Use --device cpu or auto")
    return torch.device(name)


def choose(
    wanted: str, network: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device, *, seconds: float = 1.0
) -> Precision:
    """The format called `wanted`; for `auto` the fastest that agrees with fp32 on this network and device.

    Args:
        wanted: `auto`, `fp32`, `bf16` or `fp16`.
        network: a network as it will be trained; it is copied, never changed.
        batch: normalised images and labels on the device.
        device: where training will run.
        seconds: about how long to measure, all formats together.

    Raises:
        UsageError: there is no such format.
    """
    if wanted != "auto":
        if wanted not in FORMATS:
            raise unknown("precision", wanted, [*FORMATS, "auto"])
        return Precision(wanted)
    candidates = ["fp32", "bf16"] if device.type == "cpu" or _has_bf16(device) else ["fp32", "fp16"]
    subject = copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    subject.train()
    measured = _measure(subject, batch, device, candidates, seconds)
    reference = measured["fp32"][1]
    checked = tuple((name, spent, _cosine(gradient, reference)) for name, (spent, gradient) in measured.items())
    slowest = measured["fp32"][0]
    fit = [c for c in checked if c[0] == "fp32" or (c[1] * _GAIN <= slowest and c[2] >= _AGREEMENT)]
    return Precision(min(fit, key=lambda c: c[1])[0], checked)


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _measure(
    network: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device, names: list[str], seconds: float
) -> dict[str, tuple[float, Tensor]]:
    """Format -> the fastest of its steps, and its gradient.

    The formats take turns, so that what else the machine does slows all of them. They are timed until two turns agree,
    of short steps for a fifth of the time at least.
    """

    def step(name: str) -> float:
        network.zero_grad(set_to_none=True)
        with quick_convolutions(network, device, FORMATS[name]):
            start = time.perf_counter()
            with Precision(name).autocast(device):
                loss = F.cross_entropy(network(batch[0]), batch[1])
            loss.backward()
            synchronise(device)
            return time.perf_counter() - start

    gradients = {}
    for name in names:
        with seeded(0, [device] if device.type == "cuda" else ()):  # so that all leave out the same branches
            step(name)  # the first pass picks kernels
        parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters())
        gradients[name] = torch.cat([part.flatten().float() for part in parts])
    times: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    while True:
        for name in names:
            times[name].append(step(name))
        spent, turns = time.perf_counter() - start, len(times[names[0]])
        agree = all(max(own[-2:]) < _AGREED * min(own) for own in times.values())
        if turns >= 2 and ((agree and spent > seconds / 5) or (spent > seconds and turns >= _CALLS)):
            return {name: (min(times[name]), gradients[name]) for name in names}


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nan_to_num(F.cosine_similarity(a, b, dim=0), nan=-1.0))


def synchronise(device: torch.device) -> None:
    """Wait for a device's queued work, where it has a queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
