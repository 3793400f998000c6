"""The supernet phase: train the widest network with a penalty; keep its weights and its channels' scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from prune_nas.design.files import write_bytes
from prune_nas.errors import PruneNasError
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.training.loop import Epoch, Setting, train
from prune_nas.training.recipe import Recipe


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
