"""Filters with the smallest L1 norms go, a fixed share of each layer's (Li et al. 2017, arXiv 1608.08710).

The shape is predefined: which filters go is read from a trained network, how many is not. The configurations of Li et
al. and of Liu et al. 2019 (cifar/l1-norm-pruning of its code) have letters; any ratio may be asked for as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from prune_nas.design.selection import Selection
from prune_nas.design.space import Space
from prune_nas.pruning.importance import weight_norms
from prune_nas.pruning.ratios import keep, share_of

Share = Callable[[int], float]


def prune(space: Space, network: nn.Module, ratio: str) -> Selection:
    """The filters that stay.

    Args:
        space: the network's.
        network: trained, at the space's ceilings.
        ratio: the share of every slot's channels that goes, or the letter of a configuration of this network.

    Returns:
        int(C * (1 - p)) channels of each slot, but not below its floor nor off its multiple.

    Raises:
        UsageError: the ratio is not above 0 and below 1, or the network has no configuration of that letter.
    """
    return keep(space, counts(space, ratio), weight_norms(space, network, power=1))


def counts(space: Space, ratio: str) -> dict[str, int]:
    """Slot -> int(C * (1 - p)): the channels that stay of its C.

    Raises:
        UsageError: the ratio is not above 0 and below 1, or the network has no configuration of that letter.
    """
    removed = shares(space, ratio)
    return {slot.name: int(slot.ceiling * (1 - removed[slot.name]) + 1e-9) for slot in space.slots}


def shares(space: Space, ratio: str) -> dict[str, float]:
    """Slot -> the share of its channels that goes.

    Raises:
        UsageError: the ratio is not above 0 and below 1, or the network has no configuration of that letter.
    """
    known = CONFIGURATIONS.get(space.model, {})
    if ratio in known:
        share = known[ratio]
        return {slot.name: share(number) for number, slot in enumerate(space.slots, start=1)}
    return dict.fromkeys(space.by_name, share_of(ratio, known))


def _vgg16_a(number: int) -> float:
    """Half of the first convolution and of the eighth to thirteenth."""
    return 0.5 if number == 1 or number >= 8 else 0.0


def _resnet(blocks: int, skip: tuple[int, ...], removed: tuple[float, float, float]) -> Share:
    """Shares of each block's first convolution: one a stage, none for `skip`.

    Layers are counted as the code counts them: the stem is 1, a block's first convolution twice the block's number.
    """

    def share(number: int) -> float:
        return 0.0 if 2 * number in skip else removed[(number - 1) // blocks]

    return share


CONFIGURATIONS: Mapping[str, Mapping[str, Share]] = {
    "vgg16": {"A": _vgg16_a},
    "resnet56": {
        "A": _resnet(9, (16, 20, 38, 54), (0.1, 0.1, 0.1)),
        "B": _resnet(9, (16, 18, 20, 34, 38, 54), (0.6, 0.3, 0.1)),
    },
    "resnet110": {
        "A": _resnet(18, (36,), (0.5, 0.0, 0.0)),
        "B": _resnet(18, (36, 38, 74), (0.5, 0.4, 0.3)),
    },
}
"""Network -> letter -> the share that goes of its slot number n, counted from 1 (paper.md, section 4)."""
