"""`search` from end to end: supernet -> widths and rule -> study -> finals -> evidence, each phase resumable alone.

Every phase reads what it needs from the run directory's files and writes there what it found, so running the same
command again does exactly what is missing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from optuna import Study

from prune_nas.config import FROM_SUPERNET, Config
from prune_nas.design import arms as arms_of
from prune_nas.design import family, rules
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.evidence import retire
from prune_nas.design.files import write_json
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import project
from prune_nas.design.records import Curve, Final, TrialRow, read_table, write_table
from prune_nas.design.selection import Selection
from prune_nas.design.space import Space, Widths
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.search import conclusion, estimate, study
from prune_nas.search.crew import Alone, Crew, Workers
from prune_nas.search.finals import FINAL_SEEDS, FINALIST_SEEDS, Finals, checkpoint_of, name_of, owed
from prune_nas.search.prior import PRIOR, Prior, priors_of
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run, opened
from prune_nas.search.scoring import Scoring
from prune_nas.search.setup import crew_size, load_data, recipe_of, setting_of, trace_model
from prune_nas.search.timing import Conditions, conditions_of, timed
from prune_nas.search.work import Result, Training, Workplace
from prune_nas.training.loop import Epoch, Setting
from prune_nas.training.precision import choose_device


def search(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the whole main job in the run directory at `path`.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    recipe_of(config, config.epochs)
    device = choose_device(config.device)
    data = load_data(config)
    traced = trace_model(config, data)
    priors = priors_of(config, path, traced.space)
    traced.check(next(iter(data.train.batches(4, device=torch.device("cpu"))))[0])
    if not priors or set(FROM_SUPERNET) & set(config.arms):
        penalties.check(config.penalty, traced.space, traced.template)
    for budget in config.budgets:
        if not budget.bounds_latency:
            budget.limits(traced.space)
    with opened(path, config) as run:
        if priors and not run.file(PRIOR).exists():
            write_json(run.file(PRIOR), [{"budget": budget, **prior.to_dict()} for budget, prior in priors.items()])
        traced = timed(run, traced, device, view)
        job = Search(run, traced, setting_of(run, traced, data, device, view), view, priors)
        estimate.announce(job, view)
        with contextlib.closing(job.crew):
            job.run_supernet()
            job.run_studies()
            job.run_finals()
        conclusion.conclude(run, job)


@dataclass
class Search:
    """The phases of one run. What they found is in files; the cached properties only read them once."""

    run: Run
    traced: Traced
    setting: Setting
    view: View
    priors: Mapping[str, Prior] = field(default_factory=dict)
    """Budget -> its prior; empty without one."""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    @property
    def space(self) -> Space:
        """The run's space."""
        return self.traced.space

    @cached_property
    def limits(self) -> dict[str, Limits]:
        """Budget -> absolute limits."""
        return {str(budget): budget.limits(self.space) for budget in self.config.budgets}

    @property
    def conditions(self) -> Conditions:
        """What latencies are measured under."""
        return conditions_of(self.run, self.setting.device)

    @cached_property
    def curves(self) -> conclusion.Curves:
        """The training curves, appended as epochs end."""
        return conclusion.Curves(self.run.file("curves.csv"))

    @property
    def batch(self) -> int:
        """Images a step."""
        return recipe_of(self.config, 1).batch

    @cached_property
    def size(self) -> tuple[int, int]:
        """Workers, and the threads of each."""
        return crew_size(self.config, self.setting.device)

    @cached_property
    def crew(self) -> Crew:
        """What trains everything but the supernet; a worker starts when it is first needed."""
        workers, threads = self.size
        supernet = self.run.file("supernet.safetensors")
        if workers == 1:
            return Alone(Workplace(self.config, self.traced, self.setting, supernet))
        briefing = {
            "config": self.config.model_dump(mode="json"),
            "threads": threads,
            "device": str(self.setting.device),
            "precision": self.setting.precision.name,
            "fingerprint": self.setting.data.fingerprint,
            "supernet": str(supernet),
        }
        return Workers(workers, briefing)

    @property
    def scored(self) -> bool:
        """Whether the run has a supernet: without a prior always, with one if an arm asks for it."""
        asks = not self.priors or bool(set(FROM_SUPERNET) & set(self.config.arms))
        return asks or self.run.file("scores.safetensors").exists()

    @property
    def subject(self) -> str:
        """The arm that is compared with all others: found; without a study transferred; without a prior pruned."""
        if self.studied:
            return "found"
        return "transferred" if self.priors else "pruned"

    @property
    def studied(self) -> bool:
        """Whether the run has a study: once it was asked for trials, it has."""
        return bool(self.run.record["config"]["trials"])

    @cached_property
    def scoring(self) -> Scoring:
        """The supernet and what its scores give; only asked where the run is `scored`."""
        return Scoring(
            self.run, self.traced, self.setting, self.view, self.limits, partial(self._curve, "", "supernet")
        )

    def run_supernet(self) -> None:
        """Score the supernet's channels, unless their scores are there or not needed."""
        if self.scored:
            self.scoring.score()
        self.run.phase("supernet", "done" if self.scored else "skipped")

    # Selection and rule -------------------------------------------------------------------------------------------

    @property
    def selections(self) -> dict[str, Selection]:
        """Budget -> what the scores give under it: the `pruned` arm; nothing without a supernet."""
        return self.scoring.selections if self.scored else {}

    @cached_property
    def rules(self) -> dict[str, rules.Fit]:
        """Budget -> the stage-mean rule of its pruned widths."""
        return {b: rules.fit("stage-mean", [pattern_of(self.space, s.widths)]) for b, s in self.selections.items()}

    def transferred(self, budget: Budget) -> Widths | None:
        """The prior's rule on this network; None without a prior."""
        prior = self.priors.get(str(budget))
        return None if prior is None else rules.apply(prior.rule, self.space, self.limits[str(budget)])

    def centre(self, budget: Budget) -> Widths:
        """The widths that the study searches around: the transferred ones, else the pruned ones."""
        given = self.transferred(budget)
        return self.selections[str(budget)].widths if given is None else given

    # Study --------------------------------------------------------------------------------------------------------

    def run_studies(self) -> None:
        """One Optuna study per budget, until each has its trials; then the second rung of each."""
        if not self.studied:
            self.run.phase("study", "skipped")
            return
        self.run.phase("study", "running")
        self._first_rungs()
        if self.config.finalists:
            self._second_rungs()
        self.run.phase("study", "done")

    def rungs(self, budget: Budget) -> tuple[Study, Study]:
        """The two studies of a budget: short trainings of proposals, full ones of the best of them."""
        journal, prior = self.run.file("study.journal"), self.centre(budget)
        return study.open_study(journal, str(budget), prior), study.open_study(journal, f"{budget} finalists", prior)

    def found(self, budget: Budget) -> Widths | None:
        """The best finalist; without a second rung the best trial; None without a study."""
        if not self.studied:
            return None
        short, full = self.rungs(budget)
        return study.best(full if self.config.finalists else short)

    def _first_rungs(self) -> None:
        config = self.config
        opened_studies = {budget: self.rungs(budget)[0] for budget in config.budgets}
        left = sum(max(config.trials - len(study.trained(s)), 0) for s in opened_studies.values())
        lanes = math.ceil(self.size[0] / len(opened_studies))
        with self.view.phase("study", left * config.trial_epochs) as bar:
            sources = [self._trials(budget, opened_studies[budget], lanes, bar) for budget in config.budgets]
            self.crew.run(sources, partial(self._epoch, bar))
        self._write_trials()
        for budget, opened_study in opened_studies.items():
            done = len(study.trained(opened_study))
            if done < config.trials:
                why = "the time is up" if config.timeout else "the space holds no more"
                self.view.say(f"study {budget}: {done} of {config.trials} trials, since {why}")

    def _trials(self, budget: Budget, opened_study: Study, lanes: int, bar: Bar) -> study.Trials:
        config, limits, prior = self.config, self.limits[str(budget)], self.centre(budget)
        proposals = study.trials(
            opened_study,
            self.space,
            limits,
            prior,
            starts=self._starts(limits),
            seed=config.seed,
            sampler=config.sampler,
        )
        return study.Trials(
            opened_study,
            proposals,
            lambda number, widths: self._training(budget, f"trial {number}", widths, config.seed, config.trial_epochs),
            wanted=config.trials,
            lanes=lanes,
            timeout=config.timeout,
            on_trial=lambda training, result: self._after_trial(bar, training, result),
        )

    def _starts(self, limits: Limits) -> list[family.Point]:
        """Uniform, guided, pruned and the taper: the rivals are where the study begins."""
        taper = family.taper_point(self.space, rules.fit_taper(self.space, limits).ratio)
        return [family.UNIFORM, family.GUIDED, family.PRUNED, taper]

    def _second_rungs(self) -> None:
        """The best trials, and uniform beside them, trained as long as the base is, on seeds of their own.

        Short schedules favour shapes that learn fast over shapes that end high, and the seed that chose a candidate
        flatters it: the first rung alone would choose the wrong net wherever the budget leaves the shape free.
        """
        config = self.config
        seeds = [FINALIST_SEEDS + config.seed + i for i in range(config.finalist_seeds)]
        bars: list[Bar] = []
        sources = []
        for budget in config.budgets:
            short, full = self.rungs(budget)
            study.best(short)  # says why if none succeeded
            even = project(self.space, {slot.name: 1.0 for slot in self.space.slots}, self.limits[str(budget)])
            candidates = list(dict.fromkeys([even, *study.leaders(short, config.finalists)]))
            sources.append(
                study.Finalists(
                    full,
                    candidates,
                    seeds,
                    lambda number, widths, seed, budget=budget: self._training(  # type: ignore[misc]
                        budget, f"finalist {number}", widths, seed, config.epochs
                    ),
                    on_trial=lambda training, result: self._after_trial(bars[0], training, result),
                )
            )
        with self.view.phase("finalists", sum(source.left for source in sources) * config.epochs) as bar:
            bars.append(bar)
            self.crew.run(sources, partial(self._epoch, bar))
        self._write_trials()

    def _training(self, budget: Budget, name: str, widths: Widths, seed: int, epochs: int) -> Training:
        checkpoint = self.run.checkpoint(f"{name} {budget}")
        return Training(str(budget), name, f"{name} of {budget}", widths, seed, epochs, checkpoint)

    def _after_trial(self, bar: Bar, training: Training, result: Result) -> None:
        if result.error:
            self.view.say(f"{training.spoken} failed: {result.error}")
            bar.skip(training.epochs - result.epochs)
        self._write_trials()

    def _write_trials(self) -> None:
        """Write `trials.csv`; a trial's checkpoint goes only now that its study knows the result."""
        rows = []
        for budget in self.config.budgets:
            short, full = self.rungs(budget)
            first = len(short.get_trials(deepcopy=False))
            for name, rung, offset in (("trial", short, 0), ("finalist", full, first)):
                rows += study.rows(rung, self.space, str(budget), seed=self.config.seed, first=offset)
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
                transferred=self.transferred(budget),
                pruned=self.selections[str(budget)].widths if self.scored else None,
                rule=self.rules[str(budget)].rule if self.scored else None,
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
        if left:
            self._train_finals(left, table)
        self.run.phase("finals", "done")

    def _train_finals(self, left: Sequence[arms_of.Job], table: Path) -> None:
        self.run.phase("finals", "running")
        bars: list[Bar] = []
        finals = Finals(
            self.space,
            left,
            table=table,
            images=len(self.setting.data.train),
            checkpoint=lambda job: self.run.checkpoint(checkpoint_of(job)),
            weights=self.run.file("weights"),
            on_failure=lambda job, result: self._failed(bars[0], job, result),
        )
        if finals.inherits:
            self.scoring.supernet()
        self.run.note(data={**self.run.record["data"], "test": len(self.setting.data.open_test())})
        with self.view.phase("finals", finals.epochs) as bar:
            bars.append(bar)
            self.crew.run([finals], partial(self._epoch, bar))

    def _failed(self, bar: Bar, job: arms_of.Job, result: Result) -> None:
        """Note a final that failed; the others go on."""
        self.view.say(
            f"{job.arm} {job.schedule} seed {job.seed} of {job.budget} failed and is left out of the comparison: "
            f"{result.error}"
        )
        failure = {
            "error": result.error,
            "budget": job.budget,
            "arm": job.arm,
            "macs": self.space.cost(job.widths).macs,
            "epochs": result.epochs,
            "seconds": result.seconds,
        }
        self.run.note(failures={**self.run.record.get("failures", {}), name_of(job): failure})
        bar.skip(job.epochs - result.epochs)

    def _epoch(self, bar: Bar, training: Training, epoch: Epoch) -> None:
        self._curve(training.budget, training.name, epoch)
        bar.advance(f"{training.spoken}, epoch {epoch.number}: {100 * epoch.val_accuracy:.1f} % on validation")

    def _curve(self, budget: str, trial: str, epoch: Epoch) -> None:
        self.curves.add(
            Curve(budget, trial, epoch.number, epoch.train_loss, epoch.val_accuracy, round(epoch.seconds, 3))
        )
