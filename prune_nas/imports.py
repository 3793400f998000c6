"""Python code that a person named on the command line: `package.module:callable` or `path/file.py:callable`.

Importing is running, so nothing that was read from a file or a database may come here.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from prune_nas.errors import UsageError

_MOST = 3  # names in one message


def imported(
    place: str, name: str, does: str, *, names: Callable[[Path], list[str]] | None = None
) -> Callable[..., Any]:
    """The callable `name` of a package's module, or of a Python file.

    Args:
        place: the module's name, or the path of a file that ends in .py.
        name: of a class or function in it.
        does: what it must do, for messages, as in "makes a network".
        names: gives the names in a file that may be suggested where the one that was named is not there; all
            callables of the module by default.

    Raises:
        UsageError: there is none, it is not callable, or importing it raises.
    """
    module = _file(Path(place)) if place.endswith(".py") else _module(place, name)
    return _attribute(module, name, place, does, names)


def _module(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place and not place.startswith(f"{error.name}."):
            raise UsageError(f"importing {place} raised {said(error)}") from error
        here = Path(f"{place.replace('.', '/')}.py")
        hint = f". There is a file: {here}:{name}" if here.is_file() else ""
        raise UsageError(
            f"there is no Python package {place!r}. Name an installed package.module:callable or "
            f"path/file.py:callable{hint}"
        ) from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"importing {place} raised {said(error)}") from error


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}. Name a Python file and the callable in it: path/file.py:callable")
    name = f"_prune_nas_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    sys.path.insert(0, str(path.resolve().parent))  # as `python path/file.py` would
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"importing {path} raised {said(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _attribute(
    module: ModuleType, name: str, place: str, does: str, names: Callable[[Path], list[str]] | None
) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if found is None:
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        if names and module.__file__:
            own = names(Path(module.__file__))
        near = difflib.get_close_matches(name, own, n=_MOST, cutoff=0.5) or own[:_MOST]
        hint = f". Did you mean {' or '.join(f'{place}:{key}' for key in near)}?" if near else ""
        raise UsageError(f"{place} has no callable {name!r}{hint}")
    if not callable(found):
        raise UsageError(f"{place}:{name} must be a class or function that {does}. Got {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def said(error: BaseException) -> str:
    """The error in a line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {text} ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})"
