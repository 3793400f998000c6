"""Unstructured pruning: masks over the weights of convolutions, by magnitude or drawn from keep probabilities.

Only convolutions are pruned, as in the paper (Liu et al. 2019, section 4.3). A mask is a boolean tensor of its weight's
shape; True stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prune_nas.design.kernels import Counts, Kernel, Mask, planned
from prune_nas.design.space import Space

Masks = Mapping[str, Tensor]


def kernels(space: Space, network: nn.Module) -> list[Kernel]:
    """The convolutions of a network, in the order of its space's layers.

    A layer's stage is that of the slots with as many positions, else of the next smaller feature map.
    """
    by_layer = {layer.name: layer for layer in space.layers}
    stage_at = {
        by_layer[name].positions: slot.stage for slot in space.slots for name in slot.layers if name in by_layer
    }
    found = []
    for layer in space.layers:
        module = network.get_submodule(layer.name) if layer.kernel else None
        if not isinstance(module, _ConvNd):
            continue
        smaller = [stage for positions, stage in stage_at.items() if positions <= layer.positions]
        stage = stage_at.get(layer.positions, min(smaller, default=space.stages - 1))
        shape = tuple(module.kernel_size)
        found.append(Kernel(layer.name, stage, shape, module.weight.numel() // math.prod(shape), layer.positions))
    return found


def masks_of(mask: Mask, space: Space, network: nn.Module, *, seed: int) -> Masks:
    """The masks that `mask` stands for.

    Args:
        mask: which weights, and how many.
        space: the network's.
        network: at the space's ceilings; the trained supernet where the mask has no rule.
        seed: that masks are drawn with.

    Raises:
        BudgetError: fewer than one weight a layer may be kept.
    """
    own = kernels(space, network)
    if mask.rule is None:
        return largest(network, own, mask.weights)
    return drawn(network, own, planned(mask.rule, own, space.stages, mask.weights), seed)


@torch.no_grad()
def largest(network: nn.Module, kernels: Sequence[Kernel], weights: int) -> Masks:
    """Magnitude pruning: the `weights` largest of all weights of the kernels, by one threshold for all layers.

    Of equal magnitudes the first stay.
    """
    values = torch.cat([_weight(network, kernel).abs().flatten().float().cpu() for kernel in kernels])
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[torch.sort(values, descending=True, stable=True).indices[:weights]] = True
    parts = kept.split([kernel.weights for kernel in kernels])
    return {k.layer: part.reshape(_weight(network, k).shape) for k, part in zip(kernels, parts, strict=True)}


def drawn(network: nn.Module, kernels: Sequence[Kernel], counts: Counts, seed: int) -> Masks:
    """Random masks with as many weights at every place of every layer as `counts` says."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for kernel in kernels:
        mask = torch.zeros(kernel.places, kernel.many, dtype=torch.bool)
        for place, count in enumerate(counts[kernel.layer].tolist()):
            mask[place, torch.randperm(kernel.many, generator=generator)[:count]] = True
        masks[kernel.layer] = mask.T.reshape(_weight(network, kernel).shape)
    return masks


def count(masks: Masks, kernels: Sequence[Kernel]) -> Counts:
    """Layer -> the number of weights kept at each place of its kernels, shape (places,)."""
    return {
        kernel.layer: np.asarray(masks[kernel.layer].reshape(kernel.many, kernel.places).sum(0), dtype=np.int64)
        for kernel in kernels
    }


@torch.no_grad()
def impose(network: nn.Module, masks: Masks, *, rescale: bool) -> None:
    """Set every masked weight to zero, in place.

    Args:
        network: its convolutions.
        masks: layer -> mask.
        rescale: whether what stays is freshly drawn and shall be scaled to the fan that is left: a layer's weights
            times 1 / sqrt(share kept), as cifar/weight-level/cifar_E.py of the paper's code draws them with
            n = nnz / inputs.
    """
    for layer, mask in masks.items():
        weight = network.get_submodule(layer).weight
        assert isinstance(weight, Tensor)  # noqa: S101  (a convolution's; for the type checker)
        share = float(mask.float().mean())
        weight.mul_(mask.to(weight.device))
        if rescale and share > 0:
            weight.mul_(1 / math.sqrt(share))


class Frozen:
    """Masked gradients, to be called between backward and step: a weight that is zero stays zero.

    Weight decay pulls zero nowhere, and momentum of nothing is nothing, so the gradient is all that must be masked.
    """

    def __init__(self, masks: Masks) -> None:
        """Keep the masks; they follow the network to its device."""
        self._masks = dict(masks)

    def __call__(self, network: nn.Module) -> None:
        """Zero the gradients of masked weights."""
        for layer, mask in self._masks.items():
            grad = network.get_submodule(layer).weight.grad
            if isinstance(grad, Tensor):
                here = self._masks[layer] = mask.to(grad.device)
                grad.mul_(here)


def _weight(network: nn.Module, kernel: Kernel) -> Tensor:
    weight = network.get_submodule(kernel.layer).weight
    assert isinstance(weight, Tensor)  # noqa: S101  (a convolution's; for the type checker)
    return weight
