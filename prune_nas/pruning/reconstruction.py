"""How much every channel gives to the layers that read it: what ThiNet and regression-based pruning choose by.

An output of a convolution or linear layer is a sum over its input channels. Taken apart at random places, the sum's
terms say which channels the layer could do without: X has a row for each place and a column for each channel, and its
rows sum to the layer's outputs less the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from prune_nas.design.parts import Layer, Slot, size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError

Terms = NDArray[np.float64]
Kept = Mapping[str, Sequence[int]]
_RIDGE = 1e-3  # of the mean square of an input: how hard a refitted weight is drawn to the inherited one
_TINY = 1e-12


def readers(space: Space, slot: Slot) -> list[Layer]:
    """The full convolutions and linear layers that take a slot's channels in."""
    return [
        layer
        for layer in space.layers
        if layer.kernel and layer.kind in ("conv", "linear") and layer.groups == 1
        if any(name == slot.name for name, _ in layer.inputs)
    ]


def demand_readers(space: Space) -> dict[str, list[Layer]]:
    """Slot -> its readers.

    Raises:
        UsageError: no full layer reads a slot.
    """
    wanted = {slot.name: readers(space, slot) for slot in space.slots}
    if lonely := [name for name, layers in wanted.items() if not layers]:
        raise UsageError(
            f"{space.model}: no ungrouped convolution or linear layer reads {', '.join(lonely[:3])}, so nothing can be "
            "reconstructed from its channels. Use l1-norm or slimming"
        )
    return wanted


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
    wanted = demand_readers(space)
    names = {layer.name for layers in wanted.values() for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    with _inputs(network, names) as seen:
        _pass(network, images)
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
    return np.asarray(torch.stack(rows).cpu().double())


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


@torch.no_grad()
def rescale(space: Space, target: nn.Module, found: Mapping[str, Terms], kept: Kept) -> None:
    """Multiply what each kept channel gives to its readers by the factor that makes up best for the channels that left.

    The factors are the least squares of ThiNet's section 3.2.3 (equation 7).

    Args:
        space: the network's.
        target: built at the kept widths, its weights inherited; changed in place.
        found: slot -> terms of the unpruned network.
        kept: slot -> channels that stay.
    """
    factors = {slot.name: _factors(found[slot.name], kept[slot.name]) for slot in space.slots}
    for layer in space.layers:
        if any(layer in readers(space, space.by_name[name]) for name, _ in layer.inputs if name):
            by = [np.repeat(factors[name] if name else np.ones(1), times) for name, times in layer.inputs]
            weight = _weight(target, layer)
            along = torch.from_numpy(np.concatenate(by)).to(weight)
            weight.mul_(along.view(1, -1, *[1] * (weight.ndim - 2)))


def _factors(found: Terms, kept: Sequence[int]) -> NDArray[np.float64]:
    """The factors nearest to 1 that solve the least squares: a channel that gives nothing keeps its weights."""
    left = found[:, list(kept)]
    added: NDArray[np.float64] = np.linalg.lstsq(left, found.sum(1) - left.sum(1), rcond=None)[0]
    return 1 + added


@torch.no_grad()
def refit(
    space: Space, source: nn.Module, target: nn.Module, kept: Kept, images: Tensor, *, places: int, seed: int
) -> None:
    """Set the weights of every reader so that the pruned network's layers give what the unpruned one's did.

    Layer by layer in the order of the forward pass, each is the least squares of the unpruned outputs on the inputs
    that the pruned network now has at random places (He et al. 2017, section 3.2), drawn a little towards the inherited
    weights, so that few places are enough.

    Args:
        space: the networks'.
        source: trained, at the space's ceilings.
        target: built at the kept widths, its weights inherited; changed in place.
        kept: slot -> channels that stay.
        images: normalised, on the networks' device.
        places: drawn for each reader.
        seed: of the places.
    """
    wanted = {layer.name: layer for slot in space.slots for layer in readers(space, slot)}
    generator = torch.Generator().manual_seed(seed)
    with _inputs(source, set(wanted)) as whole:
        _pass(source, images)
    for layer in (layer for layer in space.layers if layer.name in wanted):
        old, new = source.get_submodule(layer.name), target.get_submodule(layer.name)
        with _inputs(target, {layer.name}) as seen:
            _pass(target, images)
        state = generator.get_state()
        x = _columns(new, seen[layer.name], places, generator)
        generator.set_state(state)
        y = _columns(old, whole[layer.name], places, generator) @ _weight(source, layer).flatten(1).cpu().double().T
        weight, outputs = _weight(target, layer), space.indices(layer.outputs, kept)
        before = weight.flatten(1).cpu().double()
        gram = x.T @ x
        scale = gram.diagonal().mean().clamp_min(_TINY)  # where nothing comes in, the weights stay as they are
        ridge = _RIDGE * scale * torch.eye(len(gram), dtype=gram.dtype)
        solved = torch.linalg.solve(gram + ridge, x.T @ y[:, outputs] + ridge @ before.T)
        weight.copy_(solved.T.reshape(weight.shape))


def _pass(network: nn.Module, images: Tensor) -> None:
    network.eval()
    network(images)
    network.train()


def _weight(network: nn.Module, layer: Layer) -> Tensor:
    weight = network.get_submodule(layer.name).weight
    assert isinstance(weight, Tensor)  # noqa: S101  (for the type checker)
    return weight


def _columns(layer: nn.Module, x: Tensor, places: int, generator: torch.Generator) -> Tensor:
    """What a layer sees at random places, shape (places, inputs * kernel); the same ones for the same generator."""
    rows = []
    for _ in range(places):
        image = x[_draw(len(x), generator)]
        if isinstance(layer, _ConvNd):
            rows.append(_window(layer, image, generator).flatten())
        else:
            flat = image.reshape(-1, x.shape[-1])
            rows.append(flat[_draw(len(flat), generator)])
    return torch.stack(rows).cpu().double()  # MPS has no float64
