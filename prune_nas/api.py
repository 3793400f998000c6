"""What the command line does, step by step, for programs and notebooks; `import prune_nas as pn` has these names.

The steps take and give plain values: a traced network, a data set, scores, widths, a rule. `run_search` is the whole
job, which `prune-nas search` is a thin layer over.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from prune_nas.config import Config, resolve
from prune_nas.design import family, rules, selection
from prune_nas.design.budget import Budget
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import uniform_widths
from prune_nas.design.rules import Rule
from prune_nas.design.space import Widths
from prune_nas.errors import UsageError, unknown
from prune_nas.nets.specs import load as load_net
from prune_nas.nets.tracing import Traced, trace
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.norms import places
from prune_nas.report.run_data import RunData
from prune_nas.search import study as studies
from prune_nas.search.estimate import Steps
from prune_nas.search.pipeline import dry_run, search
from prune_nas.search.prior import Source, read_prior
from prune_nas.search.progress import View
from prune_nas.search.single import setting_for
from prune_nas.search.sparsity import sparsify
from prune_nas.search.subject import settled
from prune_nas.search.together import follows
from prune_nas.search.work import Result, Training
from prune_nas.training.batchnorm import quicken
from prune_nas.training.data import Data
from prune_nas.training.data import load as load_data
from prune_nas.training.loop import DivergedError, Epoch, OutOfMemoryError, Setting, accuracy, train
from prune_nas.training.precision import choose_device
from prune_nas.training.probe import probe, steps_for
from prune_nas.training.recipe import Recipe
from prune_nas.training.recipe import recipe as recipe_named

_SHARE = 0.5  # of the channels that a supernet without a budget shall lose

Scores = Mapping[str, NDArray[np.floating[Any]]]
"""Slot name -> one score a channel, shape (ceiling,): the mean |gamma| of the slot's norms."""


class OnEpoch(Protocol):
    """Called after every epoch of a training."""

    def __call__(self, what: str, epoch: Epoch, /) -> None:
        """`what` is trained, and how its epoch ended."""


@dataclass(frozen=True)
class Trained:
    """Networks trained from scratch and what they reach; `table` has a line a seed: accuracies in [0, 1]."""

    networks: tuple[nn.Module, ...]
    table: pd.DataFrame


@dataclass(frozen=True)
class Studied:
    """A study's candidates, a line each (`number, value, macs, params, widths`), and the best of them on validation.

    `value` is the accuracy on validation in [0, 1], NaN where the training failed.
    """

    best: Widths
    trials: pd.DataFrame


def train_supernet(
    network: Traced,
    data: Data,
    *,
    epochs: int = 20,
    penalty: str = "auto",
    strength: float | None = None,
    recipe: str = "fast",
    optimizer: str = "auto",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    on_epoch: OnEpoch = lambda what, epoch: None,
) -> Scores:
    """Train the widest network with a penalty on BatchNorm's scaling factors, and score its channels.

    Args:
        network: as `trace` gives it.
        data: as `load_data` gives it.
        epochs: of the sparse training.
        penalty: l1 (Network Slimming, Liu et al. 2017), l1-macs, l1-params, l1-cost or none; auto is l1, or none for a
            network without BatchNorm.
        strength: lambda; by default it follows from what it does, until half of the channels carry nothing.
        recipe: fast or paper.
        optimizer: sgd, adamw, or auto, which tries both on the base for some steps. Under a penalty SGD updates
            BatchNorm's parameters.
        seed: of weights, batches and augmentation.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, bf16 or fp16; auto measures, so name one to have the same numbers again.
        on_epoch: called after every epoch.

    Raises:
        UsageError: the network has no scaling factors, or a name is unknown.
        DivergedError: the loss became infinite.
        AllDeadError: the penalty is so strong that it took every channel to zero.
    """
    network, space, schedule = network.starting_as(recipe), network.space, recipe_named(recipe, epochs)
    setting = _setting(network, data, device, precision, schedule)
    images = len(data.train)
    if penalty == "auto":
        penalty = "l1" if places(space, network.template) else "none"
    penalties.check(penalty, space, network.template)
    schedule = _using(optimizer, network, setting, schedule)
    if penalty != "none":
        schedule = schedule.penalised()
    pressure = penalties.pressure_for(penalty, schedule, images, strength=strength, share=_SHARE)

    def build() -> nn.Module:
        made = network.build(space.widest, seed=seed)
        return made if penalty == "none" else quicken(made)

    trained, _ = train(
        build,
        setting,
        schedule,
        seed=seed,
        penalty=penalties.make(pressure, space, network.template, schedule, images),
        on_epoch=lambda epoch: on_epoch("supernet", epoch),
    )
    return channel_scores(space, trained)


def select(network: Traced, scores: Scores, budget: Budget | str, *, by: str = "per-cost") -> Widths:
    """The widths that scores give under a budget: never over it, and as close under it as the slots allow.

    Args:
        network: that was scored.
        scores: slot -> one score a channel.
        budget: such as `macs=0.2,params=0.05`.
        by: per-cost, or threshold (one for the whole network, Liu et al. 2017).

    Raises:
        BudgetError: no network is that small.
    """
    space = network.space
    return selection.select(space, scores, _budget(budget).limits(space), by=by).widths


def uniform(network: Traced, budget: Budget | str) -> Widths:
    """One keep ratio for all slots, the largest within the budget: what a search must beat.

    Raises:
        BudgetError: no network is that small.
    """
    space = network.space
    return uniform_widths(space, _budget(budget).limits(space))


def taper(network: Traced, budget: Budget | str) -> Widths:
    """Widths that shrink by one ratio from stage to stage: a rule that needs no supernet, and hard to beat.

    Raises:
        BudgetError: no network is that small.
    """
    return rules.taper_widths(network.space, _budget(budget).limits(network.space))


def fit_rule(kind: str, patterns: Sequence[tuple[Traced, Widths]]) -> Rule:
    """A design rule fitted on the widths of one or several networks; `rule.explain()` says it in a sentence.

    Args:
        kind: stage-mean (Liu et al. 2019, guided pruning), depth-curve or quantised-linear.
        patterns: networks with the widths that pruning left.

    Raises:
        UsageError: the kind is unknown, or the networks have different numbers of stages.
    """
    return rules.fit(kind, [pattern_of(network.space, widths) for network, widths in patterns]).rule


def load_rule(source: Path | str, *, budget: str | None = None) -> Rule:
    """The rule that a source holds, as `prune-nas transfer` reads it.

    Args:
        source: a published rule's name, a rule file, a run directory, or a .csv of widths that has stages and depths.
        budget: the budget under which a run is pruned, or whose rule a run's rule file gives; by default the first.

    Raises:
        UsageError: the source is not there, is damaged, or its supernet did not learn.
    """
    return read_prior(Source(str(source), budget=budget)).rule


def apply_rule(rule: Rule, network: Traced, budget: Budget | str) -> Widths:
    """The rule's widths for any network, scaled as one onto the budget.

    Raises:
        BudgetError: no network is that small.
    """
    return rules.apply(rule, network.space, _budget(budget).limits(network.space))


def study(
    network: Traced,
    data: Data,
    budget: Budget | str,
    *,
    prior: Widths,
    trials: int = 12,
    epochs: int = 6,
    recipe: str = "fast",
    optimizer: str = "auto",
    sampler: str = "tpe",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    on_epoch: OnEpoch = lambda what, epoch: None,
) -> Studied:
    """Search around `prior` with Optuna: every candidate within the budget and trained from scratch, one after another.

    The starting points are uniform, the prior's stage means, the prior and a taper; only validation images are read.

    Args:
        network: as `trace` gives it.
        data: as `load_data` gives it.
        budget: such as `macs=0.2`.
        prior: widths to search around: pruned ones, or those of a rule.
        trials: different candidates.
        epochs: that each is trained for.
        recipe: fast or paper.
        optimizer: sgd, adamw, or auto, which tries both on the base for some steps.
        sampler: tpe, gp or random.
        seed: decides everything that is random.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, bf16 or fp16; auto measures, so name one to have the same numbers again.
        on_epoch: called after every epoch.

    Raises:
        BudgetError: no network is that small.
        PruneNasError: no trial succeeded.
    """
    network, space, schedule = network.starting_as(recipe), network.space, recipe_named(recipe, epochs)
    if trials < 1:
        raise UsageError(f"a study trains at least one candidate. Got trials={trials}")
    if sampler not in studies.SAMPLERS:
        raise unknown("sampler", sampler, studies.SAMPLERS)
    limits = _budget(budget).limits(space)
    _check(network, prior)
    setting = _setting(network, data, device, precision, schedule)
    schedule = _using(optimizer, network, setting, schedule)
    taper = family.taper_point(space, rules.fit_taper(space, limits).ratio)
    with tempfile.TemporaryDirectory() as folder:
        opened = studies.open_study(Path(folder) / "study.journal", "study", prior)
        source = studies.Trials(
            opened,
            studies.trials(
                opened,
                space,
                limits,
                prior,
                starts=[family.UNIFORM, family.GUIDED, family.PRUNED, taper],
                seed=seed,
                sampler=sampler,
            ),
            lambda number, widths: Training("", f"trial {number}", "", widths, seed, epochs, Path(folder) / "none"),
            wanted=trials,
        )
        while (training := source.ask()) is not None:
            source.tell(training, _result(network, setting, schedule, training, on_epoch))
        rows = [row for row in studies.rows(opened, space, "", seed=seed) if row.state != "REPEAT"]
        table = pd.DataFrame(
            {
                "number": row.number,
                "value": row.value,
                "macs": row.macs,
                "params": row.params,
                "widths": Widths(json.loads(row.widths)),
            }
            for row in rows
        )
        return Studied(studies.best(opened), table)


def train_widths(
    network: Traced,
    widths: Widths,
    data: Data,
    *,
    epochs: int = 20,
    schedule: str = "scratch-e",
    recipe: str = "fast",
    optimizer: str = "auto",
    seeds: Sequence[int] = (1000,),
    device: str = "auto",
    precision: str = "auto",
    on_epoch: OnEpoch = lambda what, epoch: None,
) -> Trained:
    """Train a network of these widths from scratch, once a seed, and read the test split once at the end.

    Args:
        network: as `trace` gives it.
        widths: of every slot.
        data: as `load_data` gives it.
        epochs: of the base.
        schedule: scratch-e (those epochs) or scratch-b (the base's training compute: epochs * base macs / macs).
        recipe: fast or paper.
        optimizer: sgd, adamw, or auto, which tries both on the base for some steps.
        seeds: one training each; by default one that no study has used, since the seed that chose a net flatters it.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, bf16 or fp16; auto measures, so name one to have the same numbers again.
        on_epoch: called after every epoch.

    Raises:
        UsageError: a name is unknown, or the widths are not this network's.
        DivergedError: the loss became infinite.
    """
    if schedule not in ("scratch-e", "scratch-b"):
        raise unknown("schedule", schedule, ("scratch-e", "scratch-b"))
    network, space = network.starting_as(recipe), network.space
    _check(network, widths)
    cost = space.cost(widths)
    lasting = scratch_b_epochs(epochs, space.cost(space.base).macs, cost.macs) if schedule == "scratch-b" else epochs
    plan = recipe_named(recipe, lasting)
    setting = _setting(network, data, device, precision, plan)
    plan = _using(optimizer, network, setting, plan)
    test = data.open_test().to(setting.device)
    networks, rows = [], []
    for seed in seeds:
        trained, done = train(
            partial(network.build, widths, seed=seed),
            setting,
            plan,
            seed=seed,
            on_epoch=partial(on_epoch, f"seed {seed}"),
        )
        networks.append(trained)
        rows.append(
            {
                "seed": seed,
                "schedule": schedule,
                "precision": setting.precision.name,
                "optimizer": plan.optimizer,
                "epochs": lasting,
                "macs": cost.macs,
                "params": cost.params,
                "val_accuracy": done[-1].val_accuracy,
                "test_accuracy": accuracy(trained, test, setting),
            }
        )
        trained.eval()
    return Trained(tuple(networks), pd.DataFrame(rows))


def run_search(
    run: Path | str | None = None, *, quiet: bool = False, config: Path | str | None = None, **settings: Any
) -> RunData | None:
    """Do, or finish, the whole job of `prune-nas search` in a run directory.

    Args:
        run: the directory; by default one below artifacts/runs that is named by the settings.
        quiet: print no progress.
        config: a TOML file of settings.
        settings: the flags of `prune-nas search` with _ for -: model, dataset, budget (one, or a sequence), preset,
            trials, ...; not those about figures, which `prune_nas.report.figures` draws.

    Returns:
        The run's files as values, without its figures and page (`prune_nas.report` has those); None in a process of
        a team that only follows.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    resolved, path = _resolved(run, config, settings)
    if follows(resolved):
        return None
    (sparsify if resolved.prunes_weights else search)(resolved, path, View(quiet=quiet))
    return RunData(path)


def plan_search(
    run: Path | str | None = None, *, quiet: bool = False, config: Path | str | None = None, **settings: Any
) -> Steps:
    """What `run_search` would still train, step by step, with its time on this machine; trains nothing.

    A budget of latency is measured for it.

    Raises:
        UsageError, MissingError, BudgetError: where the request cannot be met, or single weights are budgeted.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--dry-run works in one process. Leave torchrun out")
    resolved, path = _resolved(run, config, settings)
    if resolved.prunes_weights:
        raise UsageError(f"--dry-run plans budgets of widths. Leave it out under {resolved.budget[0]}")
    return dry_run(resolved, path, View(quiet=quiet))


def _resolved(run: Path | str | None, config: Path | str | None, settings: dict[str, Any]) -> tuple[Config, Path]:
    """The configuration that settings, environment, file and preset give, and the run's directory."""
    for name in ("schedules", "arms", "devices"):
        if isinstance(settings.get(name), str):
            settings[name] = tuple(settings[name].split(","))
    budget = settings.get("budget") or ()
    settings["budget"] = (budget,) if isinstance(budget, str) else tuple(budget)
    automatic = "standard" if settings.get("device") not in ("cpu", "mps") and torch.cuda.is_available() else "laptop"
    resolved = settled(resolve(settings, file=Path(config) if config else None, automatic=automatic))
    return resolved, Path(run) if run else Path("artifacts/runs") / resolved.run_name


def read_run(path: Path | str) -> RunData:
    """The files of a run directory as data frames and values: `results`, `widths`, `finals`, `verdicts`, `rules`, ...

    Raises:
        UsageError: it is none.
    """
    return RunData(Path(path))


def _setting(network: Traced, data: Data, device: str, precision: str, schedule: Recipe) -> Setting:
    """Where and how to train; the number format is measured on the base, so that all widths are trained in one."""
    space = network.space
    if tuple(space.input_shape) != tuple(data.input_shape) or space.classes != len(data.classes):
        raise UsageError(
            f"{space.model} was traced for {space.input_shape} images in {space.classes} classes, and {data.name} has "
            f"{data.input_shape} in {len(data.classes)}. Trace it with input_shape=data.input_shape and "
            "classes=len(data.classes)"
        )
    return setting_for(data, network, space.base, choose_device(device), precision, schedule.batch)


def _using(optimizer: str, network: Traced, setting: Setting, schedule: Recipe) -> Recipe:
    """The recipe with an optimiser; `auto` takes the paper's for its recipe, else what suits the base."""
    if optimizer != "auto":
        return schedule.using(optimizer)
    if schedule.name == "paper":
        return schedule
    steps = steps_for(schedule, len(setting.data.train))
    return schedule.using(probe(lambda: network.build(seed=0), setting, schedule, seed=0, steps=steps).optimizer)


def _check(network: Traced, widths: Widths) -> None:
    """See that widths are this network's."""
    ceilings = {slot.name: slot.ceiling for slot in network.space.slots}
    if set(widths) != set(ceilings) or not all(0 <= widths[name] <= most for name, most in ceilings.items()):
        raise UsageError(
            f"these widths do not fit {network.space.model}: each of its slots needs a width up to its ceiling"
        )


def _budget(budget: Budget | str) -> Budget:
    return Budget.parse(budget) if isinstance(budget, str) else budget


def _result(network: Traced, setting: Setting, schedule: Recipe, training: Training, on_epoch: OnEpoch) -> Result:
    try:
        _, done = train(
            lambda: network.build(training.widths, seed=training.seed),
            setting,
            schedule,
            seed=training.seed,
            on_epoch=lambda epoch: on_epoch(training.name, epoch),
        )
    except (DivergedError, OutOfMemoryError) as error:
        return Result(None, schedule.epochs, 0.0, error=str(error), diverged=isinstance(error, DivergedError))
    return Result(done[-1].val_accuracy, len(done), sum(epoch.seconds for epoch in done))


__all__ = [
    "Budget", "RunData", "Studied", "Trained", "Widths", "apply_rule", "fit_rule", "load_data", "load_net", "load_rule",
    "plan_search", "read_run", "run_search", "select", "study", "taper", "trace", "train_supernet", "train_widths",
    "uniform",
]  # fmt: skip
