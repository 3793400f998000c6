"""Sparse Structure Selection of residual blocks: one scaling factor a branch (arXiv 1707.01213, section 3.2).

The factor multiplies what a branch adds to the stream. Where it reaches zero the whole block goes, but for its
shortcut, and the network is shallower. Updates are those of `sss`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prune_nas.design.parts import Branch
from prune_nas.design.selection import Selection
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.pruning import sss
from prune_nas.pruning.ratios import share_of

_BLOCKS = "blocks"


def demand_blocks(space: Space) -> None:
    """See that there are residual blocks.

    Raises:
        UsageError: there are none.
    """
    if not space.branches:
        raise UsageError(
            f"it removes residual blocks, but no block of {space.model} can go. Use sss, which removes channels"
        )


def attach(space: Space, network: nn.Module) -> nn.Module:
    """Put a factor behind every residual branch, in place.

    Raises:
        UsageError: the network has none.
    """
    demand_blocks(space)
    factors = sss.Factors({_BLOCKS: (len(space.branches), 0)})
    network.get_submodule(space.branches[0].last).add_module(sss.FACTORS, factors)
    for number, branch in enumerate(space.branches):
        last = network.get_submodule(branch.last)
        sss.scale(last, lambda out, number=number: out * factors.of(_BLOCKS)[number].to(out.dtype))  # type: ignore[misc]
    return network


@torch.no_grad()
def fold(space: Space, network: nn.Module) -> nn.Module:
    """Multiply each factor into the last layer of its branch and take it off, in place."""
    values = sss.factors_of(network).of(_BLOCKS)
    for branch, value in zip(space.branches, values, strict=True):
        last: Any = network.get_submodule(branch.last)
        last.weight.mul_(value)
        if last.bias is not None:
            last.bias.mul_(value)
        sss.unscale(last)
    delattr(network.get_submodule(space.branches[0].last), sss.FACTORS)
    return network


def left(space: Space, network: nn.Module) -> list[Branch]:
    """The branches of a trained and folded network that still add something: the last layer's weight is not zero."""
    return [branch for branch in space.branches if bool((_weight(network, branch) != 0).any())]


def prune(space: Space, network: nn.Module, ratio: str) -> Selection:
    """All channels of the branches that stay, and none of those whose factor is zero.

    Args:
        space: the network's.
        network: trained with factors, folded, at the space's ceilings.
        ratio: that it was trained with; how many are zero was decided then.
    """
    share_of(ratio)
    stays = left(space, network)
    out = {slot for branch in space.branches if branch not in stays for slot in branch.slots}
    widths = Widths({slot.name: 0 if slot.name in out else slot.ceiling for slot in space.slots})
    return Selection(widths, {name: tuple(range(width)) for name, width in widths.items()}, ())


def _weight(network: nn.Module, branch: Branch) -> torch.Tensor:
    weight = network.get_submodule(branch.last).weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101  (a convolution's or a norm's; for the type checker)
    return weight
