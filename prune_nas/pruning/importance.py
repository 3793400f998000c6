"""Scores: how much each channel of a trained supernet matters."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prune_nas.design.space import Space
from prune_nas.pruning.norms import gamma, places


@torch.no_grad()
def gamma_scores(space: Space, network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The mean of |gamma| over a slot's norms, one score a channel.

    Returns:
        Slot -> array of shape (ceiling,), float32.

    Raises:
        UsageError: a slot has no BatchNorm with a gamma.
    """
    scores = {}
    for slot, spots in places(space, network).items():
        per_norm = [gamma(network, spot).abs().float().reshape(-1, spot.times).mean(1) for spot in spots]
        scores[slot] = torch.stack(per_norm).mean(0).cpu().numpy()
    return scores
