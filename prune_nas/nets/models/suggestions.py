"""What a user may have meant by a --model that is not there. Python files are read as text and never run."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

MOST = 3  # suggestions in one message
_FILES = 200  # Python files of a folder that are looked into
_CUTOFF = 0.6
_GIVEN = {"self", "classes", "num_classes", "base_width"}  # arguments that the tool gives


def suggestions(name: str, built_in: Iterable[str]) -> list[str]:
    """At most three values of --model that exist, the nearest first.

    Args:
        name: what the user gave.
        built_in: names of the built-in networks.
    """
    found = [*_local(name), *_of_libraries(name), *_near(name, built_in)]
    return list(dict.fromkeys(found))[:MOST]


def networks_in(path: Path) -> list[str]:
    """What a Python file has that can be called without a size of its own: its modules, the last one first; functions.

    Classes and functions that ask for more than the number of classes are parts of a network, not a network.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    known = {"Module", "Sequential"}
    for node in classes:
        known |= {node.name} if any(_last(base) in known for base in node.bases) else set()
    modules = [node.name for node in reversed(classes) if node.name in known and _is_whole(_constructor(node))]
    functions = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_" and _is_whole(node.args) and _gives(node)
    ]
    return [*modules, *functions]


def _constructor(node: ast.ClassDef) -> ast.arguments | None:
    made = (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    return next((one.args for one in made), None)


def _is_whole(takes: ast.arguments | None) -> bool:
    """Whether everything that must be given is what the tool gives."""
    if takes is None:
        return True
    places = [*takes.posonlyargs, *takes.args]
    needed = places[: len(places) - len(takes.defaults)]
    needed += [one for one, default in zip(takes.kwonlyargs, takes.kw_defaults, strict=True) if default is None]
    return {one.arg for one in needed} <= _GIVEN


def _gives(node: ast.FunctionDef) -> bool:
    return any(isinstance(one, ast.Return) and one.value is not None for one in ast.walk(node))


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


def _local(name: str) -> Iterator[str]:
    """Networks of Python files: of the file that was named, or of the working directory."""
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        yield from (f"{name}:{network}" for network in networks_in(path))
        return
    place, _, network = name.rpartition(":")
    if place.endswith(".py"):
        known = networks_in(Path(place))
        yield from (f"{place}:{one}" for one in difflib.get_close_matches(network, known, n=MOST, cutoff=_CUTOFF))
        return
    place, _, network = name.replace(".", ":").rpartition(":")
    for file in sorted(Path().glob("*.py"))[:_FILES]:
        known = networks_in(file) if place in ("", file.stem) else []
        yield from (f"{file}:{one}" for one in known if one == network)
        if not place and file.stem == name:
            yield from (f"{file}:{one}" for one in known)


def _of_libraries(name: str) -> Iterator[str]:
    """The same name in torchvision and timm."""
    yield from (f"{library}:{name}" for library, names in _libraries() if name in names)


def _near(name: str, built_in: Iterable[str]) -> list[str]:
    asked, _, plain = name.rpartition(":")
    known = {one: one for one in built_in}
    for library, names in _libraries():
        if asked not in ("", library):
            continue
        known |= {one: f"{library}:{one}" for one in names if one not in known}
    return [known[one] for one in difflib.get_close_matches(plain, known, n=MOST, cutoff=_CUTOFF)]


def _libraries() -> Iterator[tuple[str, list[str]]]:
    """The libraries that are installed, with the names of their networks."""
    try:
        timm = importlib.import_module("timm")
        yield "timm", timm.list_models()
    except ImportError:
        pass
    from torchvision import models  # noqa: PLC0415 - it takes as long to import as torch

    yield "torchvision", models.list_models(module=models)
