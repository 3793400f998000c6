"""See that what a space says of a network is true: build some networks, run them, and count.

A slot for which the count differs from the formula, or with which the network does not run, is frozen and named. So a
kind of code that the tracer misreads costs a free width, and never gives a wrong number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.nets.counting import counted
from prune_nas.nets.form import set_mode
from prune_nas.nets.graph import first_line, slow_attention, user_line

Build = Callable[[Widths], nn.Module]
_REPAIR = (
    "A decision of `forward` may not be visible to a trace, such as `type(x) is Tensor`: use isinstance. Otherwise "
    "please report it with the network"
)
_RANDOM = 2  # networks of random widths, beside the narrowest and the base


@dataclass(frozen=True, slots=True)
class Doubt:
    """Where a built network is not what the space says: the widths, and what is wrong."""

    widths: Widths
    reason: str


def doubts(space: Space, build: Build) -> dict[str, str]:
    """Slot -> why its width must stay: with another width the count is wrong, or the network does not run.

    Args:
        space: what was read.
        build: makes a network of the space at some widths.

    Raises:
        UsageError: the count is wrong for the base itself, or only for several slots together.
    """
    found = next((doubt for widths in _samples(space) if (doubt := _doubt(space, build, widths))), None)
    if found is None:
        return {}
    if wrong := _doubt(space, build, space.base):
        raise UsageError(f"{space.model} was misread: {wrong.reason}. {_REPAIR}")
    alone = {slot.name: Widths({**space.base, slot.name: slot.floor}) for slot in space.slots}
    wrong_alone = {
        name: doubt.reason for name, widths in alone.items() if (doubt := _doubt(space, build, widths)) is not None
    }
    if not wrong_alone:
        raise UsageError(f"{space.model} was misread: {found.reason}. {_REPAIR}")
    return wrong_alone


def trains(space: Space, build: Build) -> None:
    """See that the narrowest network and the base run in training, too.

    Raises:
        UsageError: one does not; the layer that failed is named.
    """
    for name, widths in (("base", space.base), ("narrowest", space.narrowest)):
        network = set_mode(build(widths), training=True)
        with torch.random.fork_rng(devices=[]), _last_layer(network) as entered:
            try:
                with torch.no_grad():
                    network(*_inputs(space, 2))
            except Exception as error:
                layer = entered.get("layer")
                where = f" in the layer {layer}, which only training uses or whose size is written out" if layer else ""
                raise UsageError(
                    f"the {name} {space.model} does not run in training{where}: {first_line(error)} "
                    f"({user_line(error)}). Take out what only training uses, or compute sizes from tensors, as in "
                    "x.shape[1] or x.flatten(1)"
                ) from error


def gives_probabilities(space: Space, build: Build) -> bool:
    """Whether the network ends in a softmax: its outputs for any image are not negative and sum to 1.

    Raises:
        UsageError: two passes over the same images give different outputs.
    """
    network = set_mode(build(space.base), training=False)
    with torch.no_grad():
        given, again = (_tensors(network(*_inputs(space, 2))) for _ in range(2))
    if any(
        not torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
        for one, other in zip(given, again, strict=True)
    ):
        raise UsageError(
            f"two passes of {space.model} over the same images give different outputs in eval mode: it draws random "
            "numbers, or keeps what it saw. Do that only in training (`if self.training:`)"
        )
    return any(
        one.shape == (2, space.classes) and bool((one >= 0).all()) and torch.allclose(one.sum(1), torch.ones(2))
        for one in given
    )


def _samples(space: Space) -> list[Widths]:
    dice = random.Random(0)
    drawn = (
        {slot.name: dice.randrange(slot.floor, slot.ceiling + 1, slot.multiple) for slot in space.slots}
        for _ in range(_RANDOM)
    )
    return [*map(Widths, drawn), space.narrowest, space.base]  # the last two are built once for all that follows


def _doubt(space: Space, build: Build, widths: Widths) -> Doubt | None:
    """What is wrong with the network of these widths; None if nothing is."""
    network = set_mode(build(widths), training=False)
    told, params = space.cost(widths), sum(value.numel() for value in network.parameters())
    try:
        with slow_attention():
            macs, given = counted(network, *_inputs(space, 1))
    except Exception as error:
        return Doubt(widths, f"the network does not run with it ({first_line(error)}, {user_line(error)})")
    if (macs, params) != (told.macs, told.params):
        formula = f"{told.macs:,} macs and {told.params:,} params"
        return Doubt(widths, f"{macs:,} macs and {params:,} params were counted, and the formula gives {formula}")
    shapes = [tuple(one.shape) for one in _tensors(given)]
    if (1, space.classes) not in shapes:
        return Doubt(widths, f"the network then gives {shapes}")
    return None


def _inputs(space: Space, examples: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(examples, *shape, generator=generator) for shape in (space.input_shape, *space.other_inputs)]


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping):
        given = list(given.values())
    return [one for item in given for one in _tensors(item)] if isinstance(given, (tuple, list)) else []


class _last_layer:  # noqa: N801
    """Notes the layer that was entered last, while it lasts."""

    def __init__(self, network: nn.Module) -> None:
        self._hooks: list[Any] = []
        self._entered: dict[str, str] = {}
        for path, module in network.named_modules():
            if path and next(module.children(), None) is None:
                self._hooks.append(module.register_forward_pre_hook(self._noting(path)))
                self._hooks.append(module.register_forward_hook(lambda *_: self._entered.clear()))

    def _noting(self, path: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self._entered["layer"] = path

        return note

    def __enter__(self) -> dict[str, str]:
        return self._entered

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
