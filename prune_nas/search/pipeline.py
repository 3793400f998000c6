"""`search` from end to end: supernet -> widths and rule -> study -> finals -> evidence, each phase resumable alone.

Every phase reads what it needs from the run directory's files and writes there what it found, so running the same
command again does exactly what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from optuna import Study
from torch import nn

from prune_nas.config import Config
from prune_nas.design import arms as arms_of
from prune_nas.design import family, rules
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.diagnosis import cuts, diagnose
from prune_nas.design.evidence import retire
from prune_nas.design.ledger import train_macs
from prune_nas.design.projection import project
from prune_nas.design.records import Curve, Final, TrialRow, read_table, write_table
from prune_nas.design.selection import Selection, select
from prune_nas.design.space import Space, Widths
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import gamma_scores
from prune_nas.search import conclusion, estimate, study
from prune_nas.search.finals import FINAL_SEEDS, Finals, checkpoint_of, name_of, owed
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run, opened
from prune_nas.search.setup import load_data, recipe_of, setting_of, trace_model
from prune_nas.search.supernet import load_scores, load_weights, save_scores, save_weights, train_supernet
from prune_nas.training.loop import DivergedError, Epoch, OutOfMemoryError, Setting, train
from prune_nas.training.precision import choose_device


def search(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the whole main job in the run directory at `path`.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    recipe_of(config, config.epochs)
    penalties.check(config.penalty)
    device = choose_device(config.device)
    data = load_data(config)
    traced = trace_model(config, data)
    limits = {str(budget): budget.limits(traced.space) for budget in config.budgets}
    with opened(path, config) as run:
        job = Search(run, traced, limits, setting_of(run, traced, data, device, view), view)
        estimate.announce(job, view)
        job.run_supernet()
        job.run_studies()
        job.run_finals()
        conclusion.conclude(run, job)


@dataclass
class Search:
    """The phases of one run. What they found is in files; the cached properties only read them once."""

    run: Run
    traced: Traced
    limits: dict[str, Limits]
    setting: Setting
    view: View

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    @property
    def space(self) -> Space:
        """The run's space."""
        return self.traced.space

    @cached_property
    def curves(self) -> conclusion.Curves:
        """The training curves, appended as epochs end."""
        return conclusion.Curves(self.run.file("curves.csv"))

    @property
    def batch(self) -> int:
        """Images a step."""
        return recipe_of(self.config, 1).batch

    # Supernet -----------------------------------------------------------------------------------------------------

    @property
    def strength(self) -> float:
        """The penalty's lambda: as asked for, or scaled to the schedule."""
        if self.config.strength is not None:
            return self.config.strength
        return penalties.strength_for(recipe_of(self.config, self.config.supernet_epochs), len(self.setting.data.train))

    def run_supernet(self) -> None:
        """Score the supernet's channels, unless their scores are there."""
        target = self.run.file("scores.safetensors")
        if not target.exists():
            scores = gamma_scores(self.space, self._supernet())
            save_scores(target, scores, penalty=self.config.penalty, strength=self.strength)
        self.run.phase("supernet", "done")

    def _supernet(self) -> nn.Module:
        """The trained supernet; trained again if its file is not there, as in a run published without weights."""
        path, checkpoint = self.run.file("supernet.safetensors"), self.run.checkpoint("supernet")
        if not path.exists():
            self.run.phase("supernet", "running")
            self._train_supernet()
            self.run.phase("supernet", "done")
        checkpoint.unlink(missing_ok=True)
        network = self.traced.build(self.space.widest, seed=self.config.seed)
        network.load_state_dict(load_weights(path))
        return network

    def _train_supernet(self) -> None:
        config, run = self.config, self.run
        with self.view.phase("supernet", config.supernet_epochs) as bar:
            network, epochs = train_supernet(
                self.traced,
                self.setting,
                recipe_of(config, config.supernet_epochs),
                penalty=config.penalty,
                strength=self.strength,
                seed=config.seed,
                checkpoint=run.checkpoint("supernet"),
                on_epoch=lambda epoch: self._epoch(bar, "", "supernet", epoch),
            )
        widest = self.space.cost(self.space.widest).macs
        run.note(
            supernet={
                "penalty": config.penalty,
                "strength": self.strength,
                "epochs": len(epochs),
                "val_accuracy": epochs[-1].val_accuracy,
                "train_macs": train_macs(widest, len(self.setting.data.train), len(epochs)),
                "seconds": round(sum(epoch.seconds for epoch in epochs), 3),
            }
        )  # fmt: skip
        save_weights(run.file("supernet.safetensors"), network)

    # Selection and rule -------------------------------------------------------------------------------------------

    @cached_property
    def selections(self) -> dict[str, Selection]:
        """Budget -> what the scores give under it: the `pruned` arm and the study's prior."""
        scores = load_scores(self.run.file("scores.safetensors"), self.space)
        chosen = {b: select(self.space, scores, limits, by=self.config.selection) for b, limits in self.limits.items()}
        diagnosis = diagnose(self.space, scores, self.strength, chosen)
        self.run.note(
            diagnosis={"penalty": self.config.penalty, "strength": self.strength, **asdict(diagnosis)},
            cuts={b: [asdict(cut) for cut in cuts(self.space, scores, s)] for b, s in chosen.items()},
        )
        for sentence in diagnosis.sentences:
            self.view.say(f"diagnosis: {sentence}")
        return chosen

    @cached_property
    def rules(self) -> dict[str, rules.StageMean]:
        """Budget -> the stage-mean rule of its pruned widths."""
        return {b: rules.fit_stage_mean([(self.space, s.widths)]) for b, s in self.selections.items()}

    # Study --------------------------------------------------------------------------------------------------------

    def run_studies(self) -> None:
        """One Optuna study per budget, until each has its trials."""
        self.run.phase("study", "running")
        for budget in self.config.budgets:
            self._study(budget)
            self._finalists(budget)
        self.run.phase("study", "done")

    def rungs(self, budget: Budget) -> tuple[Study, Study]:
        """The two studies of a budget: short trainings of proposals, full ones of the best of them."""
        journal, prior = self.run.file("study.journal"), self.selections[str(budget)].widths
        return study.open_study(journal, str(budget), prior), study.open_study(journal, f"{budget} finalists", prior)

    def found(self, budget: Budget) -> Widths:
        """The best finalist; without a second rung the best trial."""
        short, full = self.rungs(budget)
        return study.best(full if self.config.finalists else short)

    def _finalists(self, budget: Budget) -> None:
        """The second rung: the best trials, and uniform beside them, trained as long as the base is.

        Short schedules favour shapes that learn fast over shapes that end high, so the first rung alone would choose
        the wrong net wherever the budget leaves the shape free.
        """
        if not self.config.finalists:
            return
        short, full = self.rungs(budget)
        study.best(short)  # says why if none succeeded
        even = project(self.space, {slot.name: 1.0 for slot in self.space.slots}, self.limits[str(budget)])
        candidates = list(dict.fromkeys([*study.leaders(short, self.config.finalists), even]))
        with self.view.phase(f"finalists {budget}", len(candidates) * self.config.epochs) as bar:
            study.run_finalists(
                full,
                candidates,
                lambda number, widths: self._trial(bar, str(budget), f"finalist {number}", widths, self.config.epochs),
            )
        self._write_trials()

    def _study(self, budget: Budget) -> None:
        config, limits, prior = self.config, self.limits[str(budget)], self.selections[str(budget)].widths
        opened_study, _ = self.rungs(budget)
        left = max(config.trials - len(study.trained(opened_study)), 0)
        proposals = study.trials(
            opened_study,
            self.space,
            limits,
            prior,
            starts=self._starts(limits),
            seed=config.seed,
            sampler=config.sampler,
        )
        with self.view.phase(f"study {budget}", left * config.trial_epochs) as bar:
            study.run(
                opened_study,
                proposals,
                lambda number, widths: self._trial(bar, str(budget), f"trial {number}", widths, config.trial_epochs),
                wanted=config.trials,
                timeout=config.timeout,
                on_trial=lambda trial: self._write_trials(),
            )
        self._write_trials()
        done = len(study.trained(opened_study))
        if done < config.trials:
            why = "the time is up" if config.timeout else "the space holds no more"
            self.view.say(f"study {budget}: {done} of {config.trials} trials, since {why}")

    def _starts(self, limits: Limits) -> list[family.Point]:
        """Uniform, guided, pruned and the taper: the rivals are where the study begins."""
        taper = family.taper_point(self.space, rules.fit_taper(self.space, limits).ratio)
        return [family.UNIFORM, family.GUIDED, family.PRUNED, taper]

    def _trial(self, bar: Bar, budget: str, name: str, widths: Widths, epochs: int) -> study.Outcome:
        config, checkpoint = self.config, self.run.checkpoint(f"{name} {budget}")
        start = time.perf_counter()
        try:
            _, done = train(
                lambda: self.traced.build(widths, seed=config.seed),
                self.setting,
                recipe_of(config, epochs),
                seed=config.seed,
                checkpoint=checkpoint,
                on_epoch=lambda epoch: self._epoch(bar, budget, name, epoch),
            )
        except (DivergedError, OutOfMemoryError) as error:
            self.view.say(f"{name} of {budget} failed: {error}")
            return study.Outcome(None, epochs, time.perf_counter() - start, str(error))
        return study.Outcome(done[-1].val_accuracy, len(done), sum(epoch.seconds for epoch in done))

    def _write_trials(self) -> None:
        """Write `trials.csv`; a trial's checkpoint goes only now that its study knows the result."""
        rows = []
        for budget in self.config.budgets:
            short, full = self.rungs(budget)
            rows += study.rows(short, self.space, str(budget))
            rows += study.rows(full, self.space, str(budget), first=len(short.get_trials(deepcopy=False)))
            for name, rung in (("trial", short), ("finalist", full)):
                for trial in study.trained(rung):
                    self.run.checkpoint(f"{name} {trial.number} {budget}").unlink(missing_ok=True)
        write_table(self.run.file("trials.csv"), TrialRow, rows)

    # Finals -------------------------------------------------------------------------------------------------------

    @cached_property
    def arms(self) -> dict[str, dict[str, list[Widths]]]:
        """Budget -> arm -> candidates; needs the study's end."""
        return {
            str(budget): arms_of.widths_of_arms(
                self.space,
                self.limits[str(budget)],
                found=self.found(budget),
                pruned=self.selections[str(budget)].widths,
                rule=self.rules[str(budget)],
                randoms=self.config.randoms,
                seed=self.config.seed,
            )
            for budget in self.config.budgets
        }

    def jobs(self) -> list[arms_of.Job]:
        """Every training that the finals were asked for."""
        return arms_of.jobs(
            self.space,
            self.arms,
            wanted=self.config.arms,
            schedules=self.config.schedules,
            seeds=self.seeds(),
            epochs=self.config.epochs,
        )

    def seeds(self) -> Sequence[int]:
        """The finals' seeds."""
        return [FINAL_SEEDS + self.config.seed + i for i in range(self.config.seeds)]

    def run_finals(self) -> None:
        """Train what is owed, on test data that nothing before has read."""
        table, jobs = self.run.file("finals.csv"), self.jobs()
        digests = {b: {arm: {w.digest for w in ws} for arm, ws in arms.items()} for b, arms in self.arms.items()}
        write_table(table, Final, retire(read_table(table, Final), digests))
        failed = self.run.record.get("failures", {})
        left = [job for job in owed(jobs, table) if name_of(job) not in failed]
        for job in set(jobs) - set(left):  # a process may have died between a row and the end of its checkpoint
            self.run.checkpoint(checkpoint_of(job)).unlink(missing_ok=True)
        if not left:
            self.run.phase("finals", "done")
            return
        self.run.phase("finals", "running")
        test = self.setting.data.open_test().to(self.setting.device)
        self.run.note(data={**self.run.record["data"], "test": len(test)})
        finals = Finals(
            self.traced,
            self.setting,
            recipe_of(self.config, self.config.epochs),
            test,
            table=table,
            checkpoint=lambda job: self.run.checkpoint(checkpoint_of(job)),
            weights=self.run.file("weights"),
            supernet=self._supernet() if any(job.arm == "inherited" for job in left) else None,
        )
        with self.view.phase("finals", sum(job.epochs for job in left)) as bar:
            for job in left:
                self._final(finals, job, bar)
        self.run.phase("finals", "done")

    def _final(self, finals: Finals, job: arms_of.Job, bar: Bar) -> None:
        """Train one job; a training that fails is noted, and the others go on."""
        name, end = name_of(job), bar.done + job.epochs
        spoken = f"{job.arm} {job.schedule} seed {job.seed}"
        try:
            finals.run(job, lambda epoch: self._epoch(bar, job.budget, name, epoch, spoken))
        except (DivergedError, OutOfMemoryError) as error:
            self.view.say(f"{spoken} of {job.budget} failed and is left out of the comparison: {error}")
            self.run.note(failures={**self.run.record.get("failures", {}), name: str(error)})
            self.run.checkpoint(checkpoint_of(job)).unlink(missing_ok=True)
        bar.reach(end)

    def _epoch(self, bar: Bar, budget: str, trial: str, epoch: Epoch, spoken: str = "") -> None:
        self.curves.add(
            Curve(budget, trial, epoch.number, epoch.train_loss, epoch.val_accuracy, round(epoch.seconds, 3))
        )
        bar.advance(f"{spoken or trial}, epoch {epoch.number}: {100 * epoch.val_accuracy:.1f} % on validation")
