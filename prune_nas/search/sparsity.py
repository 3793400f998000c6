"""Budgets of single weights: masks instead of widths, compared from scratch as widths are.

The supernet is the network itself, trained as usual. Its largest weights are the `pruned` mask, where those sit in the
kernels of each stage is a rule (`design.kernels`), and masks drawn from it are `guided`; drawn from another network's
they are `transferred`, from none `uniform`. Masked weights are multiplied all the same: the macs here are those of
a machine that could skip them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from prune_nas.config import Config
from prune_nas.design.arms import REWIND, UNIFORM, Job
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.files import write_json
from prune_nas.design.kernels import EVEN, Counts, Kernel, KernelMean, Mask, kernel_mean, planned
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.records import Expense, Final, read_table, write_table
from prune_nas.design.space import Cost, Widths
from prune_nas.design.verdict import unless_untrained, verdict
from prune_nas.pruning import magnitude
from prune_nas.search import conclusion, estimate
from prune_nas.search.experiment import Experiment
from prune_nas.search.kernel_rules import kernel_rule
from prune_nas.search.prior import PRIOR
from prune_nas.search.progress import View
from prune_nas.search.rundir import opened
from prune_nas.search.setup import prepare, setting_of


def sparsify(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the comparison of masks in the run directory at `path`.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    device, data, traced = prepare(config)
    priors = {} if config.prior is None else _priors(config, path)
    own = magnitude.kernels(traced.space, traced.build(traced.space.widest, seed=0))
    for budget in config.budgets:
        planned(EVEN, own, traced.space.stages, budget.weights(sum(kernel.weights for kernel in own)))
    with opened(path, config) as run:
        if priors and not run.file(PRIOR).exists():
            write_json(
                run.file(PRIOR), [{"budget": b, "source": config.prior, **rule.to_dict()} for b, rule in priors.items()]
            )
        job = Sparsity(run, traced, setting_of(run, traced, data, device, view), view, own, priors)
        _announce(job, view)
        with contextlib.closing(job.crew):
            job.run_supernet()
            job.run_finals()
        _conclude(job)


def _priors(config: Config, run: Path) -> dict[str, KernelMean]:
    """Budget -> the rule as it was when the run was begun, else from its source."""
    kept = run / PRIOR
    source = str(kept) if kept.is_file() else str(config.prior)
    return {str(budget): kernel_rule(source, budget) for budget in config.budgets}


@dataclass
class Sparsity(Experiment):
    """A run under budgets of single weights."""

    kernels: list[Kernel] = field(default_factory=list)
    priors: Mapping[str, KernelMean] = field(default_factory=dict)
    """Budget -> its prior; empty without one."""

    @property
    def limits(self) -> dict[str, Limits]:
        """Budget -> the number of weights that stay."""
        total = sum(kernel.weights for kernel in self.kernels)
        return {str(b): Limits((("weights", b.weights(total)),)) for b in self.config.budgets}

    @property
    def subject(self) -> str:
        """The arm that is compared with all others: transferred, or without a prior pruned."""
        return "transferred" if self.priors else "pruned"

    @cached_property
    def supernet(self) -> nn.Module:
        """The network itself, trained as usual; trained now if its file is not there."""
        return self.scoring.supernet()

    def run_supernet(self) -> None:
        """Train what magnitudes are read from, unless what follows from them is there already."""
        if self.scored:
            write_json(self.run.file("rule.json"), [{"budget": b, **r.to_dict()} for b, r in self.rules.items()])
        self.run.phase("supernet", "done" if self.scored else "skipped")
        self.run.phase("study", "skipped")

    @cached_property
    def rules(self) -> dict[str, KernelMean]:
        """Budget -> the rule of the network's own magnitudes; empty without a supernet."""
        if not self.scored:
            return {}
        recorded = self.run.file("rule.json")
        if recorded.is_file():
            return {budget: kernel_rule(str(recorded), Budget.parse(budget)) for budget in self.limits}
        return {
            b: kernel_mean(self.kernels, self._kept(mask), self.space.stages) for b, mask in self._largest().items()
        }

    def _largest(self) -> dict[str, Mask]:
        return {budget: Mask(self._weights(budget), None) for budget in self.limits}

    def _weights(self, budget: str) -> int:
        return int(dict(self.limits[budget].bounds)["weights"])

    def _kept(self, mask: Mask) -> Counts:
        if mask.rule is not None:
            return planned(mask.rule, self.kernels, self.space.stages, mask.weights)
        masks = magnitude.masks_of(mask, self.space, self.supernet, seed=0)
        return magnitude.count(masks, self.kernels)

    @cached_property
    def arms(self) -> dict[str, dict[str, Mask]]:
        """Budget -> arm -> mask; the subject first."""
        made: dict[str, dict[str, Mask]] = {}
        for budget in self.limits:
            weights = self._weights(budget)
            own = {"transferred": Mask(weights, self.priors[budget])} if self.priors else {}
            if self.scored:
                own |= {"pruned": Mask(weights, None), "guided": Mask(weights, self.rules[budget])}
            own[UNIFORM] = Mask(weights, EVEN)
            if self.scored:
                own["inherited"] = Mask(weights, None)
            made[budget] = own
        return made

    def jobs(self) -> list[Job]:
        """Every training that the finals were asked for, seed by seed."""
        config, base = self.config, self.space.cost(self.space.base).macs
        owed = []
        for seed in self.seeds():
            if "base" in config.arms:
                owed.append(Job("", "base", self.space.base, seed, "scratch-e", config.epochs))
            for budget, arms in self.arms.items():
                for arm, mask in arms.items():
                    if arm not in config.arms:
                        continue
                    plain = Job(budget, arm, self.space.widest, seed, REWIND, config.epochs, mask)
                    if arm == "inherited":
                        owed.append(plain)
                        continue
                    longer = scratch_b_epochs(config.epochs, base, self.cost(plain).macs)
                    for schedule in config.schedules:
                        lasting = longer if schedule == "scratch-b" else config.epochs
                        owed.append(replace(plain, schedule=schedule, epochs=lasting))
        return owed

    def cost(self, job: Job) -> Cost:
        """Macs and params with the masked weights left out: what a machine would pay that could skip them."""
        dense = self.space.cost(job.widths)
        return dense if job.mask is None else self._left(dense, job.mask)

    def _left(self, dense: Cost, mask: Mask) -> Cost:
        if mask not in self._costs:
            kept = self._kept(mask)
            gone = [(kernel.weights - int(kept[kernel.layer].sum()), kernel.positions) for kernel in self.kernels]
            self._costs[mask] = Cost(
                dense.macs - sum(weights * positions for weights, positions in gone),
                dense.params - sum(weights for weights, _ in gone),
            )
        return self._costs[mask]

    @cached_property
    def _costs(self) -> dict[Mask, Cost]:
        return {}

    def widths_of(self, budget: str, candidate: str | None) -> Widths:
        """The network's own widths, whatever the mask."""
        return self.space.widest

    def candidates(self) -> dict[str, dict[str, set[str]]]:
        """Budget -> arm -> the digest of its mask."""
        return {budget: {arm: {mask.digest} for arm, mask in arms.items()} for budget, arms in self.arms.items()}


def _announce(job: Sparsity, view: View) -> None:
    config, total = job.config, sum(kernel.weights for kernel in job.kernels)
    view.say(
        f"{job.space.model} on {job.setting.data.name}, preset {config.preset}: {total:,} weights in "
        f"{len(job.kernels)} convolutions; {len(job.setting.data.train)} training and {len(job.setting.data.val)} "
        f"validation images; run directory {job.run.path}"
    )
    workers, threads = job.size
    image = estimate.seconds_per_image(job, job.space.base, threads)
    arms = sum(arm in config.arms for arm in ("transferred", "pruned", "guided", UNIFORM, "inherited"))
    epochs = config.seeds * config.epochs * (len(config.budget) * arms + ("base" in config.arms)) / workers
    epochs += config.supernet_epochs if job.scored else 0
    view.say(
        f"estimate: about {estimate.spoken(image * epochs * len(job.setting.data.train))} under scratch-e if nothing "
        "is done yet; masks save no time here; stop at any time, the same command resumes"
    )


def _conclude(job: Sparsity) -> None:
    """Write every derived table and JSON file."""
    run = job.run
    finals = read_table(run.file("finals.csv"), Final)
    expenses = conclusion.spent(job, finals)
    write_table(run.file("ledger.csv"), Expense, expenses)
    failures = {name: failure["error"] for name, failure in run.record.get("failures", {}).items()}
    verdicts = []
    for budget, arms in job.arms.items():
        rule = arms[job.subject].rule or job.rules[budget]
        limits, within = job.limits[budget], set(arms)
        said = verdict(budget, limits, finals, expenses, rule.non_uniformity, within, failures, job.subject)
        if job.subject == "transferred":
            said["headline"] = f"{conclusion.saved(job, finals)}{said['headline']}"
        said["sentences"].append(
            "masked weights are multiplied all the same: macs and train macs are what skipping them would leave"
        )
        verdicts.append(unless_untrained(said, finals, job.space.classes))
    write_json(run.file("verdict.json"), verdicts)
    conclusion.write_nets(job, verdicts, finals)
