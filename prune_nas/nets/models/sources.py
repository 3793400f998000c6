"""Networks that are not built in: torchvision's, timm's, and the user's own Python code.

A name with a colon says where the network comes from: `torchvision:NAME`, `timm:NAME`, `package.module:callable` or
`path/file.py:callable`. The last two run code, so only a person who names them may: a spec that was read from a file
names its network, but never has it imported (`runs_code`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from prune_nas.errors import MissingError, UsageError, unknown
from prune_nas.imports import imported, said

LIBRARIES = ("torchvision", "timm")
_OFF = {"aux_logits": False, "init_weights": False}  # heads used in training alone, and minutes of initialisation


def is_named(model: str) -> bool:
    """Whether a model's name says where it comes from."""
    return ":" in model


def runs_code(model: str) -> bool:
    """Whether making this network imports code that no installed library is known for."""
    return is_named(model) and _place_of(model)[0] not in LIBRARIES


def _place_of(model: str) -> tuple[str, str]:
    """Where a named network comes from, and its name there: `make` must look where `runs_code` did."""
    place, _, name = model.rpartition(":")
    return place, name


def make(model: str, classes: int, base_width: float) -> tuple[nn.Module, float]:
    """The network, freshly made and without trained weights, and the part of `base_width` that it does not have.

    Raises:
        UsageError: there is no such network, or its code raises.
        MissingError: timm is not installed.
    """
    place, name = _place_of(model)
    if not place or not name:
        raise UsageError(
            f"cannot read --model {model!r}; expected torchvision:NAME, timm:NAME, package.module:callable or "
            "path/file.py:callable"
        )
    if place == "torchvision":
        return _torchvision(name, classes), base_width
    if place == "timm":
        return _timm(name, classes), base_width
    return call(imported(place, name, "makes a network"), model, classes, base_width)


def call(function: Callable[..., Any], name: str, classes: int, base_width: float) -> tuple[nn.Module, float]:
    """Call what makes a network, with `classes` or `num_classes`, and with `base_width`, if it takes them.

    A function that takes any keyword is given `num_classes`.

    Returns:
        The network, and the part of `base_width` that the call did not take.

    Raises:
        UsageError: the call raises, or gives no network.
    """
    takes = inspect.signature(function).parameters
    known = {"classes": classes, "num_classes": classes, "base_width": base_width}
    given = {key: value for key, value in known.items() if key in takes}
    hands_on = not inspect.isclass(function) and any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if hands_on and not given.keys() & {"classes", "num_classes"}:
        given["num_classes"] = classes  # the name that the libraries' own builders take
    try:
        network = function(**given)
    except (Exception, SystemExit) as error:
        spoken = ", ".join(f"{key}={value}" for key, value in given.items())
        raise UsageError(f"{name}({spoken}) raised {said(error)}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} must return a torch.nn.Module; got {type(network).__name__}")
    return network, 1.0 if "base_width" in takes else base_width


def _torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models  # noqa: PLC0415 - it takes as long to import as torch

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision classification network", name, known)
    takes = inspect.signature(models.get_model_builder(name)).parameters
    # Inception and GoogLeNet take these as keywords of their classes.
    old = {"googlenet", "inception_v3"}
    off = {key: value for key, value in _OFF.items() if name in old or key in takes}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **off)
    return network


def _timm(name: str, classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise MissingError("timm is not installed; pip install 'prune-nas[timm]'") from None
    if name not in timm.list_models():
        raise unknown("timm network", name, timm.list_models())
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return network
