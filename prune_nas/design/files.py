"""Files written so that a reader, or a crash, sees the old one or the new one and never half of either; JSON read."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

_LONGEST = 30  # digits of a whole number
_LEFTOVER = re.compile(r"\..+\.(safetensors|json|csv|html|md|svg|png|pdf)\.[a-z0-9_]{8}")  # as `write_bytes` names it


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically; it is on the disk when this returns.

    Raises:
        OSError: the disk is full or the directory cannot be written; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk's error names nothing
            error.filename = str(path)
        raise


def drop_leftovers(folder: Path) -> None:
    """Delete what writes that were cut off left below `folder`; nobody may be writing there."""
    for path in folder.rglob(".*.*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for readable JSON; NaN is refused, since no JSON reader need take it."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def parse_json(text: str) -> Any:
    """The value in a JSON text from anywhere, hostile ones included.

    Raises:
        ValueError: it is not JSON (NaN is none), or it nests deeper or has longer numbers than anything of ours.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_short)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would compute a cell of a CSV file that holds this text, instead of showing it."""
    return text.startswith(("=", "+", "-", "@", "\t", "\r"))


def _short(digits: str) -> int:
    if len(digits) > _LONGEST:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"JSON has no number {name}")
