"""Priors: what another run, a rule file or a table of widths says about a network that was never pruned itself."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_nas.config import Config
from prune_nas.design.patterns import FLAT, Pattern, Ratio, pattern_of, stability
from prune_nas.design.records import SCHEMA
from prune_nas.design.rules import Fit, Rule, fit, rule_from_dict, to_dict
from prune_nas.design.space import Space
from prune_nas.errors import MissingError, UsageError, unknown
from prune_nas.nets.tracing import trace
from prune_nas.search.rundir import read_json

_HERE = Path(__file__).resolve().parent.parent
PLACES = (_HERE / "rules", _HERE.parent / "artifacts" / "rules")  # in the wheel, in a checkout
PRIOR = "prior.json"
ARM = "pruned"  # whose widths a run lends


@dataclass(frozen=True, slots=True)
class Prior:
    """A rule, where it came from, and the patterns that it was fitted on where those are at hand."""

    source: str
    rule: Rule
    patterns: tuple[Pattern, ...] = ()
    fitted: Fit | None = None
    remark: str = ""
    """That there is nothing to transfer, where the patterns are within noise of uniform."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `prior.json`: a rule file with its source."""
        if self.fitted is not None:
            return {"source": self.source, **to_dict(self.fitted), "remark": self.remark}
        plain = {"kind": self.rule.kind, "parameters": dict(self.rule.parameters), "explanation": self.rule.explain()}
        return {"source": self.source, "schema": SCHEMA, **plain, "remark": self.remark}


def read_prior(source: str, *, kind: str | None = None, budget: str | None = None, model: str | None = None) -> Prior:
    """The rule that a source gives.

    Args:
        source: a run directory (the rule is fitted on its pruned widths), a rule file (.json), a published rule's name
            (`published`), or a table of widths (.csv: `pattern_of_table`).
        kind: of the rule that is fitted where the source is widths; stage-mean by default.
        budget: of a run with several; its first by default.
        model: whose slots a table names that does not say where they sit.

    Raises:
        UsageError: the source is none of these, or damaged, or is a rule already and `kind` is asked for.
        MissingError: there is no such source.
    """
    path = Path(source)
    if path.is_dir():
        return _fitted(source, kind or "stage-mean", patterns_of_run(path, budget))
    if path.suffix == ".csv":
        return _fitted(source, kind or "stage-mean", [pattern_of_table(path, model)])
    if kind is not None:
        raise UsageError(f"{source} is a rule already; --rule {kind} is for runs and tables of widths")
    if path.suffix == ".json":
        if not path.is_file():
            raise MissingError(f"there is no rule file {path}")
        return _rule_file(source, path, budget)
    known = published()
    if source not in known:
        if path.parent != Path():
            raise MissingError(f"there is nothing at {path}; name a run, a rule file or a .csv of widths")
        raise unknown("run, rule file or published rule", source, known)
    return _rule_file(source, known[source], budget)


def prior_of(config: Config, run: Path) -> Prior | None:
    """The prior of a run: as it was when the run was begun, else read from its source; None where none is asked for."""
    if config.prior is None:
        return None
    kept = run / PRIOR
    if kept.is_file():
        return _rule_file(config.prior, kept, None)
    return read_prior(config.prior, kind=config.rule, budget=config.prior_budget, model=config.prior_model)


def published() -> dict[str, Path]:
    """Name -> file of the rules that ship with this package."""
    return {path.stem: path for place in PLACES for path in sorted(place.glob("*.json"))}


def patterns_of_run(path: Path, budget: str | None = None, arm: str = ARM) -> list[Pattern]:
    """The pattern of an arm of a run: of one budget, or of its first.

    Raises:
        UsageError: the directory is no run, has no such budget, or its widths are not those of its space.
    """
    if not path.is_dir():
        raise MissingError(f"there is no run at {path}")
    try:
        space = Space.from_dict(read_json(path / "space.json"))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}/space.json is no space ({error!r}); run the search again to have it written"
        ) from error
    rows = _rows(path / "widths.csv")
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    chosen = budget or budgets[0]
    if chosen not in budgets:
        raise unknown(f"budget of {path}", chosen, budgets)
    own = {row["slot"]: row.get(arm) for row in rows if row["budget"] == chosen}
    if not all(own.values()):
        arms = [name for name in rows[0] if name not in ("budget", "slot", "stage", "depth", "ceiling", "base")]
        raise UsageError(f"{path} has no {arm} widths under {chosen}; it has {', '.join(arms)}")
    widths = space.check({name: _number(text, path / "widths.csv") for name, text in own.items()})
    return [pattern_of(space, widths, f"{path.name} {chosen}")]


def pattern_of_table(path: Path, model: str | None = None) -> Pattern:
    """The pattern in a table with `slot, stage, depth, ceiling` and one more column: the widths.

    With `model` (at 3x32x32) the table needs `slot` and the widths alone.

    Raises:
        UsageError: a column or slot is missing, misspelt or there twice, or a number is none or out of range.
        MissingError: there is no such file.
    """
    rows = _rows(path)
    if model is not None:
        return _named(path, rows, trace(model).space)
    extra = [name for name in rows[0] if name not in ("budget", "slot", "stage", "depth", "ceiling")]
    missing = [name for name in ("slot", "stage", "depth", "ceiling") if name not in rows[0]]
    if missing or len(extra) != 1:
        raise UsageError(
            f"{path} must have the columns slot, stage, depth and ceiling and one column of widths; "
            + (f"{', '.join(missing)} missing (or name its network: --source-model)" if missing else f"got {extra}")
        )
    space_like = {row["slot"]: row for row in rows}
    if len(space_like) < len(rows):
        raise UsageError(f"{path} names a slot twice; keep the rows of one network and budget")
    ratios = []
    for line, row in enumerate(rows, start=2):
        stage, depth = _number(row["stage"], path), _depth(row["depth"], path)
        keep = _number(row[extra[0]], path) / max(_number(row["ceiling"], path), 1)
        if not (0 < keep <= 1 and 0 <= depth <= 1 and stage >= 0):
            raise UsageError(
                f"{path}, line {line}: a width must lie in [1, ceiling], a depth in [0, 1] and a stage count from 0"
            )
        ratios.append(Ratio(row["slot"], stage, depth, keep))
    return Pattern(path.name, max(ratio.stage for ratio in ratios) + 1, tuple(ratios))


def _named(path: Path, rows: list[dict[str, str]], space: Space) -> Pattern:
    """The pattern of a table that names the slots of a known network."""
    columns = [name for name in rows[0] if name not in ("budget", "slot", "stage", "depth", "ceiling")]
    if "slot" not in rows[0] or len(columns) != 1:
        raise UsageError(f"{path} must have the column slot and one column of widths; it has {', '.join(rows[0])}")
    widths = space.check({row["slot"]: _number(row[columns[0]], path) for row in rows})
    if wide := [name for name, width in widths.items() if width > space.by_name[name].ceiling]:
        raise UsageError(f"{path}: {wide[0]} is {widths[wide[0]]} wide, more than its {space.by_name[wide[0]].ceiling}")
    return pattern_of(space, widths, path.name)


def _fitted(source: str, kind: str, patterns: list[Pattern]) -> Prior:
    fitted = fit(kind, patterns)
    agree = stability(patterns)
    return Prior(source, fitted.rule, tuple(patterns), fitted, agree.sentence() if agree.is_uniform else "")


def _rule_file(source: str, path: Path, budget: str | None) -> Prior:
    data = read_json(path)
    if isinstance(data, list) and all(isinstance(item, Mapping) for item in data):  # a run's rule.json
        budgets = [str(item.get("budget")) for item in data]
        if budget is not None and budget not in budgets:
            raise unknown(f"budget of {path}", budget, budgets)
        data = data[budgets.index(budget) if budget else 0] if data else None
    elif budget is not None:
        raise UsageError(f"{source} is one rule; {budget} picks one of a run's")
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is no rule file: it must hold a JSON object")
    said = str(dict(data.get("evidence") or {}).get("stability", data.get("remark", "")))
    return Prior(source, rule_from_dict(data, str(path)), remark=said if FLAT in said else "")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise MissingError(f"there is no table of widths at {path}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no table ({error})") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise UsageError(f"{path} is no table: it has no rows, or one that is too short or too long")
    return rows


def _depth(text: Any, path: Path) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise UsageError(f"{path}: {text!r} is no depth, a number from 0 to 1") from None


def _number(text: Any, path: Path) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        raise UsageError(f"{path}: {text!r} is no whole number") from None
