"""What one network's file in `search_spaces/` may say about its space."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from prune_nas.errors import UsageError, unknown

_HERE = Path(__file__).resolve().parent.parent
PLACES = (_HERE / "search_spaces", _HERE.parent / "search_spaces")  # in the wheel, in a checkout


@dataclass(frozen=True, slots=True)
class SlotSettings:
    """Exceptions for one slot; None leaves what holds for the network."""

    floor: int | None = None
    """Smallest width allowed."""
    ceiling: int | None = None
    """The supernet's width, at least the base's."""
    multiple: int | None = None
    """Widths go in steps of this."""


@dataclass(frozen=True, slots=True)
class SpaceSettings:
    """Everything about a space that its network's Python code does not say."""

    floor: int | None = None
    """Smallest width of every slot; without it 4, or the ceiling where that is smaller."""
    multiple: int = 1
    """Widths go in steps of this; grouped layers may demand more."""
    freeze: tuple[str, ...] = ()
    """Slots that keep the base's width."""
    tie: tuple[tuple[str, ...], ...] = ()
    """Groups of slots that shall have one width, though the network does not demand it; each becomes one slot."""
    widening: float = 1.0
    """The supernet's width over the base's, at least 1."""
    stage_names: tuple[str, ...] = ()
    """Names for the stages, largest feature map first; without them their sizes."""
    slots: Mapping[str, SlotSettings] = field(default_factory=dict)
    """Exceptions by slot name."""


def load_settings(model: str) -> SpaceSettings:
    """The settings in `search_spaces/<model>.toml`; the defaults for a network without such a file.

    Raises:
        UsageError: the file has a key that does not exist or a value that cannot be.
    """
    for place in PLACES:
        path = place / f"{model}.toml"
        if Path(model).name == model and path.is_file():
            return _load(path)
    return SpaceSettings()


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a file of settings of one's own, checked, as plain data for `parse_settings`.

    Raises:
        UsageError: there is no such file, it is not TOML, it has a key that does not exist or a value that cannot be.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read --space {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--space {path} is not TOML: {error}") from None
    parse_settings(data, path.name)
    return data


def parse_settings(data: Mapping[str, Any], source: str) -> SpaceSettings:
    """Settings from plain data.

    Args:
        data: the content of a TOML file.
        source: its name, for messages.

    Raises:
        UsageError: a key does not exist or a value cannot be.
    """
    _check_keys(data, SpaceSettings, source)
    slots, tables = {}, data.get("slots", {})
    if not isinstance(tables, Mapping):
        raise UsageError(f"{source}: slots must be a table of tables. Got {tables!r}")
    for name, table in tables.items():
        label = f'{source}, [slots."{name}"]'
        _check_keys(table, SlotSettings, label)
        slots[name] = SlotSettings(**{key: _positive(value, key, label) for key, value in table.items()})
    names: dict[str, tuple[str, ...]] = {}
    for key in ("freeze", "stage_names"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{source}: {key} must be a list of names. Got {value!r}")
        names[key] = tuple(value)
    tie = data.get("tie", [])
    if not isinstance(tie, list) or not all(_is_group(group) for group in tie):
        raise UsageError(f"{source}: tie must be a list of lists of at least two slot names. Got {tie!r}")
    widening = data.get("widening", 1.0)
    if not isinstance(widening, (int, float)) or widening < 1:
        raise UsageError(f"{source}: widening must be a number of at least 1. Got {widening!r}")
    return SpaceSettings(
        floor=_positive(data["floor"], "floor", source) if "floor" in data else None,
        multiple=_positive(data.get("multiple", 1), "multiple", source),
        freeze=names["freeze"],
        tie=tuple(map(tuple, tie)),
        widening=float(widening),
        stage_names=names["stage_names"],
        slots=slots,
    )


@cache
def _load(path: Path) -> SpaceSettings:
    try:
        return parse_settings(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error


def _check_keys(data: Mapping[str, Any], kind: type[SpaceSettings | SlotSettings], source: str) -> None:
    if not isinstance(data, Mapping):
        raise UsageError(f"{source} must be a table. Got {data!r}")
    known = [one.name for one in fields(kind)]
    for key in data:
        if key not in known:
            raise unknown(f"key in {source}", key, known)


def _is_group(group: Any) -> bool:
    return isinstance(group, list) and len(group) > 1 and all(isinstance(item, str) for item in group)


def _positive(value: Any, key: str, source: str) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{source}: {key} must be a positive whole number. Got {value!r}")
    return value
