"""Initial values: those of the network's author, under any seed and at any width.

A network that a class or function makes is made again under the seed, so that every parameter starts as its author
draws it. `build` cuts the values to the widths and keeps their scale over the fan in. Base, supernet and candidates
start by the same rule, so that a comparison compares widths only.

Three kinds of values are no draw of the constructor (`read` tells them apart by making the network twice):
values set by hand (a filter, a transformer that starts at the identity) are kept, except where the layer's width is
free; values of a network that arrives trained, and of a module that was handed over, are drawn by the layers' own
`reset_parameters`; parameters with `requires_grad=False` are never touched.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prune_nas.design.parts import Extent
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.tensors import seeded

PAPER_GAMMA = 0.5
PAPER_LINEAR_STD = 0.01
_DRAWN = 0.5  # a network whose constructor draws a smaller share of its weights arrives trained
_DISTINCT = 0.5  # a tensor whose numbers repeat more often than that was set by hand
_NAMED = 4  # layers in one sentence

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class InitialValues:
    """How the values of a traced network begin.

    Attributes:
        make: makes the network anew; None where a module was handed over, which cannot be made again.
        redrawn: names of the parameters that do not start as `make` gives them, but by their layer's own default.
        by_hand: names of the parameters whose values were set by hand, and are kept.
        as_published: draw by Network Slimming's code instead (`published`), as the paper's recipe asks for.
        notes: what a user must know of it, in sentences.
    """

    make: Make | None = None
    redrawn: frozenset[str] = frozenset()
    by_hand: frozenset[str] = frozenset()
    as_published: bool = False
    notes: tuple[str, ...] = ()

    def of(self, template: nn.Module, seed: int) -> Mapping[str, Tensor]:
        """Name -> values at the template's own widths, of parameters and of the buffers that a checkpoint holds.

        Args:
            template: the network that was traced: what `make` gives under seed 0.
            seed: decides every draw; the global random states are neither read nor changed.

        Raises:
            UsageError: `make` gives a network of other parameters than the template's.
        """
        made = template if self.make is None or seed == 0 else made_under(self.make, seed)
        values = {name: value.detach().cpu() for name, value in made.state_dict().items()}
        before = template.state_dict()
        if {name: value.shape for name, value in values.items()} != {n: v.shape for n, v in before.items()}:
            raise UsageError(
                f"{type(template).__name__} has other parameters under seed {seed} than under seed 0: what its "
                "constructor makes must not depend on random numbers"
            )
        return {**values, **_defaults(made, self.redrawn, seed)} if self.redrawn else values


def read(template: nn.Module, make: Make | None, space: Space) -> InitialValues:
    """Tell drawn values from values that are the same whatever the seed.

    Args:
        template: the network that was traced, at its own widths.
        make: makes it anew; None for a module that was handed over.
        space: of the template: its slots say which layers have a free width.
    """
    values = InitialValues(make).of(template, 1) if make else template.state_dict()
    parameters = {name: p.detach() for name, p in template.named_parameters() if p.requires_grad}
    same = {name for name, value in parameters.items() if make is None or torch.equal(value, values[name])}
    fixed = {name for name in same if not _is_constant(parameters[name])}
    by_hand = {name for name in fixed if _repeats(parameters[name])}
    weights = {
        name: value.numel()
        for name, value in parameters.items()
        if value.ndim > 1 and name not in by_hand and not _is_constant(value)
    }
    drawn = sum(count for name, count in weights.items() if name not in fixed) / max(sum(weights.values()), 1)
    free = {name for name in fixed if _is_resized(space, name, parameters[name])}
    trained = bool(weights) and drawn < _DRAWN
    lost = by_hand & free if trained else free
    redrawn = lost | (fixed - by_hand) if trained else lost
    notes = (*((_about_trained(space.model, make),) if trained else ()), *_lost(lost))
    return InitialValues(make, frozenset(redrawn), frozenset(fixed - redrawn), notes=notes)


def made_under(make: Make, seed: int) -> nn.Module:
    """What `make` gives where every global random state has this seed; afterwards the states are as they were."""
    with seeded(seed):
        return make()


@torch.no_grad()
def published(network: nn.Module, seed: int) -> nn.Module:
    """Draw all weights as Network Slimming's code does, in place.

    Convolutions N(0, sqrt(2 / fan_out)), norms gamma 0.5 and beta 0, linear layers N(0, 0.01) with bias 0
    (github.com/Eric-mingjie/rethinking-network-pruning, cifar/network-slimming/models). Other parameters are kept.

    Args:
        network: changed in place.
        seed: of a generator on the CPU: every device gets the same numbers.

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
            _normal(module.weight, PAPER_LINEAR_STD, generator)
            _fill(module.bias, 0)
        elif isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            _fill(module.weight, PAPER_GAMMA)
            _fill(module.bias, 0)
    return network


def _defaults(made: nn.Module, names: frozenset[str], seed: int) -> dict[str, Tensor]:
    """Values of these parameters by their layers' own `reset_parameters`; where a layer has none, its numbers mixed."""
    network = copy.deepcopy(made)
    owners = {name.rpartition(".")[0] for name in names}
    with seeded(seed):
        for path, module in reversed(list(network.named_modules())):  # a layer before the block that may set it
            own = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
            reset = _reset_of(module)
            if path in owners and reset is not None:
                reset()
            elif path in owners:
                for name in names.intersection(own):
                    value = network.get_parameter(name)
                    value.data = value.data.flatten()[torch.randperm(value.numel())].view_as(value)
    after = network.state_dict()
    return {name: after[name] for name in names}


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    """What draws a module's own parameters anew, if it has such a method that takes no arguments."""
    for name in ("reset_parameters", "_reset_parameters"):  # the second is that of torch's attention
        reset = getattr(module, name, None)
        if callable(reset) and not inspect.signature(reset).parameters:
            found: Callable[[], object] = reset
            return found
    return None


def _is_constant(value: Tensor) -> bool:
    """Whether all numbers of a tensor are equal, so that it holds at any width."""
    return value.numel() < 2 or bool((value == value.flatten()[0]).all())


def _repeats(value: Tensor) -> bool:
    """Whether a tensor's numbers repeat as those do that somebody wrote down."""
    return bool(value.unique().numel() <= _DISTINCT * value.numel())


def _is_resized(space: Space, name: str, value: Tensor) -> bool:
    """Whether a parameter has another shape where the network has other widths."""
    owner = name.rpartition(".")[0]
    return any(
        _is_free(layer.outputs) or (value.ndim > 1 and _is_free(layer.inputs))
        for layer in space.layers
        if layer.name in (owner, name)
    )


def _is_free(extent: Extent) -> bool:
    return any(slot is not None for slot, _ in extent)


def _about_trained(model: str, make: Make | None) -> str:
    if make is None:
        return (
            f"{model} is a module and not the class or function that makes it. Its values are drawn anew by each "
            "layer's default. To keep its constructor's initial values, hand over the class or the function."
        )
    return (
        f"{model} arrives with the same values whatever the seed, as a trained network does. They are drawn anew: "
        "every training here starts from scratch."
    )


def _lost(names: set[str]) -> tuple[str, ...]:
    """A sentence about values that were set by hand in layers whose width is free."""
    if not names:
        return ()
    shown = sorted(names)[:_NAMED]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    layers = ", ".join(f'"{name.rpartition(".")[0] or name}"' for name in shown)
    return (
        f"values set by hand are lost in {', '.join(shown)}{rest}: the width of the layer is free, so its values are "
        f"drawn anew. To keep them, freeze the layer: freeze = [{layers}] in a --space file.",
    )


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    if weight.requires_grad:
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)


def _fill(parameter: Tensor | None, value: float) -> None:
    if parameter is not None and parameter.requires_grad:
        parameter.fill_(value)
