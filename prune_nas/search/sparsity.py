"""Budgets of single weights: masks instead of widths, compared from scratch as widths are.

The supernet is the network itself, trained as usual. Its largest weights are the `pruned` mask, where those sit in the
kernels of each stage is a rule (`design.kernels`), and masks drawn from it are `guided`; drawn from another network's
they are `transferred`, from none `uniform`. Masked weights are multiplied all the same: the macs here are those of
a machine that could skip them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prune_nas.config import FROM_SUPERNET, Config
from prune_nas.design.answer import answer
from prune_nas.design.arms import UNIFORM, Job
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.files import write_json
from prune_nas.design.kernels import EVEN, Kernel, Mask, kernel_mean, planned
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.records import REWIND, Expense, Final, read_table, write_table
from prune_nas.design.space import Cost, Widths
from prune_nas.design.subject import Subject
from prune_nas.design.verdict import search_cost, verdict
from prune_nas.errors import UsageError
from prune_nas.nets.models.sources import runs_code
from prune_nas.pruning import magnitude
from prune_nas.search import conclusion, estimate
from prune_nas.search.experiment import Experiment
from prune_nas.search.kernel_rules import KernelPrior, Pruned, kept_priors, prune, pruned_before, read_kernel_prior
from prune_nas.search.prior import PRIOR
from prune_nas.search.progress import View
from prune_nas.search.rundir import opened
from prune_nas.search.settling import ready
from prune_nas.search.setup import prepare
from prune_nas.search.speed import seconds_per_image


def sparsify(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the comparison of masks in the run directory at `path`.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    device, data, traced = prepare(config)
    space = traced.space
    if space.widest != space.base:
        raise UsageError("budgets of single weights take the network as it is. Leave `widening` out of --space")
    own = magnitude.convolutions(space, magnitude.weights_of(space, traced.build(seed=0)))
    total = sum(kernel.weights for kernel in own)
    if not {"pruned", "guided"}.isdisjoint(config.arms):
        kernel_mean(own, {kernel.layer: np.ones(kernel.places, dtype=np.int64) for kernel in own}, space.stages)
    for budget in config.budgets:
        planned(EVEN, own, space.stages, budget.weights(total))
    priors = _priors(config, path, total)
    with opened(path, config) as run:
        if priors and not run.file(PRIOR).exists():
            write_json(run.file(PRIOR), [{"budget": b, **prior.to_dict()} for b, prior in priors.items()])
        job = Sparsity(run, traced, ready(run, traced, data, device, view), view, own, priors)
        _announce(job, view)
        with job.crew:
            job.run_supernet()
            job.run_finals()
        _conclude(job)


def _priors(config: Config, run: Path, total: int) -> dict[str, KernelPrior]:
    """Budget -> the prior as it was when the run was begun, else from its source; empty where none is asked for."""
    if config.prior is None:
        return {}
    if (run / PRIOR).is_file():
        return kept_priors(run / PRIOR, config.budgets)
    asked = Budget.parse(config.prior_budget) if config.prior_budget else None
    source = config.prior
    return {str(b): read_kernel_prior(source, (asked or b).share_of(total)) for b in config.budgets}


@dataclass
class Sparsity(Experiment):
    """A run under budgets of single weights."""

    kernels: list[Kernel] = field(default_factory=list)
    priors: Mapping[str, KernelPrior] = field(default_factory=dict)
    """Budget -> its prior; empty without one."""

    @cached_property
    def total(self) -> int:
        """The weights of all convolutions."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def limits(self) -> dict[str, Limits]:
        """Budget -> the number of weights that stay."""
        return {str(b): Limits((("weights", b.weights(self.total)),)) for b in self.config.budgets}

    @property
    def subject(self) -> str:
        """The arm that is compared with all others: transferred, or without a prior pruned."""
        return "transferred" if self.priors else "pruned"

    def run_supernet(self) -> None:
        """Train what magnitudes are read from, unless what follows from them is there already."""
        if self.scored:
            write_json(self.run.file("rule.json"), [{"budget": b, **one.to_dict()} for b, one in self.pruned.items()])
        self.run.phase("supernet", "done" if self.scored else "skipped")
        self.run.phase("study", "skipped")

    @cached_property
    def pruned(self) -> dict[str, Pruned]:
        """Budget -> what the network's own magnitudes leave; empty without a supernet."""
        if not self.scored:
            return {}
        before = pruned_before(self.run.file("rule.json"), self.kernels, list(self.limits))
        if before is not None:
            return before
        weights = magnitude.weights_of(self.space, self.scoring.supernet())
        return {budget: prune(self.space, weights, self._weights(budget)) for budget in self.limits}

    def _weights(self, budget: str) -> int:
        return int(dict(self.limits[budget].bounds)["weights"])

    @cached_property
    def arms(self) -> dict[str, dict[str, Mask]]:
        """Budget -> arm -> mask; the subject first."""
        made: dict[str, dict[str, Mask]] = {}
        for budget in self.limits:
            weights = self._weights(budget)
            own = {"transferred": Mask(weights, self.priors[budget].rule)} if self.priors else {}
            if self.scored:
                largest = Mask(weights, None, self.pruned[budget].masks)
                own |= {"pruned": largest, "guided": Mask(weights, self.pruned[budget].rule)}
            own[UNIFORM] = Mask(weights, EVEN)
            if self.scored:
                own["inherited"] = largest
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
        return dense if job.mask is None else self._left(dense, job.budget, job.mask)

    def _left(self, dense: Cost, budget: str, mask: Mask) -> Cost:
        if mask not in self._costs:
            if mask.rule is None:
                kept = self.pruned[budget].kept
            else:
                kept = planned(mask.rule, self.kernels, self.space.stages, mask.weights)
            self._costs[mask] = magnitude.cost(dense, self.kernels, kept)
        return self._costs[mask]

    @cached_property
    def _costs(self) -> dict[Mask, Cost]:
        return {}

    def origin(self, job: Job) -> Path | None:
        """The network that magnitudes are read from; none where masks are drawn."""
        if job.mask is None or job.mask.rule is not None:
            return None
        self.scoring.supernet()
        return self.run.file("supernet.safetensors")

    def widths_of(self, budget: str, candidate: str | None) -> Widths:
        """The network's own widths, whatever the mask."""
        return self.space.widest

    def about_weights(self, budget: str) -> dict[str, Any]:
        """How many of the convolutions' weights are not zero."""
        return {"weights": {"kept": self._weights(budget), "of": self.total}}

    def candidates(self) -> dict[str, dict[str, set[str]]]:
        """Budget -> arm -> the digest of its mask."""
        return {budget: {arm: {mask.digest} for arm, mask in arms.items()} for budget, arms in self.arms.items()}


def _announce(job: Sparsity, view: View) -> None:
    config, total = job.config, sum(kernel.weights for kernel in job.kernels)
    view.say(
        f"preset {config.preset}: {total:,} weights in {len(job.kernels)} convolutions. Run directory {job.run.path}"
    )
    workers, threads = job.size
    image = seconds_per_image(job, job.space.base, threads)
    own = [*(["transferred"] if job.priors else []), *(FROM_SUPERNET if job.scored else []), UNIFORM]
    arms = sum(arm in config.arms for arm in own)
    epochs = config.seeds * config.epochs * (len(config.budget) * arms + ("base" in config.arms)) / workers
    seconds = image * epochs
    if job.scored:
        seconds += seconds_per_image(job, job.space.base, torch.get_num_threads()) * config.supernet_epochs
    view.say(
        f"estimate: about {estimate.spoken(seconds * len(job.setting.data.train))} under scratch-e if nothing "
        "is done yet. Masks save no time here. Stop at any time, the same command resumes"
    )


def _add(job: Sparsity, budget: str, said: dict[str, Any], finals: list[Final]) -> None:
    """Add what is to be said of masks to a budget's verdict."""
    if job.subject == "transferred":
        said["headline"] = f"{conclusion.saved(job, finals)}{said['headline']}"
        said["sentences"] += conclusion.about_prior(job.priors[budget], job.space, finals)
    if job.scored and (empty := job.pruned[budget].empty):
        said["sentences"].append(
            f"The largest weights leave no weight in {', '.join(empty)}. No signal passes there, so the arms pruned "
            "and inherited lose accuracy."
        )
    said["sentences"].append(
        "Masked weights are still multiplied. Macs and train macs count what a machine would need that skips them."
    )


def _conclude(job: Sparsity) -> None:
    """Write every derived table and JSON file."""
    run = job.run
    finals = read_table(run.file("finals.csv"), Final)
    expenses = conclusion.spent(job, finals)
    write_table(run.file("ledger.csv"), Expense, expenses)
    verdicts: list[dict[str, Any]] = []
    for budget, arms in job.arms.items():
        limits, within, failed = job.limits[budget], set(arms), conclusion.failures(job, budget, finals)
        said = verdict(budget, limits, finals, within, failed, job.subject, chance=job.setting.data.chance)
        if said["learnt"]:
            _add(job, budget, said, finals)
        answered = answer(
            said,
            finals,
            Subject.from_dict(run.record["subject"]),
            file=f"{conclusion.place('deploy', len(verdicts))}.json",
            keeps={},
            timings={},
            search=search_cost(budget, expenses),
            noise="",
            model=job.space.model if runs_code(job.space.model) else "",
        )
        verdicts.append({**said, "answer": answered.to_dict(str(run.path))})
    write_json(run.file("verdict.json"), verdicts)
    conclusion.write_nets(job, verdicts, finals)
