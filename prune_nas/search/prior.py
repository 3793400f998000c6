"""Priors: what another run, a rule file or a table of widths says about a network that was never pruned itself."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from prune_nas.config import Config
from prune_nas.design.budget import UNITS, Bound, Budget, Limits, prune_weights
from prune_nas.design.patterns import FLAT, Pattern, Ratio, pattern_of, stability
from prune_nas.design.records import SCHEMA
from prune_nas.design.rules import Fit, Rule, Uniform, fit, fit_taper, rule_from_dict, to_dict
from prune_nas.design.rules.rule import on_scale
from prune_nas.design.selection import select
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError, unknown
from prune_nas.nets.tracing import trace
from prune_nas.search.rundir import read_json
from prune_nas.search.scores import load_scores

_HERE = Path(__file__).resolve().parent.parent
PLACES = (_HERE / "rules", _HERE.parent / "artifacts" / "rules")  # in the wheel, in a checkout
RESTORE = "restore it from a copy, or fit the rule again with `prune-nas rules fit`"
PRIOR = "prior.json"
HAND: Mapping[str, Callable[[Space, Limits], Rule]] = {
    "taper": fit_taper,
    "uniform": lambda space, limits: Uniform(),
}
"""Rules that need no pattern, by the name that stands for a source."""
ABOUT = ("slot", "stage", "depth", "ceiling")
"""The columns of a table of widths that say where a slot sits."""
ARM = "pruned"  # whose widths a run lends


@dataclass(frozen=True, slots=True)
class Prior:
    """A rule, where it came from, and the patterns that it was fitted on where those are at hand."""

    source: str
    rule: Rule
    patterns: tuple[Pattern, ...] = ()
    fitted: Fit | None = None
    flat: str = ""
    """That there is nothing to transfer, where the patterns differ from uniform by less than their spread."""
    spent: int = 0
    """Training macs of the source's supernet; 0 where that is not known."""
    found_under: str = ""
    """The budget under which a rule file's patterns were pruned; empty where that is not known."""
    asked: str = ""
    """The budget of the target."""
    warning: str = ""
    """That the source's supernet did not learn, so that the rule is noise; empty where it did."""

    @property
    def remarks(self) -> list[str]:
        """What must be said of it on any network: that it is noise, flat, or was found under other kinds of bounds."""
        return [said for said in (self.warning, self.flat, self._elsewhere) if said]

    @property
    def _elsewhere(self) -> str:
        if not self.asked or self.fitted is not None:
            return ""
        if not self.found_under:
            return (
                f"It is not known under which budget {self.source} was found. What is scarce decides the widths. "
                "Compare them with uniform scaling (--evaluate)."
            )
        if _kinds(self.found_under) == _kinds(self.asked):
            return ""
        return (
            f"{self.source} was found under {self.found_under}, and is used for {self.asked}. What is scarce decides "
            "the widths. Use a rule of the same kind of budget, or a run, which gives each budget its own rule."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `prior.json`: a rule file with its source."""
        if self.fitted is not None:
            about = {"remark": self.flat, "spent": self.spent, "warning": self.warning}
            return {"source": self.source, **to_dict(self.fitted), **about}
        plain = {"kind": self.rule.kind, "parameters": dict(self.rule.parameters), "explanation": self.rule.explain()}
        about = {"remark": self.flat, "spent": self.spent, "found_under": self.found_under, "warning": self.warning}
        return {"source": self.source, "schema": SCHEMA, **plain, **about}


class Staged(Protocol):
    """A rule of some number of stages, None where it holds for any."""

    @property
    def stages(self) -> int | None:
        """The number that it was fitted on."""
        ...


class Given(Protocol):
    """What `remark` must know of a prior, of widths or of single weights."""

    @property
    def rule(self) -> Staged:
        """Its rule."""
        ...

    @property
    def remarks(self) -> list[str]:
        """What is to be said of it on any network, in sentences."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule comes from, and how it is read there.

    `name` is a run directory (the rule is fitted on its pruned widths), a rule file (.json), a published rule's name
    (`published`), or a table of widths (.csv: `pattern_of_table`). `kind` is that of the rule fitted where the source
    is widths, stage-mean by default; `budget` the one under which a run is pruned (`pattern_of_run`), or of a run's
    rule file; `model` whose slots a table names that does not say where they sit; `selection` how a run's channels
    are chosen, by default as it chose them. A source whose supernet did not learn is refused unless `untrained`.
    """

    name: str
    kind: str | None = None
    budget: str | None = None
    model: str | None = None
    selection: str | None = None
    untrained: bool = False


def read_prior(source: Source) -> Prior:
    """The one rule that a source gives; of a run without `budget`, that of its first.

    Raises:
        UsageError: the source is not there, is none, or damaged, or is a rule already and a `kind` is asked for.
    """
    name, path = source.name, Path(source.name)
    if path.is_dir():
        asked = Budget.parse(source.budget) if source.budget else None
        return _fitted(source, pattern_of_run(path, asked, selection=source.selection))
    if path.suffix == ".csv":
        return _fitted(source, pattern_of_table(path, source.model, source.budget))
    if source.kind is not None:
        raise UsageError(f"{name} is a rule already. --rule {source.kind} is for runs and tables of widths")
    if path.suffix == ".json":
        if not path.is_file():
            raise UsageError(f"there is no rule file {path}")
        return _allowed(_rule_file(name, path, source.budget), source)
    known = published()
    if name not in known:
        if path.parent != Path():
            raise UsageError(f"there is nothing at {path}. Name a run, a rule file or a .csv of widths")
        raise unknown("run, rule file or published rule", name, [*known, *HAND])
    return _rule_file(name, known[name], source.budget)


def read_priors(source: Source, space: Space, budgets: Sequence[Budget]) -> dict[str, Prior]:
    """Budget of the target -> the rule for it.

    A run is pruned under each of the target's budgets, as shares of its own base: the shape that it teaches depends on
    what is scarce. A rule made by hand (`HAND`) needs no source. Other sources, and a run of which the source picks a
    budget, give every budget the same rule.

    Args:
        source: where the rules come from.
        space: the target's, whose base turns absolute budgets into shares.
        budgets: the target's.
    """
    path = Path(source.name)
    if source.name in HAND:
        if source.budget or source.kind or source.model:
            raise UsageError(f"{source.name} is a rule by itself. Leave out --rule, --source-budget and --source-model")
        return {str(b): Prior(source.name, HAND[source.name](space, _unmeasured(b, space))) for b in budgets}
    if path.suffix == ".csv" and source.budget is None and len(budgets_of_table(path)) > 1:
        return {str(b): replace(read_prior(replace(source, budget=str(b))), asked=str(b)) for b in budgets}
    if source.budget is not None or not path.is_dir():
        one = read_prior(source)
        return {str(budget): replace(one, asked=str(budget)) for budget in budgets}
    return {
        str(budget): _fitted(source, pattern_of_run(path, _relative(budget, space), selection=source.selection))
        for budget in budgets
    }


def priors_of(config: Config, run: Path, space: Space) -> dict[str, Prior]:
    """The priors of a run by budget: as they were when the run was begun, else read from their source.

    Empty where none is asked for.
    """
    if config.prior is None:
        return {}
    kept = run / PRIOR
    if kept.is_file():
        own = {str(budget): _rule_file(config.prior, kept, str(budget)) for budget in config.budgets}
        return {budget: replace(prior, asked=budget) for budget, prior in own.items()}
    source = Source(
        config.prior, config.rule, config.prior_budget, config.prior_model, config.selection, config.allow_untrained
    )
    return read_priors(source, space, config.budgets)


def remarks(prior: Given, space: Space) -> list[str]:
    """What a reader must be told before using the widths: a pattern that is flat, stages that differ in number."""
    said = prior.remarks
    if prior.rule.stages is not None and prior.rule.stages != space.stages:
        places = (on_scale(prior.rule.stages, stage, space.stages) for stage in range(space.stages))
        asked = ", ".join(f"{1 + place:.3g}" for place in places)
        said.append(
            f"The rule was made for {prior.rule.stages} stages, and {space.model} has {space.stages}. Its stages take "
            f"the values of the rule's stages {asked}."
        )
    return said


def _kinds(budget: str) -> set[str]:
    """What a budget bounds."""
    return {bound.kind for bound in Budget.parse(budget).bounds}


def published() -> dict[str, Path]:
    """Name -> file of the rules that ship with this package."""
    return {path.stem: path for place in PLACES for path in sorted(place.glob("*.json"))}


def pattern_of_run(path: Path, budget: Budget | None = None, *, selection: str | None = None) -> Pattern:
    """The pattern that a run's supernet gives under a budget; under its own first by default.

    The run's recorded pruned widths serve where they are of that budget; any other budget selects anew from the
    run's scores, which trains nothing.

    Args:
        path: the run directory.
        budget: fractions are of the run's base.
        selection: `per-cost` or `threshold`; as in the run by default.

    Raises:
        UsageError: the directory is no run, is damaged, or has neither such a budget nor scores.
        BudgetError: the run's network cannot meet the budget.
    """
    if not path.is_dir():
        raise UsageError(f"there is no run at {path}")
    if not (path / "run.json").is_file():
        raise UsageError(f"{path} is not a run directory: it has no run.json")
    try:
        space = Space.from_dict(read_json(path / "space.json"))
        config = read_json(path / "run.json")["config"]
        own, names = str(config.get("selection", "per-cost")), list(map(str, config["budget"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is incomplete ({error!r}). Run its search again") from error
    if cases := config.get("cases"):
        raise UsageError(
            f"{path} compares pruning methods. Each has its own rule. Name a rule: "
            f"{path / 'rule.json'} with --source-budget {cases[0]}"
        )
    name = str(budget) if budget else names[0]
    if prune_weights(map(Budget.parse, names)):
        raise UsageError(f"{path} pruned single weights. It can only lend masks, for a budget such as {names[0]}")
    if name in names and selection in (None, own):
        return pattern_of(space, _recorded(path, space, name), f"{path.name} {name}")
    if not (path / "scores.safetensors").is_file():
        raise UsageError(
            f"{path} has no scores of a supernet, so it can only lend the widths of its own budgets: "
            f"{' '.join(names)}, chosen {own}. Name one with --source-budget and --selection {own}"
        )
    limits = (budget or Budget.parse(name)).limits(space)
    chosen = select(space, load_scores(path / "scores.safetensors", space), limits, by=selection or own)
    return pattern_of(space, chosen.widths, f"{path.name} {name}")


def first_budget(path: Path) -> str:
    """The first budget of a run that `pattern_of_run` has read."""
    return str(read_json(path / "run.json")["config"]["budget"][0])


def _recorded(path: Path, space: Space, budget: str) -> Widths:
    """The pruned widths that a run wrote down."""
    rows = [row for row in _rows(path / "widths.csv") if row["budget"] == budget]
    own = {row["slot"]: row.get(ARM) for row in rows}
    if not rows or not all(own.values()):
        raise UsageError(
            f"{path} has no {ARM} widths under {budget}. Repeat its search with --arms {ARM}: that trains the supernet"
        )
    return space.check({name: _number(text, path / "widths.csv") for name, text in own.items()})


def _unmeasured(budget: Budget, space: Space) -> Limits:
    """A budget's limits but for latency, which is measured later."""
    bounds = tuple(bound for bound in budget.bounds if bound.kind != "latency")
    return Budget(bounds).limits(space) if bounds else Limits(())


def _relative(budget: Budget, space: Space) -> Budget | None:
    """A target's budget as shares of its base, a latency left out: no other network shares it. None if that is all."""
    base = space.cost(space.base)
    shares = tuple(
        Bound(b.kind, b.value if b.unit is None else b.value * UNITS[b.kind][b.unit] / base.of(b.kind), None)
        for b in budget.bounds
        if b.kind != "latency"
    )
    return Budget(shares) if shares else None


def budgets_of_table(path: Path) -> list[str]:
    """The columns of widths of a table: one for each budget, as `transfer --out` writes them."""
    return [name for name in _rows(path)[0] if name not in ("budget", *ABOUT)]


def _column(path: Path, row: Mapping[str, str], budget: str | None) -> str:
    """The column of widths that a budget names, or the only one.

    Raises:
        UsageError: there is no such column, or no column, or several and no budget.
    """
    columns = [name for name in row if name not in ("budget", *ABOUT)]
    if not columns:
        raise UsageError(f"{path} must have a column of widths. It has {', '.join(row)}")
    if budget in columns:
        return str(budget)
    if len(columns) > 1:
        given = f"It has none for {budget}" if budget else "Name a budget with --source-budget"
        raise UsageError(f"{path} has widths for several budgets: {' '.join(columns)}. {given}")
    if budget is not None:
        raise UsageError(f"{path} has widths for {columns[0]} alone. Leave out --source-budget {budget}")
    return columns[0]


def pattern_of_table(path: Path, model: str | None = None, budget: str | None = None) -> Pattern:
    """The pattern in a table with `slot, stage, depth, ceiling` and a column of widths for each budget.

    With `model` (at 3x32x32) the table needs `slot` and the widths alone. Of several columns `budget` names one.

    Raises:
        UsageError: there is no such file, a column or slot is missing, misspelt or there twice, or a number is none or
            out of range.
    """
    rows = _rows(path)
    if model is not None:
        return _named(path, rows, trace(model).space, budget)
    if missing := [name for name in ABOUT if name not in rows[0]]:
        raise UsageError(
            f"{path} must have the columns slot, stage, depth and ceiling and a column of widths. "
            f"Missing: {', '.join(missing)} (or name its network: --source-model)"
        )
    column = _column(path, rows[0], budget)
    space_like = {row["slot"]: row for row in rows}
    if len(space_like) < len(rows):
        raise UsageError(f"{path} names a slot twice. Keep the rows of one network and budget")
    ratios = []
    for line, row in enumerate(rows, start=2):
        stage, depth = _number(row["stage"], path), _depth(row["depth"], path)
        keep = _number(row[column], path) / max(_number(row["ceiling"], path), 1)
        if not (0 < keep <= 1 and 0 <= depth <= 1 and stage >= 0):
            raise UsageError(
                f"{path}, line {line}: a width must lie in [1, ceiling], a depth in [0, 1] and a stage count from 0"
            )
        ratios.append(Ratio(row["slot"], stage, depth, keep))
    return Pattern(path.name, max(ratio.stage for ratio in ratios) + 1, tuple(ratios))


def _named(path: Path, rows: list[dict[str, str]], space: Space, budget: str | None) -> Pattern:
    """The pattern of a table that names the slots of a known network."""
    if "slot" not in rows[0]:
        raise UsageError(f"{path} must have the column slot and a column of widths. It has {', '.join(rows[0])}")
    column = _column(path, rows[0], budget)
    widths = space.check({row["slot"]: _number(row[column], path) for row in rows})
    if wide := [name for name, width in widths.items() if width > space.by_name[name].ceiling]:
        raise UsageError(f"{path}: {wide[0]} is {widths[wide[0]]} wide, more than its {space.by_name[wide[0]].ceiling}")
    return pattern_of(space, widths, path.name)


def _fitted(source: Source, pattern: Pattern) -> Prior:
    fitted, agree = fit(source.kind or "stage-mean", [pattern]), stability([pattern])
    flat, record = agree.sentence() if agree.is_uniform else "", Path(source.name) / "run.json"
    made = Prior(source.name, fitted.rule, (pattern,), fitted, flat, spent_by(record), warning=warning_of(record))
    return _allowed(made, source)


def _allowed(prior: Prior, source: Source) -> Prior:
    """The prior, unless it is noise that nobody asked for.

    Raises:
        UsageError: the source's supernet did not learn.
    """
    if prior.warning and not source.untrained:
        raise UsageError(f"{source.name}: {prior.warning} To use the rule all the same, add --allow-untrained")
    return prior


def warning_of(record: Path) -> str:
    """That a run's supernet did not learn, from its `run.json`; empty where it did, or where nothing is known."""
    data = read_json(record) if record.is_file() else None
    found = data.get("diagnosis") if isinstance(data, Mapping) else None
    if not isinstance(found, Mapping) or found.get("learnt", True) is not False:
        return ""
    told = [f"{name} {100 * found[key]:.1f} %" for name, key in (("accuracy", "accuracy"), ("guessing", "guessing"))
            if isinstance(found.get(key), float)]  # fmt: skip
    return f"The source's supernet did not learn ({', '.join(told)}): this rule says nothing."


def spent_by(record: Path) -> int:
    """What a run's supernet cost, in training macs."""
    data = read_json(record) if record.is_file() else None
    supernet = data.get("supernet") if isinstance(data, Mapping) else None
    spent = supernet.get("train_macs") if isinstance(supernet, Mapping) else None
    return spent if isinstance(spent, int) else 0


def _rule_file(source: str, path: Path, budget: str | None) -> Prior:
    data = read_json(path, RESTORE)
    if isinstance(data, list) and all(isinstance(item, Mapping) for item in data):  # a run's rule.json
        budgets = [str(item.get("budget")) for item in data]
        if budget is not None and budget not in budgets:
            raise unknown(f"budget of {path}", budget, budgets)
        data = data[budgets.index(budget) if budget else 0] if data else None
    elif budget is not None:
        raise UsageError(f"{source} holds a single rule. Leave out --source-budget {budget} (or --prior-budget)")
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is not a rule file: it must hold a JSON object")
    if "kind" not in data and "input_shape" in data:
        raise UsageError(f"{path} is a network, not a rule. Give its run directory")
    evidence, spent = dict(data.get("evidence") or {}), data.get("spent", 0)
    if not isinstance(spent, int):
        raise UsageError(f"{path} is not a rule file: spent must be a whole number. Got {spent!r}")
    said = str(evidence.get("stability", data.get("remark", "")))
    # A prior's own file says where its rule was found; the budget in it is its target's.
    found_under = data.get(
        "found_under", evidence.get("budget") or ("" if "source" in data else data.get("budget", ""))
    )
    flat = said if FLAT in said else ""
    rule, warning = rule_from_dict(data, str(path)), str(data.get("warning", ""))
    return Prior(source, rule, flat=flat, spent=spent, found_under=_a_budget(found_under), warning=warning)


def _a_budget(text: Any) -> str:
    """The text if it is a budget of widths; else nothing, as where it is a pruning method's case."""
    try:
        return "" if Budget.parse(str(text)).bounds_weights else str(text)
    except UsageError:
        return ""


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"there is no table of widths at {path}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a table ({error})") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise UsageError(f"{path} is not a table: it has no rows, or a row that is too short or too long")
    return rows


def _depth(text: Any, path: Path) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise UsageError(f"{path}: {text!r} is not a depth: a depth is a number from 0 to 1") from None


def _number(text: Any, path: Path) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        raise UsageError(f"{path}: {text!r} is not a whole number") from None
