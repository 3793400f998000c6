"""Trained weights as files of a run."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from prune_nas.design.files import write_bytes
from prune_nas.errors import PruneNasError
from prune_nas.tensors import on_host


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's state as safetensors, atomically."""
    write_bytes(path, save_tensors(on_host(network.state_dict())))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state that `save_weights` wrote.

    Raises:
        PruneNasError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PruneNasError(f"{path} cannot be read ({error}). Delete it to have it trained again") from error
