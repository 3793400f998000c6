"""Read the space of any network from its forward pass.

The graph (`graph`) is walked once (`walk`): every tensor carries the parts of its channel dimension (`channels`),
every layer and operation has a rule for them (`layers`, `operations`). What remains free at the end are the slots
(`assembly`). A channel dimension that meets an operation without a rule keeps its traced width and is reported:
never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from prune_nas.design.sizes import Size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets import assembly, build, form, graph, initialise, models, proof, walk
from prune_nas.nets.branches import branches
from prune_nas.nets.initialise import InitialValues, made_under
from prune_nas.nets.models import sources
from prune_nas.nets.settings import SpaceSettings, load_settings

USUAL = Size(32, 32)  # of CIFAR, for which the built-in networks are made
CLASSES = 10


@dataclass(frozen=True)
class Traced:
    """A network that was read: its space and its builder.

    Attributes:
        space: its slots and costs.
        template: the original, on the CPU, never trained.
        values: how the parameters of what is built begin.
    """

    space: Space
    template: nn.Module
    values: InitialValues

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the network before it is trained, in sentences."""
        return self.values.notes

    def build(self, widths: Mapping[str, int] | None = None, *, seed: int) -> nn.Module:
        """A new network with fresh initial values, in training mode.

        Args:
            widths: of every slot; None for the base.
            seed: of the initial weights.

        Raises:
            UsageError: `widths` does not name exactly the slots, or groups do not divide a width.
        """
        wanted = self.space.base if widths is None else widths
        return build.build(self.template, self.space, wanted, self.values, seed)

    def starting_as(self, recipe: str) -> Traced:
        """The same network with the initial values that a recipe asks for.

        The recipe `paper` draws a built-in network as the paper's code does. Every other network starts as its author
        wrote it.
        """
        as_published = recipe == "paper" and self.space.model in models.MODELS
        return replace(self, values=replace(self.values, as_published=as_published))

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
                f"{space.model} takes {1 + len(space.other_inputs)} inputs, but a training has images alone. "
                "Wrap it in a module whose `forward` takes the images and makes the other inputs"
            )
        for name, widths in (("narrowest", space.narrowest), ("base", space.base)):
            network = self.build(widths, seed=0)
            try:
                with torch.no_grad(), torch.random.fork_rng():
                    logits = network(images)
            except Exception as error:
                raise UsageError(
                    f"the {name} {space.model} does not run in training: {graph.first_line(error)} "
                    f"({graph.user_line(error)}). A size that is written out fits one width alone: compute it "
                    "from the tensors, as in x.shape[1] or x.flatten(1)"
                ) from error
            if not isinstance(logits, Tensor) or logits.shape != (len(images), space.classes):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise UsageError(
                    f"{space.model} in training must give one tensor of shape ({len(images)}, {space.classes}). Got "
                    f"{got}: wrap it in a module that returns the logits alone"
                )


@torch.inference_mode(mode=False)
def trace(
    model: str | nn.Module | Callable[..., nn.Module],
    *,
    input_shape: tuple[int, ...] | None = None,
    other_inputs: Sequence[tuple[int, ...]] = (),
    classes: int | None = None,
    base_width: float = 1.0,
    settings: SpaceSettings | None = None,
) -> Traced:
    """Read a network's space.

    Args:
        model: a built-in name, one that says where the network comes from (`nets.models.sources`), a network, or a
            function that makes one (called with `classes` or `num_classes` if it takes either).
        input_shape: of one example, without the batch; None for the shape that a network of torchvision or timm was
            published for, and for (3, 32, 32) otherwise.
        other_inputs: the same of a second input, a third one, and so on; what is left of `forward`'s arguments keeps
            its default.
        classes: the number of outputs; one of the network's outputs must have so many. None for the network's own:
            1000 of torchvision and timm, the default of a function that takes `classes` or `num_classes`, else 10.
        base_width: scales every layer of a built-in network and of a function that takes `base_width`; of any other
            network it scales the slots, as `Traced.scaled` does.
        settings: None for those in `search_spaces/` of a built-in name, and the defaults for everything else.

    Raises:
        UsageError: the name is unknown, the code cannot be traced, the shapes do not fit, settings name a slot that
            does not exist, no width is free, or `base_width` is not positive.
    """
    models.check_base_width(base_width)
    classes = classes or own_classes(model)
    input_shape = input_shape or (3, *((sources.own_size(model) if isinstance(model, str) else None) or USUAL))
    name, make, rest = _made(model, classes, base_width)
    network = made_under(make, 0) if make else model
    assert isinstance(network, nn.Module)  # noqa: S101  (for the type checker: without `make` it is one)
    shapes = [input_shape, *other_inputs]
    _refuse_shared(name, network)
    kind = form.other_type(network)
    template = form.in_form(network, name, shapes)
    form.set_mode(template, training=False)
    if make is not None:
        make = partial(_in_form, make, name, shapes)
    read = graph.read(template, name, shapes)
    if settings is None:
        settings = load_settings(model) if isinstance(model, str) else SpaceSettings()
    known = isinstance(model, str) and not sources.runs_code(model)  # a library's constructors draw all they should

    def traced(doubts: Mapping[str, str]) -> Traced:
        reading = walk.read(template, read, name, classes)
        space = assembly.assemble(reading, settings, name, input_shape, classes, doubts)
        space = assembly.with_leftovers(replace(space, other_inputs=tuple(other_inputs)), template, read)
        space = replace(space, branches=branches(read, template, space))
        values = InitialValues(make) if known else initialise.read(template, make, space)
        if kind:
            note = f"{name} is in {kind}. It is trained from float32 (--precision decides how fast that is computed)."
            values = replace(values, notes=(note, *values.notes))
        return Traced(space.scaled(supernet=settings.widening), template, values)

    found = traced({})
    return (found if name in models.MODELS else _proven(found, traced)).scaled(base=rest)


def _proven(found: Traced, again: Callable[[Mapping[str, str]], Traced]) -> Traced:
    """The network without the slots that a count refutes, once its narrowest and widest form were seen to train.

    Raises:
        UsageError: a count cannot be explained by single slots, or a network does not run in training.
    """
    doubts: dict[str, str] = {}
    while wrong := proof.doubts(found.space, build := lru_cache(2)(partial(found.build, seed=0))):
        doubts |= wrong
        found = again(doubts)
    probable = proof.gives_probabilities(found.space, build)
    if not found.space.other_inputs:
        proof.trains(found.space, build)
    if probable:
        note = (
            f"{found.space.model} ends in a softmax: its outputs sum to 1. The loss of a training has a softmax of its "
            "own, so that the network learns slowly. Leave the softmax out of the network"
        )
        return replace(found, values=replace(found.values, notes=(*found.notes, note)))
    return found


def _in_form(make: sources.Make, name: str, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    return form.in_form(make(), name, shapes)


def maker_of(model: str, input_shape: tuple[int, ...], classes: int, base_width: float) -> sources.Make:
    """What makes a network anew, in the form in which it is read; see `trace` for the arguments.

    Raises:
        UsageError: there is no such network.
    """
    name, make, _ = _made(model, classes, base_width)
    assert make is not None  # noqa: S101  (a name says what makes the network; for the type checker)
    return partial(_in_form, make, name, [input_shape])


def own_classes(model: str | nn.Module | Callable[..., nn.Module]) -> int:
    """The classes of a network where nobody asks for another number.

    Raises:
        UsageError: there is no such network.
    """
    if isinstance(model, nn.Module) or (isinstance(model, str) and not sources.is_named(model)):
        return CLASSES
    return sources.own_classes(model) or CLASSES


def _made(
    model: str | nn.Module | Callable[..., nn.Module], classes: int, base_width: float
) -> tuple[str, sources.Make | None, float]:
    """The name, what makes the network, and the part of `base_width` that it does not have; None for a module."""
    if isinstance(model, nn.Module):
        return type(model).__name__, None, base_width
    if not isinstance(model, str):
        name = getattr(model, "__name__", type(model).__name__)
        return name, *sources.calling(model, name, classes, base_width)
    if sources.is_named(model):
        return model, *sources.maker(model, classes, base_width)
    return model, models.maker(model, classes, base_width), 1.0


def _refuse_shared(name: str, network: nn.Module) -> None:
    """One module may have two names; two modules may not share a parameter."""
    first: dict[int, str] = {}
    for path, module in network.named_modules():
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            here = f"{path}.{own}".lstrip(".")
            if id(parameter) in first:
                raise UsageError(
                    f"{name} has one parameter under two names, {first[id(parameter)]} and {here}. "
                    "Call one module twice instead"
                )
            first[id(parameter)] = here
