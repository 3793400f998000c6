"""One initialisation for base, supernet and candidates alike, so that a comparison compares shapes only.

The policy of Network Slimming's code (github.com/Eric-mingjie/rethinking-network-pruning): convolutions
N(0, sqrt(2 / fan_out)), norms gamma 0.5 and beta 0, linear layers N(0, 0.01) with bias 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

GAMMA = 0.5
LINEAR_STD = 0.01


@torch.no_grad()
def initialise(network: nn.Module, seed: int) -> nn.Module:
    """Draw all weights anew, in place and in module order; the global random state is neither read nor changed.

    Running statistics start again. Parameters of any other kind of module keep their values, which are the traced
    network's: the same for every seed.

    Args:
        network: changed in place.
        seed: of a generator of its own, on the CPU: every device gets the same numbers.

    Returns:
        `network`.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _ConvNd):
            fan_out = math.prod(module.kernel_size) * module.out_channels / module.groups
            _normal(module.weight, math.sqrt(2 / fan_out), generator)
            _fill(module.bias, 0)
        elif isinstance(module, nn.Linear):
            _normal(module.weight, LINEAR_STD, generator)
            _fill(module.bias, 0)
        elif isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            if isinstance(module, _NormBase):
                module.reset_running_stats()
            _fill(module.weight, GAMMA)
            _fill(module.bias, 0)
        elif isinstance(module, nn.PReLU):
            _fill(module.weight, module.init)
    return network


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)


def _fill(parameter: Tensor | None, value: float) -> None:
    if parameter is not None:
        parameter.fill_(value)
