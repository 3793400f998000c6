"""The optimisers of a recipe, and their state as tensors with names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prune_nas.training.recipe import Recipe

_PREFIX = "optimiser."


class _SGD(torch.optim.SGD):
    """SGD without torch's compiler, whose import the first call of any of these else makes: two seconds a process."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _AdamW(torch.optim.AdamW):
    """AdamW without torch's compiler, as `_SGD`."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def optimiser_of(network: nn.Module, recipe: Recipe, *, fused: bool) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that learn.

    SGD decays every parameter, as the paper's code does. AdamW decays weights alone, not biases and norms, as the
    recipes of vision transformers do (Touvron et al. 2021, DeiT).

    Args:
        network: on its device.
        recipe: names optimiser, learning rate and weight decay.
        fused: never with a loss scaler: where a scaler skips the first step, the fused optimiser makes a momentum of
            uninitialised memory.
    """
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if recipe.optimizer == "adamw":
        groups = [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return _AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=fused)
    return _SGD(
        learning,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )


def state_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`optimiser.<number>.<name>` -> tensor, such as a momentum; nothing for a parameter that had no gradient yet."""
    return {
        f"{_PREFIX}{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimiser))
        for name, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a state back that `state_of` gave, in the memory layout of the parameters.

    A fused optimiser reads every number of its state, the count of steps too, from the parameters' device.
    """
    parameters = _parameters(optimiser)
    groups = [group for group in optimiser.param_groups for _ in group["params"]]
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            number, _, name = key.removeprefix(_PREFIX).partition(".")
            parameter = parameters[int(number)]
            alike = value.shape == parameter.shape
            fused = groups[int(number)]["fused"]
            kept = torch.empty_like(parameter).copy_(value) if alike else value.clone()
            optimiser.state[parameter][name] = kept.to(parameter.device) if fused else kept


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
