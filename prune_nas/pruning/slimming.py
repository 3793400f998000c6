"""Network Slimming: one threshold on |gamma| for the whole network (Liu et al. 2017, arXiv 1708.06519)."""

from __future__ import annotations

import numpy as np
from torch import nn

from prune_nas.design.selection import Selection
from prune_nas.design.space import Space
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.ratios import keep, share_of


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
        UsageError: the ratio is not above 0 and below 1.
    """
    share, scores = share_of(ratio), channel_scores(space, network)
    pooled = np.sort(np.concatenate([scores[slot.name] for slot in space.slots]))
    threshold = pooled[int(len(pooled) * share)]
    return keep(space, {name: int((values > threshold).sum()) for name, values in scores.items()}, scores)
