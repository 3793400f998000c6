"""The optimisers of a recipe, and their state as tensors with names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prune_nas.training.recipe import OPTIMIZERS, Recipe

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


_SHARE = "share"
"""Of a group of parameters: its learning rate / the recipe's."""


def optimisers_of(network: nn.Module, recipe: Recipe, *, fused: bool) -> list[torch.optim.Optimizer]:
    """The recipe's optimisers over the parameters that learn: one, or with `gamma_lr` SGD for BatchNorm's too.

    SGD decays every parameter, as the paper's code does. AdamW decays weights alone, not biases and norms, as the
    recipes of vision transformers do (Touvron et al. 2021, DeiT).

    Args:
        network: on its device.
        recipe: names optimiser, learning rate and weight decay.
        fused: never with a loss scaler: where a scaler skips the first step, the fused optimiser makes a momentum of
            uninitialised memory.
    """
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return [_sgd(learning, recipe, recipe.weight_decay, fused=fused)]
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and recipe.gamma_lr]
    of_norms = {id(parameter) for layer in norms for parameter in layer.parameters()}
    rest = [parameter for parameter in learning if id(parameter) not in of_norms]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = []
    if rest:
        found.append(_AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=fused))
    if gammas := [parameter for parameter in learning if id(parameter) in of_norms]:
        found.append(_sgd(gammas, recipe, OPTIMIZERS["sgd"][1], fused=fused))
    return found


def _sgd(parameters: list[nn.Parameter], recipe: Recipe, weight_decay: float, *, fused: bool) -> _SGD:
    group = {"params": parameters, _SHARE: recipe.gamma_share}
    return _SGD(
        [group],
        lr=recipe.lr * recipe.gamma_share,
        momentum=recipe.momentum,
        weight_decay=weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )


def set_rate(optimisers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """Give every group its learning rate, where the recipe's is `lr`."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr * group.get(_SHARE, 1.0)


def state_of(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """`optimiser.<number>.<name>` -> tensor, such as a momentum; nothing for a parameter that had no gradient yet."""
    return {
        f"{_PREFIX}{number}.{name}": value
        for number, (optimiser, _, parameter) in enumerate(_parameters(optimisers))
        for name, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put a state back that `state_of` gave, in the memory layout of the parameters.

    A fused optimiser reads every number of its state, the count of steps too, from the parameters' device.
    """
    parameters = _parameters(optimisers)
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            number, _, name = key.removeprefix(_PREFIX).partition(".")
            optimiser, fused, parameter = parameters[int(number)]
            alike = value.shape == parameter.shape
            kept = torch.empty_like(parameter).copy_(value) if alike else value.clone()
            optimiser.state[parameter][name] = kept.to(parameter.device) if fused else kept


def _parameters(optimisers: Sequence[torch.optim.Optimizer]) -> list[tuple[torch.optim.Optimizer, bool, Tensor]]:
    """Every parameter with its optimiser, and whether that is fused."""
    return [
        (optimiser, bool(group["fused"]), parameter)
        for optimiser in optimisers
        for group in optimiser.param_groups
        for parameter in group["params"]
    ]
