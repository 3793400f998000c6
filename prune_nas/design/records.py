"""The tables of a run directory: one frozen row type a file, in the order of its columns.

These names are a public interface (README, "The run directory"): other programs read them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from prune_nas.design.files import is_formula, write_text
from prune_nas.errors import PruneNasError

SCHEMA = 1
_DIGITS = 40  # of a number in a table, at most
FINE_TUNE, REWIND = "fine-tune", "rewind"
KEPT = (FINE_TUNE, REWIND)  # the schedules that go on from kept weights; the others start afresh


@dataclass(frozen=True, slots=True)
class Final:
    """A row of `finals.csv`: one training of one arm by the finals. Accuracies are in [0, 1]."""

    budget: str
    arm: str
    method: str
    ratio: str
    candidate: str
    seed: int
    schedule: str
    epochs: int
    macs: int
    params: int
    val_accuracy: float
    test_accuracy: float
    train_macs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A row of `trials.csv`: one training of one candidate by the study; `value` is its validation accuracy.

    `worker` is the number of the process that trained it, empty where there was one; `seed` the training's.
    """

    budget: str
    number: int
    state: str
    value: float | None
    macs: int
    params: int
    epochs: int
    seconds: float
    worker: str
    widths: str
    seed: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A row of `curves.csv`: one epoch; `trial` is a trial's number, `supernet`, or arm/schedule/candidate/seed."""

    budget: str
    trial: str
    epoch: int
    train_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Expense:
    """A row of `ledger.csv`: what one arm cost in one phase; macs count forward and backward of training."""

    budget: str
    phase: str
    arm: str
    trainings: int
    train_macs: int
    seconds: float


Row = TypeVar("Row", Final, TrialRow, Curve, Expense)


def write_table(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Replace the table at `path` atomically, header included."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)
    write_text(path, text.getvalue())


def read_table(path: Path, kind: type[Row], *, torn: bool = False) -> list[Row]:
    """The rows at `path`; none where there is no such file.

    Args:
        path: of the table.
        kind: of its rows.
        torn: whether it is added to line by line, so that a crash may leave part of a last line, which is left out.

    Raises:
        PruneNasError: a column is missing or a value is not of its type (the file and line are named).
    """
    if not path.exists():
        return []
    types = get_type_hints(kind)
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            missing = [name for name in types if name not in (reader.fieldnames or ())]
            lines = [] if missing else list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise _damaged(path, f"it is no table ({error})") from None
    if missing:
        raise _damaged(path, f"it has no column {', '.join(missing)}")
    if torn and lines and not path.read_bytes().endswith(b"\n"):
        lines.pop()
    for line, raw in enumerate(lines, start=2):
        try:
            rows.append(kind(**{name: _cell(raw[name], hint) for name, hint in types.items()}))
        except (KeyError, TypeError, ValueError) as error:
            raise PruneNasError(
                f"{path}, line {line}: not a row of {path.name} ({error}). "
                "Restore the file from a copy. Or delete the line: its training then runs again"
            ) from error
    return rows


def _damaged(path: Path, how: str) -> PruneNasError:
    return PruneNasError(f"{path}: {how}. Restore it from a copy. Or delete it: its trainings then run again")


def _cell(text: str | None, hint: Any) -> Any:
    if text is None:
        raise ValueError("the line ends early")
    if hint is str:
        if is_formula(text):
            raise ValueError(f"{text!r} would be a formula to a spreadsheet")
        return text
    if isinstance(hint, UnionType):  # float | None
        return None if text == "" else _number(text, get_args(hint)[0])
    return _number(text, hint)


def _number(text: str, kind: Any) -> Any:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    number = kind(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
