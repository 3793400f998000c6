"""Rules of single weights: read from runs and files, and applied to another network without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_nas.config import Config
from prune_nas.design.budget import Budget
from prune_nas.design.kernels import KernelMean, kernel_mean, kernel_mean_from_dict, planned
from prune_nas.design.space import Space
from prune_nas.errors import MissingError, UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning import magnitude
from prune_nas.search.prior import published
from prune_nas.search.rundir import read_json
from prune_nas.search.supernet import load_weights
from prune_nas.training.data import outline


def kernel_rule(source: str, budget: Budget) -> KernelMean:
    """The rule that a source gives under a budget of single weights.

    Args:
        source: a rule file or a published rule of the kind `kernel-mean`, or a run: its supernet's weights are pruned
            to the budget, as a share of its own; a run of budgets of single weights also lends what it wrote down.
        budget: of single weights.

    Raises:
        UsageError: the source is none.
        MissingError: there is no such source.
    """
    path = Path(source)
    if path.is_dir():
        return _rule_of_run(path, budget)
    known = published()
    path = known.get(source, path)
    if not path.is_file():
        raise MissingError(f"there is no run, rule file or published rule {source}")
    data = read_json(path)
    if isinstance(data, list):  # a run's rule.json
        data = _of_budget(data, budget, path)
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is no rule file: it must hold a JSON object")
    return kernel_mean_from_dict(data, str(path))


def _rule_of_run(path: Path, budget: Budget) -> KernelMean:
    recorded = read_json(path / "rule.json") if (path / "rule.json").is_file() else []
    mine = [item for item in recorded if isinstance(item, Mapping) and item.get("budget") == str(budget)]
    if mine:
        return kernel_mean_from_dict(mine[0], f"{path}/rule.json")
    if not (path / "supernet.safetensors").is_file():
        budgets = "; ".join(str(item.get("budget")) for item in recorded) or "none"
        raise UsageError(
            f"{path} has no weights of a supernet, so it cannot be pruned to {budget}; what it wrote down: {budgets}"
        )
    config = Config(**read_json(path / "run.json")["config"])
    space = Space.from_dict(read_json(path / "space.json"))
    traced = trace(config.model, input_shape=space.input_shape, classes=space.classes, base_width=config.base_width)
    network = traced.scaled(supernet=config.supernet_width).build(space.widest, seed=0)
    network.load_state_dict(load_weights(path / "supernet.safetensors"))
    own = magnitude.kernels(space, network)
    kept = magnitude.largest(network, own, budget.weights(sum(kernel.weights for kernel in own)))
    return kernel_mean(own, magnitude.count(kept, own), space.stages)


def _of_budget(items: list[Any], budget: Budget, path: Path) -> Any:
    budgets = [str(item.get("budget")) for item in items if isinstance(item, Mapping)]
    if str(budget) not in budgets:
        raise UsageError(f"{path} has no rule for {budget}; it has {'; '.join(budgets)}")
    return items[budgets.index(str(budget))]


@dataclass(frozen=True, slots=True)
class Planned:
    """A rule's shares on a network under one budget: layer -> (kept, of all)."""

    budget: str
    rule: KernelMean
    kept: Mapping[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """What `transfer --json` prints: `budget, rule, kept`."""
        return {"schema": 1, "budget": self.budget, "rule": self.rule.to_dict(), "kept": dict(self.kept)}


def plan(source: str, model: str, dataset: str, budgets: Sequence[str], **of_model: Any) -> list[Planned]:
    """Apply a source's rules of single weights to a network; nothing is trained and no image is read.

    Args:
        source: as `kernel_rule` takes it.
        model: the network that gets the masks.
        dataset: whose classes its head has.
        budgets: texts of budgets of single weights.
        of_model: `base_width`, `image_size` and `data_dir`.

    Raises:
        UsageError, MissingError: the source, the network, the data set or a budget is unknown.
        BudgetError: a budget leaves less than one weight a layer.
    """
    shape, classes = outline(dataset, image_size=of_model["image_size"], data_dir=of_model["data_dir"])
    traced = trace(model, input_shape=shape, classes=classes, base_width=of_model["base_width"])
    space = traced.space
    own = magnitude.kernels(space, traced.build(space.widest, seed=0))
    made = []
    for budget in map(Budget.parse, budgets):
        rule = kernel_rule(source, budget)
        kept = planned(rule, own, space.stages, budget.weights(sum(kernel.weights for kernel in own)))
        made.append(
            Planned(
                str(budget), rule, {kernel.layer: (int(kept[kernel.layer].sum()), kernel.weights) for kernel in own}
            )
        )
    return made
