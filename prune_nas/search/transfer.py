"""`transfer` without training, and `rules fit`: a source's rule as widths of another network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_nas.design.budget import Budget
from prune_nas.design.files import write_json, write_text
from prune_nas.design.patterns import Pattern, stability
from prune_nas.design.rules import apply, fit, place, to_dict
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.search.prior import Prior, pattern_of_table, patterns_of_run
from prune_nas.training.data import outline


@dataclass(frozen=True, slots=True)
class Target:
    """A rule's widths on a network under one budget."""

    prior: Prior
    space: Space
    budget: str
    widths: Widths

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
            "remark": remark(self.prior, self.space),
            "widths": dict(self.widths),
            "macs": self.macs,
            "params": self.params,
        }


@dataclass(frozen=True, slots=True)
class Transferred:
    """A rule on one network under several budgets, and what must be said of it."""

    prior: Prior
    targets: tuple[Target, ...]
    remark: str

    def write_widths(self, path: Path) -> None:
        """The widths as a table with a column a budget; of one budget, `transfer` reads it again."""
        space = self.targets[0].space
        named = [target.budget.replace(",", ";") for target in self.targets]
        lines = [",".join(["slot", "stage", "depth", "ceiling", *named])]
        for slot in space.slots:
            own = [str(target.widths[slot.name]) for target in self.targets]
            lines.append(",".join([slot.name, str(slot.stage), f"{slot.depth:.4f}", str(slot.ceiling), *own]))
        write_text(path, "\n".join(lines) + "\n")


def transfer(
    prior: Prior,
    model: str,
    dataset: str,
    *,
    budgets: Sequence[str],
    base_width: float = 1.0,
    image_size: int = 32,
    data_dir: Path | None = None,
) -> Transferred:
    """Apply a rule to a network; nothing is trained and no image is read.

    Args:
        prior: from `search.prior.read_prior`.
        model: the network that gets the widths.
        dataset: whose classes its head has.
        budgets: texts of budgets.
        base_width: scales the network.
        image_size: pixels.
        data_dir: where a folder data set lies.

    Raises:
        UsageError: the network, the data set or a budget is unknown.
        BudgetError: a budget cannot be met.
    """
    shape, classes = outline(dataset, image_size=image_size, data_dir=data_dir)
    space = trace(model, input_shape=shape, classes=classes, base_width=base_width).space
    parsed = [Budget.parse(text) for text in budgets]
    if any(budget.bounds_latency for budget in parsed):
        raise UsageError("a latency is measured, which takes a while; add --evaluate, or bound macs and params")
    targets = [Target(prior, space, str(b), apply(prior.rule, space, b.limits(space))) for b in parsed]
    return Transferred(prior, tuple(targets), remark(prior, space))


def remark(prior: Prior, space: Space) -> str:
    """What a reader must be told before using the widths: a pattern that is flat, stages that differ in number."""
    said = []
    if prior.remark:
        said.append(prior.remark)
    if prior.rule.stages not in (None, space.stages):
        asked = ", ".join(f"{1 + place(prior.rule, stage, space.stages):.3g}" for stage in range(space.stages))
        said.append(
            f"the rule was made for {prior.rule.stages} stages and {space.model} has {space.stages}: they are asked at "
            f"the rule's stages {asked}"
        )
    return "; ".join(said)


def fit_rule(
    sources: Sequence[str], out: Path, *, kind: str, budget: str | None, source_model: str | None
) -> dict[str, Any]:
    """Fit a rule on the pruned widths of runs or tables, and write its file.

    Raises:
        UsageError: a source is none, or they are of networks with different numbers of stages.
    """
    patterns: list[Pattern] = []
    for source in sources:
        path = Path(source)
        patterns += [pattern_of_table(path, source_model)] if path.suffix == ".csv" else patterns_of_run(path, budget)
    fitted = fit(kind, patterns)
    same = len({tuple(ratio.slot for ratio in pattern.ratios) for pattern in patterns}) == 1
    agree = stability(patterns).sentence() if same else "the patterns are of different networks"
    made = {**to_dict(fitted), "evidence": {"sources": list(sources), "budget": budget or "", "stability": agree}}
    write_json(out, made)
    return made
