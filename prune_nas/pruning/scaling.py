"""The penalties that train scaling factors beside a network: how these are put on, and folded in at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from prune_nas.design.space import Space
from prune_nas.pruning import sss, sss_blocks


class Scaling(NamedTuple):
    """Both change a network in place."""

    attach: Callable[[Space, nn.Module], nn.Module]
    fold: Callable[[Space, nn.Module], nn.Module]


SCALINGS: Mapping[str, Scaling] = {
    "sss": Scaling(sss.attach, sss.fold),
    "sss-blocks": Scaling(sss_blocks.attach, sss_blocks.fold),
}
"""Penalty -> what its factors multiply."""
