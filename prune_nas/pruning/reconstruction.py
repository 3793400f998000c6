"""How much every channel gives to the layers that read it: what ThiNet and regression-based pruning choose by.

An output of a convolution or linear layer is a sum over its input channels. Taken apart at random places, the sum's
terms say which channels the layer could do without: X has a row for each place and a column for each channel, and its
rows sum to the layer's outputs less the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from prune_nas.design.space import Layer, Slot, Space, size
from prune_nas.errors import UsageError

Terms = NDArray[np.float64]


def readers(space: Space, slot: Slot) -> list[Layer]:
    """The full convolutions and linear layers that take a slot's channels in."""
    return [
        layer
        for layer in space.layers
        if layer.kernel and layer.kind in ("conv", "linear") and layer.groups == 1
        if any(name == slot.name for name, _ in layer.inputs)
    ]


@torch.no_grad()
def terms(space: Space, network: nn.Module, images: Tensor, *, places: int, seed: int) -> dict[str, Terms]:
    """Slot -> X, shape (places a reader, ceiling): what each channel gives to its readers at random places.

    Args:
        space: the network's.
        network: trained, at the space's ceilings.
        images: normalised, on the network's device.
        places: drawn for each reader: an image, an output channel and a position each.
        seed: of the places.

    Raises:
        UsageError: no full layer reads a slot.
    """
    wanted = {slot.name: readers(space, slot) for slot in space.slots}
    if lonely := [name for name, layers in wanted.items() if not layers]:
        raise UsageError(
            f"{space.model}: no ungrouped convolution or linear layer reads {', '.join(lonely[:3])}, so nothing can be "
            "reconstructed from its channels; use l1-norm or slimming"
        )
    names = {layer.name for layers in wanted.values() for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    with _inputs(network, names) as seen:
        network.eval()
        network(images)
        network.train()
    parts = {name: _taken_apart(network.get_submodule(name), x, places, generator) for name, x in sorted(seen.items())}
    return {
        slot.name: np.concatenate([_of_slot(space, layer, slot, parts[layer.name]) for layer in wanted[slot.name]])
        for slot in space.slots
    }


@contextmanager
def _inputs(network: nn.Module, names: set[str]) -> Iterator[dict[str, Tensor]]:
    """What some layers take in while the block lasts."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> torch.utils.hooks.RemovableHandle:
        return network.get_submodule(name).register_forward_pre_hook(
            lambda module, args: seen.__setitem__(name, args[0].detach())
        )

    handles = [note(name) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _taken_apart(layer: nn.Module, x: Tensor, places: int, generator: torch.Generator) -> Terms:
    """The terms of a layer's sum at random places, shape (places, inputs)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101  (for the type checker)
    rows = []
    for _ in range(places):
        image, output = _draw(len(x), generator), _draw(len(weight), generator)
        if isinstance(layer, _ConvNd):
            window = _window(layer, x[image], generator)
            rows.append((window * weight[output]).flatten(1).sum(1))
        else:
            flat = x[image].reshape(-1, x.shape[-1])  # tokens, if there are any
            rows.append(flat[_draw(len(flat), generator)] * weight[output])
    return np.asarray(torch.stack(rows).double().cpu())


def _window(layer: _ConvNd, x: Tensor, generator: torch.Generator) -> Tensor:
    """What a convolution sees of one image (C, H, W) at a random output position."""
    padding = layer.padding if isinstance(layer.padding, tuple) else (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    padded = F.pad(x, [p for pad in reversed(padding) for p in (pad, pad)])
    cuts: list[slice] = [slice(None)]
    for length, kernel, stride, dilation in zip(
        padded.shape[1:], layer.kernel_size, layer.stride, layer.dilation, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        start = stride * _draw((length - reach) // stride + 1, generator)
        cuts.append(slice(start, start + reach, dilation))
    return padded[tuple(cuts)]


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _of_slot(space: Space, layer: Layer, slot: Slot, parts: Terms) -> Terms:
    """The columns of one slot, those of one channel summed."""
    start, found = 0, np.zeros((len(parts), slot.ceiling))
    for name, times in layer.inputs:
        width = size(((name, times),), space.widest)  # type: ignore[arg-type]
        if name == slot.name:
            found += parts[:, start : start + width].reshape(len(parts), slot.ceiling, times).sum(2)
        start += width
    return found


def error(found: Terms, kept: Sequence[int]) -> float:
    """What is lost where only some channels stay: the squared sum of the other terms over that of all."""
    gone = np.setdiff1d(np.arange(found.shape[1]), kept)
    return float((found[:, gone].sum(1) ** 2).sum() / max((found.sum(1) ** 2).sum(), 1e-30))
