"""Rules of single weights: read from runs and files, and applied to another network without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_nas.design import kernels
from prune_nas.design.budget import Budget
from prune_nas.design.kernels import Counts, Kernel, KernelMean, kernel_mean, kernel_mean_from_dict, planned
from prune_nas.design.patterns import FLAT
from prune_nas.design.sizes import Size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError, unknown
from prune_nas.nets.tracing import trace
from prune_nas.pruning import magnitude
from prune_nas.search.prior import RESTORE, published, remarks, spent_by
from prune_nas.search.rundir import read_json
from prune_nas.search.subject import image_size
from prune_nas.search.weights import load_weights
from prune_nas.training.data import outline

_EVEN = 0.1  # below this non-uniformity a rule is an even one but for noise
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class KernelPrior:
    """A rule of single weights, where it came from, what must be said of it, and what its supernet cost."""

    source: str
    rule: KernelMean
    remark: str = ""
    spent: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `prior.json`: a rule file with its source."""
        return {"source": self.source, **self.rule.to_dict(), "remark": self.remark, "spent": self.spent}

    @property
    def remarks(self) -> list[str]:
        """What must be said of it on any network."""
        return [self.remark] if self.remark else []


@dataclass(frozen=True, slots=True)
class Pruned:
    """What magnitude pruning left of a supernet: the rule, the counts at each place, and the masks' digest."""

    rule: KernelMean
    kept: Counts
    masks: str

    @property
    def empty(self) -> list[str]:
        """The layers that kept no weight: nothing passes through them."""
        return [layer for layer, places in self.kept.items() if not places.any()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `rule.json`."""
        kept = {layer: places.tolist() for layer, places in self.kept.items()}
        return {**self.rule.to_dict(), "kept": kept, "masks": self.masks}


def prune(space: Space, weights: Mapping[str, Any], many: int) -> Pruned:
    """Keep the `many` largest of a network's weights.

    Args:
        space: the network's.
        weights: `magnitude.weights_of` or `weights_in`.
        many: weights that stay.
    """
    own = magnitude.convolutions(space, weights)
    masks = magnitude.by_magnitude(weights, many)
    kept = magnitude.count(masks, own)
    return Pruned(kernel_mean(own, kept, space.stages), kept, magnitude.digest(masks))


def pruned_before(path: Path, own: Sequence[Kernel], budgets: Sequence[str]) -> dict[str, Pruned] | None:
    """What a run's `rule.json` says of its budgets; None where the file is not there or does not fit."""
    items = read_json(path) if path.is_file() else None
    by_budget = {item.get("budget"): item for item in items if isinstance(item, Mapping)} if items else {}
    found = {}
    for budget in budgets:
        item = by_budget.get(budget)
        kept = item.get("kept") if item else None
        if not item or not isinstance(kept, Mapping) or set(kept) != {kernel.layer for kernel in own}:
            return None
        counts = magnitude.as_counts(kept)
        if any(counts[kernel.layer].shape != (kernel.places,) for kernel in own):
            return None
        found[budget] = Pruned(kernel_mean_from_dict(item, str(path)), counts, str(item.get("masks", "")))
    return found


def read_kernel_prior(source: str, budget: Budget) -> KernelPrior:
    """The rule that a source gives under a budget of single weights.

    Args:
        source: a rule file or a published rule of the kind `kernel-mean`, or a run: its supernet's weights are pruned
            to that share of its own; a run of budgets of single weights also lends what it wrote down.
        budget: a share (`Budget.share_of`).

    Raises:
        UsageError: the source is not there, or none.
    """
    path = Path(source)
    if path.is_dir():
        return _of_run(source, path, budget)
    known = published()
    path = known.get(source, path)
    if path.suffix == ".csv":
        raise UsageError(f"{source} is a table of widths. A budget of single weights takes a run or a kernel-mean rule")
    if not path.is_file():
        raise UsageError(f"there is no run, rule file or published rule {source}")
    data = read_json(path, RESTORE)
    if isinstance(data, list):  # a run's rule.json
        data = of_budget(data, str(budget), path)
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is not a rule file: it must hold a JSON object")
    return _prior(source, data, path)


def kept_priors(path: Path, budgets: Sequence[Budget]) -> dict[str, KernelPrior]:
    """The priors in a run's own `prior.json`."""
    items = read_json(path)
    if not isinstance(items, list):
        raise UsageError(f"{path} is damaged: it must hold a JSON list")
    return {str(budget): _prior(str(path), of_budget(items, str(budget), path), path) for budget in budgets}


def of_budget(items: Sequence[Any], budget: str, path: Path) -> Mapping[str, Any]:
    """The item of a budget in a list of rules.

    Raises:
        UsageError: there is none.
    """
    by_budget = {str(item.get("budget")): item for item in items if isinstance(item, Mapping)}
    if budget not in by_budget:
        raise unknown(f"budget of {path}", budget, by_budget)
    found: Mapping[str, Any] = by_budget[budget]
    return found


def _prior(source: str, data: Mapping[str, Any], path: Path) -> KernelPrior:
    rule, spent = kernel_mean_from_dict(data, str(path)), data.get("spent", 0)
    if not isinstance(spent, int):
        raise UsageError(f"{path} is not a rule file: spent must be a whole number. Got {spent!r}")
    return KernelPrior(str(data.get("source", source)), rule, str(data.get("remark", "")) or _flat(rule), spent)


def _flat(rule: KernelMean) -> str:
    if rule.non_uniformity >= _EVEN:
        return ""
    return f"The pattern is {FLAT} (non-uniformity {rule.non_uniformity:.2f}): spread the weights evenly."


def _of_run(source: str, path: Path, budget: Budget) -> KernelPrior:
    spent = spent_by(path / "run.json")
    recorded = read_json(path / "rule.json") if (path / "rule.json").is_file() else []
    mine = [item for item in recorded if isinstance(item, Mapping) and item.get("budget") == str(budget)]
    if mine:
        rule = kernel_mean_from_dict(mine[0], f"{path}/rule.json")
        return KernelPrior(source, rule, _flat(rule), spent)
    if not (path / "supernet.safetensors").is_file():
        if not (path / "run.json").is_file():
            raise UsageError(f"{path} is not a run directory: it has no run.json")
        names = (str(item.get("budget")) for item in recorded if isinstance(item, Mapping))
        budgets = " ".join(name for name in names if name.startswith("weights="))
        raise UsageError(
            f"{path} has no weights of a supernet, so it cannot be pruned to {budget}. Its rules of single "
            f"weights: {budgets or 'none'}"
        )
    try:
        space = Space.from_dict(read_json(path / "space.json"))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is incomplete ({error!r}). Run its search again") from error
    weights = magnitude.weights_in(space, load_weights(path / "supernet.safetensors"))
    own = magnitude.convolutions(space, weights)
    rule = prune(space, weights, budget.weights(sum(kernel.weights for kernel in own))).rule
    said, taught = [_flat(rule)] if _flat(rule) else [], kernels.share_taught(own)
    if taught < _HALF:
        said.append(
            f"3x3 kernels hold {100 * taught:.0f} % of the source's weights. For other kernels a rule has only the "
            "mean of the stage."
        )
    return KernelPrior(source, rule, " ".join(said), spent)


@dataclass(frozen=True, slots=True)
class Planned:
    """A rule's shares on a network under one budget: layer -> (kept, of all)."""

    budget: str
    prior: KernelPrior
    remark: str
    kept: Mapping[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """What `transfer --json` prints: `budget, rule, remark, kept`."""
        rule = self.prior.to_dict()
        return {"schema": 1, "budget": self.budget, "rule": rule, "remark": self.remark, "kept": dict(self.kept)}


def plan(
    source: str, model: str, dataset: str, budgets: Sequence[Budget], *, asked: Budget | None = None, **of_model: Any
) -> list[Planned]:
    """Apply a source's rules of single weights to a network; nothing is trained and no image is read.

    Args:
        source: as `read_kernel_prior` takes it.
        model: the network that gets the masks.
        dataset: whose classes its head has.
        budgets: of single weights.
        asked: under which the source is pruned, if not under each of the budgets.
        of_model: `base_width`, `image_size` and `data_dir`.

    Raises:
        UsageError, MissingError: the source, the network, the data set or a budget is unknown.
        BudgetError: a budget leaves less than one weight a layer.
    """
    about = outline(dataset, data_dir=of_model["data_dir"])
    size = Size.parse(of_model["image_size"]) if of_model["image_size"] else image_size(model, dataset, about)
    traced = trace(model, input_shape=(3, *size), classes=about.classes, base_width=of_model["base_width"])
    space = traced.space
    own = magnitude.convolutions(space, magnitude.weights_of(space, traced.build(space.widest, seed=0)))
    total = sum(kernel.weights for kernel in own)
    made = []
    for budget in budgets:
        prior = read_kernel_prior(source, (asked or budget).share_of(total))
        kept = planned(prior.rule, own, space.stages, budget.weights(total))
        by_layer = {kernel.layer: (int(kept[kernel.layer].sum()), kernel.weights) for kernel in own}
        made.append(Planned(str(budget), prior, " ".join(remarks(prior, space)), by_layer))
    return made
