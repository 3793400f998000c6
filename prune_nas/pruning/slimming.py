"""Network Slimming: one threshold on |gamma| for the whole network (Liu et al. 2017, arXiv 1708.06519)."""

from __future__ import annotations

import numpy as np
from torch import nn

from prune_nas.design.selection import Selection, best_channels
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.pruning.importance import channel_scores


def prune(space: Space, network: nn.Module, ratio: str) -> Selection:
    """The channels that stay.

    The |gamma| of all slots are pooled; the threshold is the value at index floor(n * ratio) of them in ascending
    order, and a channel stays if its own is strictly larger (cifar/network-slimming/vggprune.py of Liu et al. 2019).
    There a layer may lose all its channels, and the program ends; here each keeps its floor, of its largest.

    Args:
        space: the network's.
        network: trained with L1 on gamma, at the space's ceilings.
        ratio: the share of all channels that goes.

    Raises:
        UsageError: the ratio is not above 0 and below 1, or no slot has a gamma.
    """
    try:
        share = float(ratio)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UsageError(f"a ratio of slimming must lie above 0 and below 1: it is the share that goes; got {ratio}")
    scores = channel_scores(space, network)
    pooled = np.sort(np.concatenate([scores[slot.name] for slot in space.slots]))
    threshold = pooled[int(len(pooled) * share)]
    left = {name: int((values > threshold).sum()) for name, values in scores.items()}
    widths = Widths({slot.name: slot.within(left[slot.name]) for slot in space.slots})
    floored = tuple(slot.name for slot in space.slots if left[slot.name] < slot.floor)
    return Selection(widths, best_channels(scores, widths), floored)
