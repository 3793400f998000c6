"""`search` from end to end: supernet -> widths and rule -> study -> finals -> evidence, each phase resumable alone.

Every phase reads what it needs from the run directory's files and writes there what it found, so running the same
command again does exactly what is missing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from optuna import Study

from prune_nas.config import FROM_SUPERNET, Config
from prune_nas.design import arms as arms_of
from prune_nas.design import family, rules
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.files import write_json
from prune_nas.design.patterns import pattern_of
from prune_nas.design.records import KEPT, TrialRow, write_table
from prune_nas.design.selection import Selection, best_channels
from prune_nas.design.space import Cost, Widths
from prune_nas.design.words import percent
from prune_nas.errors import PruneNasError
from prune_nas.nets.inherit import inherit
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores
from prune_nas.search import conclusion, estimate, study
from prune_nas.search.experiment import Experiment
from prune_nas.search.prior import PRIOR, Prior, priors_of
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import opened, refuse
from prune_nas.search.settling import ready
from prune_nas.search.setup import prepare
from prune_nas.search.spending import Spending
from prune_nas.search.timing import Conditions, conditions_of, timed
from prune_nas.search.weights import save_weights
from prune_nas.search.work import Result, Training
from prune_nas.training.loop import is_out_of_memory


def search(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the whole main job in the run directory at `path`.

    Raises:
        UsageError, MissingError, BudgetError: before anything is trained, where the request cannot be met.
    """
    with _begun(config, path, view) as job:
        estimate.announce(job, view)
        with job.crew:
            job.run_supernet()
            job.run_studies()
            job.run_finals()
        conclusion.conclude(job.run, job)


def dry_run(config: Config, path: Path, view: View) -> estimate.Steps:
    """What `search` would still train; trains nothing, and leaves the run directory as it is, or not there.

    Raises:
        UsageError, MissingError, BudgetError: where the request cannot be met.
        PruneNasError: the widest network does not fit into memory.
    """
    refuse(path)
    with TemporaryDirectory() as nowhere:
        copy = Path(nowhere) / "run"
        copy.mkdir()
        for name in _STATE if (path / "run.json").exists() else ():
            if (path / name).exists():
                shutil.copyfile(path / name, copy / name)
        try:
            with _begun(config, copy, view, tries=False) as job:
                estimate.remark(job, view)
                left = estimate.steps_left(job)
                estimate.advise(job, left, view)
                return left
        except PruneNasError as error:
            raise type(error)(str(error).replace(str(copy), str(path))) from None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise PruneNasError("the widest network does not fit into memory. Use a smaller --batch") from error


_STATE = (
    "run.json", "space.json", "scores.safetensors", "prior.json", "latency.json", "study.journal", "finals.csv",
)  # fmt: skip
"""The files that say what of a run is done, all of them small."""


@contextmanager
def _begun(config: Config, path: Path, view: View, *, tries: bool = True) -> Iterator[Search]:
    """The run at `path`, opened or made, when all that it needs was seen to be there."""
    device, data, traced = prepare(config)
    priors = priors_of(config, path, traced.space)
    if not priors or set(FROM_SUPERNET) & set(config.arms):
        penalties.check(config.penalty, traced.space, traced.template)
    for budget in config.budgets:
        if not budget.bounds_latency:
            budget.limits(traced.space)
    with opened(path, config) as run:
        if priors and not run.file(PRIOR).exists():
            write_json(run.file(PRIOR), [{"budget": budget, **prior.to_dict()} for budget, prior in priors.items()])
        traced = timed(run, traced, device, view)
        job = Search(run, traced, ready(run, traced, data, device, view, tries=tries), view, priors)
        for name, spending in job.spending.items() if job.studied else ():
            spending.check(name)
        yield job


@dataclass
class Search(Experiment):
    """A run under budgets of widths."""

    priors: Mapping[str, Prior] = field(default_factory=dict)
    """Budget -> its prior; empty without one."""

    @cached_property
    def limits(self) -> dict[str, Limits]:
        """Budget -> absolute limits."""
        return {str(budget): budget.limits(self.space) for budget in self.config.budgets}

    @cached_property
    def spending(self) -> dict[str, Spending]:
        """Budget -> what its study may cost."""
        images = len(self.setting.data.train)
        return {b: Spending(self.config, self.space, limits, images, self.scored) for b, limits in self.limits.items()}

    @property
    def conditions(self) -> Conditions:
        """What latencies are measured under."""
        return conditions_of(self.run, self.setting.device)

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

    def run_supernet(self) -> None:
        """Score the supernet's channels, unless their scores are there or not needed."""
        if self.scored:
            self.scoring.score()
        self.run.phase("supernet", "done" if self.scored else "skipped")

    @property
    def scores_are_there(self) -> bool:
        """Whether the supernet's scores are in their file, or not needed."""
        return not self.scored or self.run.file("scores.safetensors").exists()

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
        if budget not in self._rungs:
            journal, prior = self.run.file("study.journal"), self.centre(budget)
            names = str(budget), f"{budget} finalists"
            short, full = (study.open_study(journal, name, prior) for name in names)
            self._rungs[budget] = short, full
        return self._rungs[budget]

    @cached_property
    def _rungs(self) -> dict[Budget, tuple[Study, Study]]:
        return {}

    def found(self, budget: Budget) -> Widths | None:
        """The best finalist; where there was no second rung the best trial; None without a study."""
        if not self.studied:
            return None
        short, full = self.rungs(budget)
        return study.best(full if self.config.finalists and study.trained(full) else short)

    def studies_left(self, budget: Budget) -> tuple[int, int]:
        """Trials that the budget's study still lacks, and trainings of finalists: at most, shapes taken as uniform."""
        spending = self.spending[str(budget)]
        if not self.studied:
            return 0, 0
        if not ((self.scores_are_there or self.priors) and self.run.file("study.journal").exists()):
            return spending.expected()
        short, full = self.rungs(budget)
        trials, finalists = spending.expected(study.candidates(short))
        if trials and study.lacking(short, self.config.trials):
            return trials, max(finalists - len(study.trained(full)), 0)
        return 0, self._finalists(budget, []).left if self.config.finalists else 0

    def _first_rungs(self) -> None:
        config = self.config
        opened_studies = {budget: self.rungs(budget)[0] for budget in config.budgets}
        left = sum(self.studies_left(budget)[0] for budget in config.budgets)
        lanes = self.lanes(len(opened_studies))
        with self.view.phase("study", left * config.trial_epochs) as bar:
            sources = [self._trials(budget, opened_studies[budget], lanes, bar) for budget in config.budgets]
            self.crew.run(sources, partial(self._epoch, bar))
        self._write_trials()
        why = {
            "cost": f"--search-cost {config.search_cost:g} pays for no more",
            "candidates": "the space holds no more",
            "time": "the time is up",
        }
        for (budget, opened_study), source in zip(opened_studies.items(), sources, strict=True):
            if source.lacks:
                done = len(study.trained(opened_study))
                self.view.say(f"study {budget}: {done} of {config.trials} trials, since {why[source.lacks]}")
            self._doubt_ranking(budget, opened_study)

    def _doubt_ranking(self, budget: Budget, opened_study: Study) -> None:
        """Say that the order of the trials is noise, where none of them is better than guessing."""
        values = [trial.value for trial in study.trained(opened_study) if trial.value is not None]
        chance = self.setting.data.chance
        if values and not chance.is_beaten(max(values)):
            self.view.say(
                f"study {budget}: no trial learnt anything (the best has {percent(max(values))} on validation, "
                f"guessing gives {percent(chance.guessing)}). Their order is noise. Use --trial-epochs "
                f"{4 * self.config.trial_epochs} or more"
            )

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
            affordable=self.spending[str(budget)].affords,
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
        bars: list[Bar] = []
        sources = [self._finalists(budget, bars) for budget in self.config.budgets]
        with self.view.phase("finalists", sum(source.left for source in sources) * self.config.epochs) as bar:
            bars.append(bar)
            self.crew.run(sources, partial(self._epoch, bar))
        self._write_trials()
        for budget in self.config.budgets:
            compared = study.leaders(self.rungs(budget)[1], sys.maxsize)
            if compared and self.spending[str(budget)].even not in compared:
                self.view.say(
                    f"finalists {budget}: uniform scaling failed, so the found network was not compared with it"
                )

    def _finalists(self, budget: Budget, bars: list[Bar]) -> study.Finalists:
        """The second rung of a budget; its results go to the first of `bars`, which may come later."""
        config = self.config
        short, full = self.rungs(budget)
        study.best(short)  # says why if none succeeded
        spending = self.spending[str(budget)]
        leaders = [w for w in study.leaders(short, config.finalists + 1) if w != spending.even][: config.finalists]
        wanted = spending.finalists(study.candidates(short), leaders, study.finished(full))
        return study.Finalists(
            full,
            wanted,
            lambda number, widths, seed: self._training(budget, f"finalist {number}", widths, seed, config.epochs),
            on_trial=lambda training, result: self._after_trial(bars[0], training, result),
        )

    def _training(self, budget: Budget, name: str, widths: Widths, seed: int, epochs: int) -> Training:
        checkpoint = self.run.checkpoint(f"{name} {budget}")
        return Training(str(budget), name, f"{name} under {budget}", widths, seed, epochs, checkpoint)

    def _after_trial(self, bar: Bar, training: Training, result: Result) -> None:
        bar.ended(result.val_accuracy, training.spoken)
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
                {
                    "found": self.found(budget),
                    "transferred": self.transferred(budget),
                    "pruned": self.selections[str(budget)].widths if self.scored else None,
                },
                rule=self.rules[str(budget)].rule if self.scored else None,
                randoms=self.config.randoms,
                seed=self.config.seed,
                wanted=self.config.arms,
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

    def origin(self, job: arms_of.Job) -> Path | None:
        """The kept channels of the supernet at hand, which may have been trained again, for the inherited arm."""
        if job.schedule not in KEPT:
            return None
        path = self.run.file("starts") / f"{job.candidate}.safetensors"
        supernet = self.scoring.supernet()
        kept = best_channels(channel_scores(self.space, supernet), job.widths)
        save_weights(path, inherit(self.space, supernet, self.traced.build(job.widths, seed=0), kept))
        return path

    def cost(self, job: arms_of.Job) -> Cost:
        """What a job's network costs."""
        return self.space.cost(job.widths)

    def widths_of(self, budget: str, candidate: str | None) -> Widths:
        """The widths of a candidate, by its digest; the subject's by default."""
        arms = self.arms[budget]
        known = {widths.digest: widths for candidates in arms.values() for widths in candidates}
        return known[candidate] if candidate else arms[self.subject][0]

    def candidates(self) -> dict[str, dict[str, set[str]]]:
        """Budget -> arm -> the digests of its candidates."""
        return {b: {arm: {w.digest for w in ws} for arm, ws in arms.items()} for b, arms in self.arms.items()}
