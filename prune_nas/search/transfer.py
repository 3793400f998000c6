"""`transfer` without training, and `rules fit`: a source's rule as widths of another network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from prune_nas.design import kernels
from prune_nas.design.budget import Budget
from prune_nas.design.files import write_json, write_text
from prune_nas.design.patterns import Pattern, stability
from prune_nas.design.rules import apply, fit, to_dict
from prune_nas.design.sizes import Size
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.nets.settings import parse_settings, read_settings
from prune_nas.nets.tracing import trace
from prune_nas.search.kernel_rules import read_kernel_prior
from prune_nas.search.prior import (
    ABOUT,
    Prior,
    Source,
    first_budget,
    pattern_of_run,
    pattern_of_table,
    read_priors,
    remarks,
    spent_by,
    warning_of,
)
from prune_nas.search.subject import image_size as usual_size
from prune_nas.training.data import outline


@dataclass(frozen=True, slots=True)
class Target:
    """A rule's widths on a network under one budget."""

    prior: Prior
    space: Space
    budget: str
    widths: Widths

    @property
    def remarks(self) -> list[str]:
        """What a reader must be told before using the widths."""
        return remarks(self.prior, self.space)

    @property
    def macs(self) -> int:
        """Of the network with these widths."""
        return self.space.cost(self.widths).macs

    @property
    def params(self) -> int:
        """Of the network with these widths."""
        return self.space.cost(self.widths).params

    def to_dict(self) -> dict[str, Any]:
        """What `transfer --json` prints: `rule, model, budget, widths, macs, params`."""
        return {
            "schema": 1,
            "rule": {key: value for key, value in self.prior.to_dict().items() if key != "schema"},
            "model": self.space.model,
            "budget": self.budget,
            "remark": " ".join(self.remarks),
            "widths": dict(self.widths),
            "macs": self.macs,
            "params": self.params,
        }


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a source gives one network under several budgets."""

    space: Space
    targets: tuple[Target, ...]

    def write_widths(self, path: Path) -> None:
        """The widths as a table with a column for each budget, which `transfer` reads again."""
        table = pd.DataFrame([(s.name, s.stage, f"{s.depth:.4f}", s.ceiling) for s in self.space.slots], columns=ABOUT)
        for target in self.targets:
            table[target.budget] = [target.widths[slot.name] for slot in self.space.slots]
        write_text(path, table.to_csv(index=False, lineterminator="\n"))


def transfer(
    source: Source,
    model: str,
    dataset: str,
    *,
    budgets: Sequence[str],
    base_width: float = 1.0,
    image_size: int | str | Sequence[int] | None = None,
    settings: Path | None = None,
    data_dir: Path | None = None,
) -> Transferred:
    """Apply a source's rules to a network; nothing is trained and no image is read.

    Args:
        source: where the rules come from.
        model: the network that gets the widths.
        dataset: whose classes its head has.
        budgets: texts of budgets.
        base_width: scales the network.
        image_size: pixels, as `training.data.load` takes them; None for what network and data set decide.
        settings: the network's own file of settings (`--space`).
        data_dir: where a folder data set lies.

    Raises:
        UsageError: the source, the network, the data set or a budget is unknown.
        BudgetError: a budget cannot be met.
    """
    about = outline(dataset, data_dir=data_dir)
    size = Size.parse(image_size) if image_size else usual_size(model, dataset, about)
    own = parse_settings(read_settings(settings), settings.name) if settings else None
    space = trace(model, input_shape=(3, *size), classes=about.classes, base_width=base_width, settings=own).space
    parsed = [Budget.parse(text) for text in budgets]
    if any(budget.bounds_latency for budget in parsed):
        raise UsageError("without --evaluate no latency is measured. Add --evaluate, or bound macs and params")
    priors = read_priors(source, space, parsed)
    asked = [(str(budget), priors[str(budget)], budget.limits(space)) for budget in parsed]
    targets = [Target(prior, space, name, apply(prior.rule, space, limits)) for name, prior, limits in asked]
    return Transferred(space, tuple(targets))


def fit_rule(
    sources: Sequence[str],
    out: Path,
    *,
    kind: str | None,
    budget: str | None,
    source_model: str | None,
    untrained: bool = False,
) -> dict[str, Any]:
    """Fit a rule on the pruned widths of runs or tables, and write its file.

    A run whose supernet did not learn is refused unless `untrained`; the file then says so.

    Raises:
        UsageError: a source is none, or they are of networks with different numbers of stages.
    """
    asked = Budget.parse(budget) if budget else None
    if asked is not None and asked.bounds_weights:
        if kind is not None or source_model is not None:
            raise UsageError("--rule and --source-model are about widths. A rule of single weights is kernel-mean")
        made = _fit_kernels(sources, asked)
        write_json(out, made)
        return made
    patterns: list[Pattern] = []
    found_under: set[str] = set()
    warnings = [f"{path}: {said}" for path in map(Path, sources) if (said := warning_of(path / "run.json"))]
    if warnings and not untrained:
        raise UsageError(f"{' '.join(warnings)} To fit a rule all the same, add --allow-untrained")
    for path in map(Path, sources):
        table = path.suffix == ".csv"
        patterns.append(pattern_of_table(path, source_model, budget) if table else pattern_of_run(path, asked))
        found_under.add("" if table else budget or first_budget(path))
    fitted = fit(kind or "stage-mean", patterns)
    same = len({tuple(ratio.slot for ratio in pattern.ratios) for pattern in patterns}) == 1
    agree = (
        stability(patterns).sentence()
        if same
        else (
            "the patterns are of different networks, whose stages' mean keep ratios deviate by "
            f"{fmean(fitted.spread):.2f} from each other on average"
        )
    )
    if len(found_under) > 1:
        named = " ".join(sorted(found_under - {""}))
        agree += f". The sources were pruned under different budgets, each under its first ({named}). "
        agree += "--source-budget names one"
    spent = sum(spent_by(Path(source) / "run.json") for source in sources)
    made = {
        **to_dict(fitted),
        "spent": spent,
        "warning": " ".join(warnings),
        "evidence": {
            "sources": list(sources),
            "budget": found_under.pop() if len(found_under) == 1 else "",
            "stability": agree,
        },
    }
    write_json(out, made)
    return made


def _fit_kernels(sources: Sequence[str], budget: Budget) -> dict[str, Any]:
    if budget.bounds[0].unit is not None:
        raise UsageError(f"several networks share no number of weights. Give {budget} as a share, such as weights=0.1")
    own = [read_kernel_prior(source, budget) for source in sources]
    mean = kernels.average([prior.rule for prior in own])
    agree = stability([kernels.pattern_of(prior.rule, prior.source) for prior in own]).sentence()
    evidence = {"sources": list(sources), "budget": str(budget), "stability": agree}
    return {**mean.to_dict(), "spent": sum(prior.spent for prior in own), "evidence": evidence}
