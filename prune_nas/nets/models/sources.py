"""Networks that are not built in: torchvision's, timm's, and the user's own Python code.

A name with a colon says where the network comes from: `torchvision:NAME`, `timm:NAME`, `package.module:callable` or
`path/file.py:callable`. The last two run code, so only a person who names them may: a spec that was read from a file
names its network, but never has it imported (`runs_code`).
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from prune_nas.design.sizes import Size
from prune_nas.errors import MissingError, UsageError
from prune_nas.imports import imported, said
from prune_nas.nets.form import settings_kept
from prune_nas.nets.models.suggestions import networks_in, suggestions

Make = Callable[[], nn.Module]
_USUAL = 224  # of networks for ImageNet that do not say
_IMAGENET = 1000
LIBRARIES = ("torchvision", "timm")
_GIVEN = {"aux_logits": False, "init_weights": True}  # no heads used in training alone; the author's initial values


def is_named(model: str) -> bool:
    """Whether a model's name says where it comes from."""
    return ":" in model


def runs_code(model: str) -> bool:
    """Whether making this network imports code that no installed library is known for."""
    return is_named(model) and _place_of(model)[0] not in LIBRARIES


def _place_of(model: str) -> tuple[str, str]:
    """Where a named network comes from, and its name there: `make` must look where `runs_code` did."""
    place, _, name = model.rpartition(":")
    if is_named(model) and not (place and name):
        found = suggestions(model, ())
        hint = f". Did you mean {' or '.join(found)}?" if found else ""
        raise UsageError(
            f"cannot read --model {model!r}. Expected torchvision:NAME, timm:NAME, package.module:callable or "
            f"path/file.py:callable{hint}"
        )
    return place, name


def own_size(model: str) -> Size | None:
    """The size of the images that a library's network was published for; None for Python code, which does not say.

    Raises:
        UsageError: the library has no such network.
        MissingError: timm is not installed.
    """
    place, name = _place_of(model)
    if place == "torchvision":
        from torchvision import models  # noqa: PLC0415 - it takes as long to import as torch

        _known_to_torchvision(name)
        weights = models.get_model_weights(name)
        crop = next((one.transforms().crop_size for one in weights), _USUAL)
        return Size.parse(crop)
    if place == "timm":
        config = _timm_library(name).get_pretrained_cfg(name)
        return Size.parse(config.input_size[1:]) if config else Size.parse(_USUAL)
    return None


def own_classes(model: str | Callable[..., Any]) -> int | None:
    """The number of classes that a network has where nobody asks for another; None where its code does not say.

    Raises:
        UsageError: there is no such network.
    """
    if isinstance(model, str):
        place, name = _place_of(model)
        if place in LIBRARIES:
            return _IMAGENET
        model = _imported(place, name)
    if isinstance(model, nn.Module):
        return None
    defaults = {name: one.default for name, one in inspect.signature(model).parameters.items()}
    found = defaults.get("classes", defaults.get("num_classes"))
    return found if isinstance(found, int) else None


def maker(model: str, classes: int, base_width: float) -> tuple[Make, float]:
    """What makes the network, without trained weights, and the part of `base_width` that the network does not have.

    Code is imported once, by this call; the network is made by every call of what is returned.

    Raises:
        UsageError: there is no such network.
        MissingError: timm is not installed.
    """
    place, name = _place_of(model)
    if place == "torchvision":
        return _torchvision(name, classes), base_width
    if place == "timm":
        return _timm(name, classes), base_width
    return calling(_imported(place, name), model, classes, base_width)


def _imported(place: str, name: str) -> Callable[..., Any]:
    with settings_kept():
        return imported(place, name, "makes a network", names=networks_in)


def calling(function: Callable[..., Any], name: str, classes: int, base_width: float) -> tuple[Make, float]:
    """A call of what makes a network, with `classes` or `num_classes`, and with `base_width`, if it takes them.

    A function that takes any keyword is given `num_classes`. The call raises UsageError where the function raises or
    gives no network.

    Returns:
        The call, and the part of `base_width` that it does not take.
    """
    if isinstance(function, nn.Module):  # an instance in the place of what makes it
        return partial(copy.deepcopy, function), base_width
    takes = inspect.signature(function).parameters
    known = {"classes": classes, "num_classes": classes, "base_width": base_width}
    given = {key: value for key, value in known.items() if key in takes}
    hands_on = not inspect.isclass(function) and any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if hands_on and not given.keys() & {"classes", "num_classes"}:
        given["num_classes"] = classes  # the name that the libraries' own builders take

    def make() -> nn.Module:
        try:
            with settings_kept():
                network = function(**given)
        except (Exception, SystemExit) as error:
            spoken = ", ".join(f"{key}={value}" for key, value in given.items())
            raise UsageError(f"{name}({spoken}) raised {said(error)}") from error
        if not isinstance(network, nn.Module):
            raise UsageError(f"{name} must return a torch.nn.Module. Got {type(network).__name__}")
        return network

    return make, 1.0 if "base_width" in takes else base_width


def _torchvision(name: str, classes: int) -> Make:
    from torchvision import models  # noqa: PLC0415

    _known_to_torchvision(name)
    takes = inspect.signature(models.get_model_builder(name)).parameters
    # Inception and GoogLeNet take these as keywords of their classes.
    old = {"googlenet", "inception_v3"}
    given = {key: value for key, value in _GIVEN.items() if name in old or key in takes}
    return partial(models.get_model, name, weights=None, num_classes=classes, **given)


def _known_to_torchvision(name: str) -> None:
    from torchvision import models  # noqa: PLC0415

    if name not in models.list_models(module=models):
        raise _no_network(f"torchvision:{name}", "torchvision has no classification network")


def _timm(name: str, classes: int) -> Make:
    return partial(_timm_library(name).create_model, name, pretrained=False, num_classes=classes)


def _timm_library(name: str) -> Any:
    """The library, if it has a network of this name."""
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise MissingError("timm is not installed. Install it: pip install 'prune-nas[timm]'") from None
    if name not in timm.list_models():
        raise _no_network(f"timm:{name}", "timm has no network")
    return timm


def _no_network(model: str, what: str) -> UsageError:
    found = suggestions(model, ())
    hint = f" Did you mean {' or '.join(found)}?" if found else ""
    return UsageError(f"{what} {model.partition(':')[2]!r}.{hint}")
