"""Networks that are not built in: torchvision's, timm's, and the user's own Python code.

A name with a colon says where the network comes from: `torchvision:NAME`, `timm:NAME`, `package.module:callable` or
`path/file.py:callable`. The last two run code, so only a person who names them may: a spec that was read from a file
names its network, but never has it imported (`runs_code`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from prune_nas.errors import MissingError, UsageError, unknown

LIBRARIES = ("torchvision", "timm")
_OFF = {"aux_logits": False, "init_weights": False}  # heads used in training alone, and minutes of initialisation


def is_named(model: str) -> bool:
    """Whether a model's name says where it comes from."""
    return ":" in model


def runs_code(model: str) -> bool:
    """Whether making this network imports code that no installed library is known for."""
    return is_named(model) and model.partition(":")[0] not in LIBRARIES


def make(model: str, classes: int, base_width: float) -> tuple[nn.Module, float]:
    """The network, freshly made and without trained weights, and the part of `base_width` that it does not have.

    Raises:
        UsageError: there is no such network, or its code raises.
        MissingError: timm is not installed.
    """
    place, _, name = model.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"cannot read --model {model!r}; expected torchvision:NAME, timm:NAME, package.module:callable or "
            "path/file.py:callable"
        )
    if place == "torchvision":
        return _torchvision(name, classes), base_width
    if place == "timm":
        return _timm(name, classes), base_width
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    return call(_attribute(module, name, place), model, classes, base_width)


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
    except Exception as error:
        spoken = ", ".join(f"{key}={value}" for key, value in given.items())
        raise UsageError(f"{name}({spoken}) raised {_said(error)}") from error
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


def _module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place and not place.startswith(f"{error.name}."):
            raise UsageError(f"importing {place} raised {_said(error)}") from error
        raise UsageError(
            f"there is no Python package {place!r}; name an installed package.module:callable, "
            "a path/file.py:callable, torchvision:NAME or timm:NAME"
        ) from None
    except Exception as error:
        raise UsageError(f"importing {place} raised {_said(error)}") from error


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}; name a Python file and what makes the network: path/file.py:callable"
        )
    name = f"_prune_nas_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    sys.path.insert(0, str(path.resolve().parent))  # as `python path/file.py` would
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"importing {path} raised {_said(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _attribute(module: ModuleType, name: str, place: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if found is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"callable in {place}", name, public)
    if not callable(found):
        raise UsageError(f"{place}:{name} must be a class or function that makes a network; got {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def _said(error: BaseException) -> str:
    """The error in a line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {text} ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})"
