"""Bring a network into the form that can be read and built: unwrapped, in float32, with all its layers made.

What cannot be brought into that form is refused with the layer or the attribute and the repair.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prune_nas.errors import UsageError

_HOOKS: dict[type, tuple[str, str]] = {
    BasePruningMethod: ("torch.nn.utils.prune masks", "prune.remove"),
    WeightNorm: ("weight_norm computes", "remove_weight_norm"),
    SpectralNorm: ("spectral_norm computes", "remove_spectral_norm"),
}
"""Hooks that compute a weight from other numbers -> what they do, and what takes them away."""


def in_form(network: nn.Module, name: str, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """A copy of the network as it can be read, on the CPU, in float32. Lazy layers are made in the network itself.

    Args:
        network: as its author made it.
        name: of it, for messages.
        shapes: of one example of each input: layers that take their size from the first batch are made with them.

    Raises:
        UsageError: it cannot be read; the layer or the attribute is named.
    """
    _see_script(network, name)
    network = _unwrapped(network)
    _see_modes(network, name)
    _see_hooks(network, name)
    _see_values(network, name)
    if any(isinstance(one, LazyModuleMixin) for one in network.modules()):
        _make_lazy(network, name, shapes)
    network = _copied(network, name).cpu()
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in network.parameters()):
        network = network.float()
    return _without_sync(network)


def other_type(network: nn.Module) -> str:
    """The number format of a network whose parameters are not all float32, as in `float16`; empty if they are."""
    kinds = {value.dtype for value in network.parameters() if value.is_floating_point()} - {torch.float32}
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def _copied(network: nn.Module, name: str) -> nn.Module:
    """A deep copy.

    Raises:
        UsageError: an attribute cannot be copied; it is named.
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:
        place, value = _stubborn(network)
        raise UsageError(
            f"{name} cannot be copied: {place or 'an attribute'} is a {type(value).__name__}. "
            + (
                "It was computed from a parameter. Compute it in `forward`, or keep it with register_buffer and "
                ".detach()"
                if isinstance(value, torch.Tensor)
                else "Make it where it is used, or outside the network"
            )
        ) from error


def set_mode(network: nn.Module, *, training: bool) -> nn.Module:
    """The network in training or eval mode, whatever its own `train` returns."""
    network.train(training)
    return network


@contextmanager
def settings_kept() -> Iterator[None]:
    """Undo what a network's code changes for all of torch: the default type, and whether gradients are computed."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


def _unwrapped(network: nn.Module) -> nn.Module:
    """The network without DataParallel and torch.compile, around the whole and around its parts."""
    network = _inner(network)
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if path and (inner := _inner(module)) is not module:
            network.set_submodule(path, inner)
    return network


def _inner(module: nn.Module) -> nn.Module:
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(inner := dict(module.named_children()).get("_orig_mod"), nn.Module):
            module = inner
        else:
            return module


def _see_script(network: nn.Module, name: str) -> None:
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{name}{f'.{path}' if path else ''} was compiled by torch.jit, and compiled code cannot be read. Give "
                "the module from which it was compiled"
            )


def _see_modes(network: nn.Module, name: str) -> None:
    for path, module in network.named_modules():
        for method, given in (("train", (False,)), ("eval", ())):
            try:
                inspect.signature(getattr(module, method)).bind(*given)
            except TypeError:
                where = f"{name}.{path}" if path else name
                raise UsageError(
                    f"{where}.{method} does not set the mode of the network: it takes other arguments than torch's. "
                    f"Give that method another name, since torch itself calls {method}"
                ) from None


def _see_hooks(network: nn.Module, name: str) -> None:
    for path, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            for kind, (does, repair) in _HOOKS.items():
                if isinstance(hook, kind):
                    raise _hooked(name, path, does, repair)
        if parametrize.is_parametrized(module):
            raise _hooked(name, path, "a parametrization computes", "parametrize.remove_parametrizations")


def _hooked(name: str, path: str, does: str, repair: str) -> UsageError:
    return UsageError(
        f"{name}: {does} the weight of {path} from other numbers, so that it cannot be made narrower. Make the weight "
        f"permanent first: {repair}({path}, ...)"
    )


def _see_values(network: nn.Module, name: str) -> None:
    meta = [path for path, value in network.named_parameters() if value.is_meta]
    if meta:
        raise UsageError(
            f"{name} is on the meta device, so that {meta[0]} has no values. Make the network without "
            'torch.device("meta")'
        )


def _make_lazy(network: nn.Module, name: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Run a network with lazy layers once."""
    set_mode(network, training=False)
    try:
        with torch.no_grad():
            network(*(torch.zeros(2, *shape) for shape in shapes))
    except Exception as error:
        spoken = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(
            f"{name} has layers that take their size from the first batch, and does not run on an input of shape "
            f"{spoken}: {error}. Give the input shape that the network was made for"
        ) from error
    set_mode(network, training=True)


def _without_sync(network: nn.Module) -> nn.Module:
    """SyncBatchNorm, which runs on several GPUs alone, as BatchNorm2d."""
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if type(module) is not nn.SyncBatchNorm:
            continue
        plain: Any = nn.BatchNorm2d(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        plain.load_state_dict(module.state_dict())
        plain.train(module.training)
        if not path:
            return plain  # type: ignore[no-any-return]
        network.set_submodule(path, plain)
    return network


def _stubborn(network: nn.Module) -> tuple[str, Any]:
    """The first attribute that cannot be copied, and its value."""
    for path, module in network.named_modules():
        own = {**module.__dict__, **module._parameters, **module._buffers}
        for key, value in own.items():
            if key in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"{path}.{key}".lstrip("."), value
    return "", None
