"""A run directory, read once: every file as the value that the tables and figures take.

Any file but `run.json` may be missing in a run that is under way; it then reads as empty.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from prune_nas.design.files import parse_json
from prune_nas.design.records import SCHEMA, Curve, Expense, Final, TrialRow, read_table
from prune_nas.design.space import Space
from prune_nas.errors import PruneNasError, UsageError, unknown
from prune_nas.report.tables import results

_SHOWN = 5  # runs named where another was looked for
_MOST = 1e12  # a width, at most
PLACE = ("budget", "slot", "stage", "depth", "ceiling")


@dataclass(frozen=True)
class RunData:
    """The files of one run directory (`path` may be text), each read when first asked for.

    Raises:
        UsageError: `path` holds no `run.json`, or one of a schema that this version does not read.
    """

    path: Path

    def __post_init__(self) -> None:
        """Refuse a directory that is not a run."""
        object.__setattr__(self, "path", Path(self.path))
        if not (self.path / "run.json").is_file():
            raise UsageError(
                f"{self.path} is not a run directory: it holds no run.json. "
                f"Give the directory that `prune-nas search --run DIR` wrote{_runs_beside(self.path)}"
            )
        schema = self.run.get("schema")
        if schema != SCHEMA:
            raise UsageError(
                f"{self.path / 'run.json'} must be of schema {SCHEMA}. Got {schema!r}, "
                f"written by prune-nas {self.run.get('version', '(unknown)')}. Read it with that version"
            )

    @cached_property
    def run(self) -> dict[str, Any]:
        """`run.json`: configuration, versions, device, data, phases and diagnosis."""
        return _json(self.path / "run.json", dict) or {}

    @cached_property
    def space(self) -> Space | None:
        """`space.json`."""
        path = self.path / "space.json"
        data = _json(path, dict)
        if data is None:
            return None
        try:
            return Space.from_dict(data)
        except (KeyError, TypeError, ValueError) as error:
            raise PruneNasError(f"{path} is not a space ({error!r})") from error

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float32]]:
        """`scores.safetensors`: slot -> |gamma| of its channels."""
        path = self.path / "scores.safetensors"
        if not path.exists():
            return {}
        try:
            return load_file(path)
        except SafetensorError as error:
            raise PruneNasError(
                f"{path} cannot be read ({error}). Delete it to have the supernet scored anew"
            ) from error

    @cached_property
    def widths(self) -> pd.DataFrame:
        """`widths.csv`: a line a budget and slot; an arm that has no widths under a budget is NaN there."""
        path = self.path / "widths.csv"
        if not path.exists():
            return pd.DataFrame(columns=list(PLACE))
        text = dict.fromkeys(("budget", "slot"), str)
        again = "Delete the file and repeat the search: it is written again"
        try:
            frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={})
        except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
            raise PruneNasError(f"{path} is not a table ({error}). {again}") from None
        missing = [name for name in PLACE if name not in frame]
        if missing:
            raise PruneNasError(f"{path} has no column {', '.join(missing)}. {again}")
        numbers = frame.columns.difference(["budget", "slot"], sort=False)
        try:
            frame[numbers] = frame[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
        except OverflowError as error:
            raise PruneNasError(f"{path}: a cell is too large to be a number ({error}). {again}") from None
        places = frame[["stage", "depth", "ceiling"]]
        if places.isna().to_numpy().any() or (frame[numbers].abs() > _MOST).to_numpy().any():
            raise PruneNasError(f"{path}: stage, depth or ceiling is missing, or a width is out of range. {again}")
        return frame

    @cached_property
    def trials(self) -> list[TrialRow]:
        """`trials.csv`."""
        return read_table(self.path / "trials.csv", TrialRow)

    @cached_property
    def curves(self) -> list[Curve]:
        """`curves.csv`."""
        return read_table(self.path / "curves.csv", Curve, torn=True)

    @cached_property
    def finals(self) -> list[Final]:
        """`finals.csv`."""
        return read_table(self.path / "finals.csv", Final)

    def frame(self, name: str) -> pd.DataFrame:
        """`trials`, `curves`, `finals` or `ledger` as a data frame with the columns of its file."""
        kinds = {"trials": TrialRow, "curves": Curve, "finals": Final, "ledger": Expense}
        if name not in kinds:
            raise unknown("table", name, kinds)
        columns = [field.name for field in fields(kinds[name])]
        return pd.DataFrame([asdict(row) for row in getattr(self, name)], columns=columns)

    @cached_property
    def results(self) -> pd.DataFrame:
        """`finals.csv` summarised: a line for each budget, arm and schedule."""
        return results(self.finals)

    @cached_property
    def ledger(self) -> list[Expense]:
        """`ledger.csv`."""
        return read_table(self.path / "ledger.csv", Expense)

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """`verdict.json`: one verdict a budget."""
        return _json(self.path / "verdict.json", list) or []

    @cached_property
    def rules(self) -> list[dict[str, Any]]:
        """`rule.json`: one rule a budget."""
        return _json(self.path / "rule.json", list) or []

    @cached_property
    def priors(self) -> list[dict[str, Any]]:
        """`prior.json`: one transferred rule a budget; none where nothing was transferred."""
        return _json(self.path / "prior.json", list) or []

    @cached_property
    def pruned(self) -> list[dict[str, Any]]:
        """`pruned.json`: what each method left of each network; none where no methods are compared."""
        return list((_json(self.path / "pruned.json", dict) or {}).get("nets", []))

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """`best.json`: the spec of the found network."""
        spec: dict[str, Any] | None = _json(self.path / "best.json", dict)
        return spec

    @cached_property
    def budgets(self) -> tuple[str, ...]:
        """The budgets that the files speak of, in the order of the verdicts, then of the tables."""
        named = [str(verdict.get("budget", "")) for verdict in self.verdicts]
        named += [*self.widths["budget"], *(row.budget for row in self.trials), *(row.budget for row in self.finals)]
        return tuple(dict.fromkeys(name for name in named if name))


def _runs_beside(path: Path) -> str:
    """The latest runs in the folder where a run was looked for, in words."""
    beside = sorted(path.parent.glob("*/run.json"), key=lambda file: -file.stat().st_mtime)[:_SHOWN]
    return f". Beside it lie {', '.join(file.parent.name for file in beside)}" if beside else ""


def _json(path: Path, kind: type[Any]) -> Any:
    """The JSON value at `path`, of the Python type `kind`; None where there is no such file."""
    if not path.exists():
        return None
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(value, kind):
        raise UsageError(f"{path} must hold a JSON {kind.__name__}. Got {type(value).__name__}")
    return value
