"""Read the space of any network from its forward pass.

The graph (`graph`) is walked once (`walk`): every tensor carries the parts of its channel dimension (`channels`),
every layer and operation has a rule for them (`layers`, `operations`). What remains free at the end are the slots
(`assembly`). A channel dimension that meets an operation without a rule keeps its traced width and is reported:
never guessed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets import assembly, build, graph, models, walk
from prune_nas.nets.models import sources
from prune_nas.nets.settings import SpaceSettings, load_settings


@dataclass(frozen=True)
class Traced:
    """A network that was read: its space and its builder. `template` is the original, on the CPU, never trained."""

    space: Space
    template: nn.Module

    def build(self, widths: Mapping[str, int] | None = None, *, seed: int) -> nn.Module:
        """A fresh, freshly initialised network, in training mode.

        Args:
            widths: of every slot; None for the base.
            seed: of the initial weights.

        Raises:
            UsageError: `widths` does not name exactly the slots, or groups do not divide a width.
        """
        return build.build(self.template, self.space, self.space.base if widths is None else widths, seed)

    def scaled(self, base: float = 1.0, supernet: float = 1.0) -> Traced:
        """The same network with a base `base` times as wide, and ceilings `supernet` times what they were beside it.

        Raises:
            UsageError: a factor is not positive, or `supernet` is below 1.
        """
        wide = self.space.scaled(base, supernet)
        named = replace(
            self.space, slots=tuple(replace(slot, ceiling=self.space.base[slot.name]) for slot in self.space.slots)
        ).scaled(base)
        floors = {slot.name: slot.floor for slot in named.slots}
        slots = tuple(replace(slot, floor=min(slot.floor, floors[slot.name])) for slot in wide.slots)
        return replace(self, space=replace(wide, slots=slots, base=named.base))


def trace(
    model: str | nn.Module | Callable[..., nn.Module],
    *,
    input_shape: tuple[int, ...] = (3, 32, 32),
    classes: int = 10,
    base_width: float = 1.0,
    settings: SpaceSettings | None = None,
) -> Traced:
    """Read a network's space.

    Args:
        model: a built-in name, one that says where the network comes from (`nets.models.sources`), a network, or a
            function that makes one (called with `classes` or `num_classes` if it takes either).
        input_shape: of one example, without the batch.
        classes: the number of outputs.
        base_width: scales every layer of a built-in network and of a function that takes `base_width`; of any other
            network it scales the slots, as `Traced.scaled` does.
        settings: None for those in `search_spaces/` of a built-in name, and the defaults for everything else.

    Raises:
        UsageError: the name is unknown, the code cannot be traced, the shapes do not fit, settings name a slot that
            does not exist, no width is free, or `base_width` is not positive.
    """
    models.check_base_width(base_width)
    name, network, rest = _network(model, classes, base_width)
    _refuse_shared(name, network)
    template = copy.deepcopy(network).cpu().eval()
    read = graph.read(template, name, input_shape)
    reading = walk.read(template, read, name, classes)
    if settings is None:
        settings = load_settings(model) if isinstance(model, str) else SpaceSettings()
    space = assembly.assemble(reading, settings, name, input_shape, classes)
    space = assembly.with_leftovers(space, template, read)
    return Traced(space.scaled(supernet=settings.widening), template).scaled(base=rest)


def _network(
    model: str | nn.Module | Callable[..., nn.Module], classes: int, base_width: float
) -> tuple[str, nn.Module, float]:
    """The name, the network, and the part of `base_width` that it does not have yet."""
    if isinstance(model, nn.Module):
        return type(model).__name__, model, base_width
    if not isinstance(model, str):
        name = getattr(model, "__name__", type(model).__name__)
        return name, *sources.call(model, name, classes, base_width)
    if sources.is_named(model):
        return model, *sources.make(model, classes, base_width)
    return model, models.create(model, classes, base_width), 1.0


def _refuse_shared(name: str, network: nn.Module) -> None:
    first: dict[int, str] = {}
    for path, parameter in network.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            raise UsageError(
                f"{name} has one parameter under two names, {first[id(parameter)]} and {path}; "
                "call one module twice instead, under one name"
            )
        first[id(parameter)] = path
