"""The supernet phase: train the widest network with a penalty; keep its weights and its channels' scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from prune_nas.design.files import write_bytes
from prune_nas.design.records import SCHEMA
from prune_nas.design.space import Space
from prune_nas.errors import PruneNasError
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.training.loop import Epoch, Setting, train
from prune_nas.training.recipe import Recipe

Scores = dict[str, NDArray[np.float32]]


def train_supernet(
    traced: Traced,
    setting: Setting,
    recipe: Recipe,
    *,
    penalty: str,
    strength: float,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[nn.Module, list[Epoch]]:
    """Train the network at the space's ceilings under a penalty; returns it and its epochs."""
    space = traced.space
    widest = traced.build(space.widest, seed=seed)
    return train(
        lambda: traced.build(space.widest, seed=seed),
        setting,
        recipe,
        seed=seed,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        penalty=penalties.make(penalty, space, widest, strength),
    )


def save_scores(path: Path, scores: Scores, **about: object) -> None:
    """Write `scores.safetensors`; `about` goes into its metadata."""
    write_bytes(path, save_arrays(scores, {"meta": json.dumps({"schema": SCHEMA, **about})}))


def load_scores(path: Path, space: Space) -> Scores:
    """Read `scores.safetensors`.

    Raises:
        PruneNasError: the file is damaged or belongs to another space.
    """
    try:
        scores = load_arrays(path.read_bytes())
    except SafetensorError as error:
        raise PruneNasError(f"{path} is damaged ({error}); delete it to have the supernet scored again") from error
    if any(slot.name not in scores or scores[slot.name].shape != (slot.ceiling,) for slot in space.slots):
        raise PruneNasError(f"{path} does not fit the run's space; delete it to have the supernet scored again")
    return scores


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's state as safetensors, atomically."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, save_tensors(state))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state that `save_weights` wrote.

    Raises:
        PruneNasError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PruneNasError(f"{path} cannot be read ({error}); delete it to have it trained again") from error
