"""See that another process makes the same network: with the same weights it must give the same outputs.

A constructor may draw numbers that no seed decides, or loop over a set, whose order differs between processes. What is
tested is then not what is loaded. Python's hash seed differs between the processes that are compared here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prune_nas.errors import UsageError
from prune_nas.nets.form import set_mode
from prune_nas.nets.initialise import made_under
from prune_nas.nets.tracing import maker_of
from prune_nas.tensors import on_host

HASH_SEEDS = ("1", "2")
_AGREED = 1e-4  # of the largest output
_SECONDS = 300


def see(model: str, *, input_shape: tuple[int, ...], classes: int, base_width: float) -> None:
    """Make the network here and in two other processes, and compare.

    Args:
        model: that names Python code.
        input_shape: of one image.
        classes: of the outputs.
        base_width: as `trace` takes it.

    Raises:
        UsageError: they differ.
    """
    given = {"model": model, "input_shape": list(input_shape), "classes": classes, "base_width": base_width}
    network = _made(given)
    wanted = _outputs(network, input_shape)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file(on_host(network.state_dict()), weights)
        text = json.dumps({**given, "weights": str(weights)})
        running = [_started(hash_seed) for hash_seed in HASH_SEEDS]
        try:
            found = [_answer(process, text) for process in running]
        finally:
            for process in running:
                process.kill()
    scale = max(float(wanted.abs().max()), 1e-6)
    for one in found:
        if isinstance(one, str):
            raise UsageError(f"{model} is another network in another process ({one}). {_REPAIR}")
        if one.shape != wanted.shape:
            raise UsageError(f"{model} is another network in another process: it has other outputs. {_REPAIR}")
        gap = float((one - wanted).abs().max())
        if not gap <= _AGREED * scale:
            raise UsageError(
                f"{model} is another network in another process: with the same weights its outputs differ by "
                f"{gap:.2g}, and the largest output is {scale:.2g}. {_REPAIR}"
            )


_REPAIR = (
    "Its constructor uses something that no seed decides: numbers from a generator of its own, or the order of a set. "
    "Keep drawn numbers with register_buffer, and loop over a list or sorted(...)"
)


def _started(hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "prune_nas.nets.again"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _answer(process: subprocess.Popen[str], text: str) -> Tensor | str:
    """The outputs that a process gives, or why it gives none."""
    out, err = process.communicate(text, timeout=_SECONDS)
    lines = out.strip().splitlines()
    if process.returncode or not lines:
        return (err.strip().splitlines() or ["it ended without a word"])[-1]
    return torch.tensor(json.loads(lines[-1]))


def _made(given: dict[str, Any]) -> nn.Module:
    make = maker_of(given["model"], tuple(given["input_shape"]), given["classes"], given["base_width"])
    return made_under(make, 0)  # as every network is made that trained weights are loaded into


def _outputs(network: nn.Module, input_shape: Sequence[int]) -> Tensor:
    x = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = set_mode(network, training=False)(x)
    tensors = (
        given if isinstance(given, (tuple, list)) else list(given.values()) if isinstance(given, dict) else [given]
    )
    return torch.cat([one.flatten() for one in tensors if isinstance(one, Tensor)]).float()


def main() -> None:
    """Answer one question: read it from stdin, and print the outputs."""
    torch.set_num_threads(1)  # two processes answer at once
    given = json.loads(sys.stdin.read())
    network = _made(given)
    network.load_state_dict(load_file(given["weights"]))
    sys.stdout.write(json.dumps(_outputs(network, given["input_shape"]).tolist()))


if __name__ == "__main__":
    main()
