"""Unstructured pruning: masks over the weights of convolutions, by magnitude or drawn from keep probabilities.

Only convolutions are pruned, as in the paper (Liu et al. 2019, section 4.3). A mask is a boolean tensor of its weight's
shape; True stays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prune_nas.design.kernels import Counts, Kernel, Mask, planned
from prune_nas.design.space import Cost, Space
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.nets.assembly import LEFTOVER

Masks = Mapping[str, Tensor]


def weights_of(space: Space, network: nn.Module) -> dict[str, Tensor]:
    """Layer -> the weight of each convolution of a network."""
    modules = {name: network.get_submodule(name) for name in _weighted(space)}
    return {name: module.weight.detach() for name, module in modules.items() if isinstance(module, _ConvNd)}


def weights_in(space: Space, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer -> the weight of each convolution, from a network's state: the network itself need not be built.

    Raises:
        UsageError: the state is another network's.
    """
    found = {name: state.get(f"{name}.weight") for name in _weighted(space)}
    if missing := [name for name, weight in found.items() if weight is None]:
        raise UsageError(f"these weights are not those of {space.model}: {missing[0]} is missing")
    return {name: weight for name, weight in found.items() if weight is not None and weight.ndim > 2}


def _weighted(space: Space) -> list[str]:
    """The convolutions and linear layers, without what merely counts as constant."""
    return [layer.name for layer in space.layers if layer.kernel and layer.kind != LEFTOVER]


def convolutions(space: Space, weights: Mapping[str, Tensor]) -> list[Kernel]:
    """What the deciding half must know of `weights_of`, in its order.

    A layer's stage is that of the slots with as many positions, else of the next smaller feature map.
    """
    by_layer = {layer.name: layer for layer in space.layers}
    stage_at = {
        by_layer[name].positions: slot.stage for slot in space.slots for name in slot.layers if name in by_layer
    }
    found = []
    for name, weight in weights.items():
        positions = by_layer[name].positions
        smaller = [stage for size, stage in stage_at.items() if size <= positions]
        stage = stage_at.get(positions, min(smaller, default=space.stages - 1))
        shape = tuple(weight.shape[2:])
        found.append(Kernel(name, stage, shape, weight.numel() // math.prod(shape), positions))
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
        PruneNasError: the supernet's largest weights are not those that the mask was made from.
    """
    weights = weights_of(space, network)
    if mask.rule is not None:
        own = convolutions(space, weights)
        return drawn(weights, own, planned(mask.rule, own, space.stages, mask.weights), seed)
    masks = by_magnitude(weights, mask.weights)
    if mask.chosen and digest(masks) != mask.chosen:
        raise PruneNasError(
            "the supernet was trained again, on another machine or by another version. Its largest weights differ "
            "from those that this run has compared so far. Name another --run"
        )
    return masks


@torch.no_grad()
def by_magnitude(weights: Mapping[str, Tensor], many: int) -> Masks:
    """Magnitude pruning: the `many` largest of all weights, by one threshold for all layers.

    Of equal magnitudes the first stay. A layer may lose all its weights, as in the paper.
    """
    values = torch.cat([weight.abs().flatten().float().cpu() for weight in weights.values()])
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[torch.sort(values, descending=True, stable=True).indices[:many]] = True
    parts = kept.split([weight.numel() for weight in weights.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def drawn(weights: Mapping[str, Tensor], kernels: Sequence[Kernel], counts: Counts, seed: int) -> Masks:
    """Random masks with as many weights at every place of every layer as `counts` says."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for kernel in kernels:
        mask = torch.zeros(kernel.places, kernel.many, dtype=torch.bool)
        for place, count in enumerate(counts[kernel.layer].tolist()):
            mask[place, torch.randperm(kernel.many, generator=generator)[:count]] = True
        masks[kernel.layer] = mask.T.reshape(weights[kernel.layer].shape)
    return masks


def digest(masks: Masks) -> str:
    """Eight hexadecimal digits that tell masks apart."""
    packed = hashlib.sha256()
    for name, mask in masks.items():
        packed.update(name.encode() + np.packbits(np.asarray(mask.flatten())).tobytes())
    return packed.hexdigest()[:8]


def count(masks: Masks, kernels: Sequence[Kernel]) -> Counts:
    """Layer -> the number of weights kept at each place of its kernels, shape (places,)."""
    return {
        kernel.layer: np.asarray(masks[kernel.layer].reshape(kernel.many, kernel.places).sum(0), dtype=np.int64)
        for kernel in kernels
    }


def as_counts(kept: Mapping[str, Sequence[int]]) -> Counts:
    """Counts that were read from a file."""
    return {layer: np.array(places, dtype=np.int64) for layer, places in kept.items()}


def cost(dense: Cost, kernels: Sequence[Kernel], kept: Counts) -> Cost:
    """What a network costs without its masked weights: what a machine would pay that skips them.

    Args:
        dense: of the network with all its weights.
        kernels: its convolutions.
        kept: layer -> weights kept at each place of its kernels.
    """
    gone = [(kernel.weights - int(kept[kernel.layer].sum()), kernel.positions) for kernel in kernels]
    return Cost(
        dense.macs - sum(weights * positions for weights, positions in gone),
        dense.params - sum(weights for weights, _ in gone),
    )


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

    def __call__(self, network: nn.Module, lr: float) -> None:
        """Zero the gradients of masked weights."""
        for layer, mask in self._masks.items():
            grad = network.get_submodule(layer).weight.grad
            if isinstance(grad, Tensor):
                here = self._masks[layer] = mask.to(grad.device)
                grad.mul_(here)
