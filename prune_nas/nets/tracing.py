"""Read the space of any network from its forward pass.

The graph (`graph`) is walked once (`walk`): every tensor carries the parts of its channel dimension (`channels`),
every layer and operation has a rule for them (`layers`, `operations`). What remains free at the end are the slots
(`assembly`). A channel dimension that meets an operation without a rule keeps its traced width and is reported:
never guessed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets import assembly, build, graph, models, walk
from prune_nas.nets.branches import branches
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

    def check(self, images: Tensor) -> None:
        """Run the narrowest network and the base once on real images, as a training would.

        The tracer reads `forward` in eval mode, so a size that is written out in a branch of training, or in a hook,
        is met here first.

        Args:
            images: a small batch, shape (N, *input_shape) with N > 1, on the CPU.

        Raises:
            UsageError: a network does not run, or does not give one tensor of shape (N, classes).
        """
        space = self.space
        if space.other_inputs:
            raise UsageError(
                f"{space.model} takes {1 + len(space.other_inputs)} inputs, and trainings here have images alone; "
                "wrap it in a module whose `forward` takes the images and makes the rest"
            )
        for name, widths in (("narrowest", space.narrowest), ("base", space.base)):
            network = self.build(widths, seed=0)
            try:
                with torch.no_grad(), torch.random.fork_rng():
                    logits = network(images)
            except Exception as error:
                raise UsageError(
                    f"the {name} {space.model} does not run in training: {graph.first_line(error)} "
                    f"({graph.user_line(error)}). Sizes that are written out hold at one width alone: compute them "
                    "from the tensors, as in x.shape[1] or x.flatten(1)"
                ) from error
            if not isinstance(logits, Tensor) or logits.shape != (len(images), space.classes):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise UsageError(
                    f"{space.model} in training must give one tensor of shape ({len(images)}, {space.classes}); got "
                    f"{got}: wrap it in a module that returns the logits alone"
                )


def trace(
    model: str | nn.Module | Callable[..., nn.Module],
    *,
    input_shape: tuple[int, ...] = (3, 32, 32),
    other_inputs: Sequence[tuple[int, ...]] = (),
    classes: int = 10,
    base_width: float = 1.0,
    settings: SpaceSettings | None = None,
) -> Traced:
    """Read a network's space.

    Args:
        model: a built-in name, one that says where the network comes from (`nets.models.sources`), a network, or a
            function that makes one (called with `classes` or `num_classes` if it takes either).
        input_shape: of one example, without the batch.
        other_inputs: the same of a second input, a third one, and so on; what is left of `forward`'s arguments keeps
            its default.
        classes: the number of outputs; one of the network's outputs must have so many.
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
    read = graph.read(template, name, [input_shape, *other_inputs])
    reading = walk.read(template, read, name, classes)
    if settings is None:
        settings = load_settings(model) if isinstance(model, str) else SpaceSettings()
    space = assembly.assemble(reading, settings, name, input_shape, classes)
    space = assembly.with_leftovers(replace(space, other_inputs=tuple(other_inputs)), template, read)
    space = replace(space, branches=branches(read, template, space))
    return Traced(space.scaled(supernet=settings.widening), template).scaled(base=rest)


def _network(
    model: str | nn.Module | Callable[..., nn.Module], classes: int, base_width: float
) -> tuple[str, nn.Module, float]:
    """The name, the network, and the part of `base_width` that it does not have yet.

    What a network draws for parameters that no seed covers (`initialise`) is the same in every process.
    """
    if isinstance(model, nn.Module):
        return type(model).__name__, model, base_width
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
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
