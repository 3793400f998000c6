"""`compare`: pruning methods at ratios on one network, under the paper's schedules, beside shapes that need no search.

For every seed a network is trained (under the penalty that the method needs), pruned, and what is left is fine-tuned,
retrained, and trained from scratch: the spread over seeds is that of the whole procedure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from prune_nas.config import Config
from prune_nas.design import ledger
from prune_nas.design.arms import UNIFORM, Job
from prune_nas.design.budget import Limits
from prune_nas.design.cases import Case, Net, lasting, rivals
from prune_nas.design.files import write_json
from prune_nas.design.kernels import EVEN, Kernel, Mask, planned
from prune_nas.design.records import KEPT, SCHEMA, Final
from prune_nas.design.space import Cost, Widths
from prune_nas.errors import PruneNasError
from prune_nas.nets.inherit import inherit
from prune_nas.pruning import magnitude, penalties, sss
from prune_nas.pruning.methods import METHODS
from prune_nas.pruning.penalties import Pressure
from prune_nas.pruning.scaling import SCALINGS
from prune_nas.search import conclusion
from prune_nas.search.case_conclusion import conclude
from prune_nas.search.experiment import Experiment
from prune_nas.search.finals import failure_of, owed, weights_of
from prune_nas.search.origins import Origin, Origins, origin_of
from prune_nas.search.plan import announce, check, fitting
from prune_nas.search.progress import View
from prune_nas.search.rundir import opened, read_json
from prune_nas.search.settling import ready
from prune_nas.search.setup import prepare, recipe_of
from prune_nas.search.weights import load_weights, save_weights
from prune_nas.search.work import Result
from prune_nas.training import recipe as recipes

PRUNED = "pruned.json"
_MOST = 0.7  # of the channels that a penalty shall take, whatever the ratios are
_IMAGES = 128  # that ThiNet and regression look at
_STREAM = 104_729  # random shapes of a seed are drawn from here on


def compare(config: Config, path: Path, view: View) -> None:
    """Do, or finish, the comparison in the run directory at `path`.

    Raises:
        UsageError, MissingError: before anything is trained, where the request cannot be met.
    """
    device, data, traced = prepare(config)
    config = fitting(config, traced, view.say)
    check(config, traced)
    with opened(path, config) as run:
        job = Compare(run, traced, ready(run, traced, data, device, view), view)
        announce(job, view)
        with job.crew:
            job.prune()
            if not job.nets:
                raise PruneNasError(
                    "nothing could be pruned, since every network's training failed. What was wrong is said above and "
                    "in run.json: repeat the command with a lower --lr or --precision fp32 under another --run"
                )
            job.run_finals()
        conclude(job)


@dataclass
class Compare(Experiment):
    """A run that compares pruning methods; a case stands where other runs have a budget."""

    @property
    def limits(self) -> Mapping[str, Limits]:
        """Nothing: ratios bound channels, not costs."""
        return {}

    @property
    def cases(self) -> list[Case]:
        """What this call asks for."""
        return [Case.parse(text) for text in self.config.cases]

    @cached_property
    def kernels(self) -> list[Kernel]:
        """The network's convolutions."""
        return magnitude.convolutions(self.space, magnitude.weights_of(self.space, self.traced.build(seed=0)))

    @property
    def total(self) -> int:
        """The weights of all convolutions."""
        return sum(kernel.weights for kernel in self.kernels)

    # The networks that are pruned ---------------------------------------------------------------------------------

    def pressure(self, penalty: str, ratio: str) -> Pressure:
        """The penalty that a network is trained under: as strong as asked for, else as published, or until enough goes.

        All ratios of Network Slimming prune one network, which loses as many channels as the largest of them took when
        the first such network was begun: seeds and ratios that are added later compare with it.
        """
        config = self.config
        recipe, images = recipe_of(config, config.epochs, penalty=penalty), len(self.setting.data.train)
        if penalty in SCALINGS:
            asked = config.sss_strength
            strength = sss.strength_for(recipe, images) if asked is None else asked
            return Pressure(penalty, strength, float(ratio))
        if config.strength is None and config.recipe == "paper" and config.epochs == recipes.RECIPES["paper"].epochs:
            return Pressure(penalty, penalties.published(config.model))
        ratios = [float(case.ratio) for case in self.cases if METHODS[case.method].penalty == penalty]
        share = self.run.record.get("shares", {}).get(penalty, min(max(ratios, default=_MOST), _MOST))
        return penalties.pressure_for(penalty, recipe, images, strength=config.strength, share=share)

    def source(self, case: Case, seed: int) -> Origin:
        """The network that a case prunes."""
        return origin_of(case, seed, self.pressure)

    def file_of(self, origin: Origin) -> Path:
        """Where the weights of a network to prune are; one without a penalty is the base of that seed."""
        if origin.pressure is None:
            return self.run.file("weights") / weights_of(self._base(origin.seed).training)
        return self.run.file("origins") / f"{origin.name}-{origin.seed}.safetensors"

    def start_of(self, case: Case, seed: int) -> Path:
        """Where the weights are that a case left of a network."""
        return self.run.file("starts") / f"{case}-{seed}.safetensors"

    def _base(self, seed: int) -> Job:
        return Job("", "base", self.space.base, seed, "scratch-e", self.config.epochs)

    def prune(self) -> None:
        """Train the networks that are to be pruned, and prune them, unless what follows from them is there."""
        missing = [(case, seed) for case in self.cases for seed in self.seeds() if not self._has(case, seed)]
        self._train_origins(list(dict.fromkeys(self.source(case, seed) for case, seed in missing)))
        self.run.phase("supernet", "done")
        self.run.phase("study", "skipped")
        left = [(case, seed) for case, seed in missing if self.file_of(self.source(case, seed)).exists()]
        with self.view.phase("pruning", len(left), "networks") as bar:
            for case, seed in left:
                self._keep(self._pruned(case, seed))
                bar.advance(f"{case} seed {seed}")

    def _has(self, case: Case, seed: int) -> bool:
        """Whether a case's net is known, and its weights are there if a training that is owed needs them."""
        if (str(case), seed) not in self.nets:
            return False
        jobs = owed(self._jobs_of(case, seed), self.run.file("finals.csv"))
        files = [path for job in jobs if (path := self.origin(job)) is not None]
        return all(path.exists() for path in files)

    def _train_origins(self, wanted: list[Origin]) -> None:
        """Train those that are not there; a plain one is the base of its seed. What diverged is not tried again."""
        noted, failed = self.run.record.get("origins", {}), self.run.record.get("failures", {})
        alive = [
            one
            for one in wanted
            if not noted.get(one.key, {}).get("diverged")
            and (one.pressure is not None or not failed.get(failure_of(self._base(one.seed)), {}).get("diverged"))
        ]
        plain = [self._base(one.seed) for one in alive if one.pressure is None]
        bases = owed(plain, self.run.file("finals.csv"))
        seeds = {job.seed for job in bases}
        again = [
            one for one in alive if not self._is_there(one) and (one.pressure is not None or one.seed not in seeds)
        ]
        if not (bases or again):
            return
        begun = {one.name: one.pressure.share for one in again if one.pressure and one.name not in SCALINGS}
        self.run.note(shares={**begun, **self.run.record.get("shares", {})})
        self.run.phase("supernet", "running")
        origins = Origins(
            again,
            self.space.widest,
            self.config.epochs,
            checkpoint=lambda origin: self.run.checkpoint(origin.key.replace("/", "-")),
            weights=self.file_of,
            on_result=self._note,
        )
        self._train("networks to prune", bases, beside=[origins])

    def _is_there(self, origin: Origin) -> bool:
        """Whether its weights are, and what they cost is written down."""
        known = origin.pressure is None or origin.key in self.run.record.get("origins", {})
        return known and self.file_of(origin).exists()

    def failures(self, case: str, finals: Sequence[Final]) -> dict[str, str]:
        """Which trainings of a case failed, and why: its own, the base's, and those of the networks it prunes."""
        noted = self.run.record.get("origins", {})
        sources = [self.source(Case.parse(case), seed) for seed in self.seeds()]
        lost = {f"network to prune ({one.name}) seed {one.seed}": noted.get(one.key, {}) for one in sources}
        return {name: one["error"] for name, one in lost.items() if "error" in one} | conclusion.failures(
            self, case, finals
        )

    def _note(self, origin: Origin, result: Result) -> None:
        """Write down what became of a network that was trained to be pruned."""
        macs = ledger.train_macs(self.space.cost(self.space.base).macs, len(self.setting.data.train), result.epochs)
        before = self.run.record.get("origins", {}).get(origin.key, {"train_macs": 0, "seconds": 0.0})
        about = {
            "name": origin.name,
            "strength": result.strength
            if result.strength is not None
            else origin.pressure and origin.pressure.strength,
            "val_accuracy": result.val_accuracy,
            "epochs": result.epochs,
            "train_macs": before["train_macs"] + macs,  # an attempt that failed was paid for, too
            "seconds": before["seconds"] + result.seconds,
        }
        if result.error:
            about |= {"error": result.error, "diverged": result.diverged}
            self.view.say(f"{origin.key} failed, so nothing is pruned from it: {result.error}")
        self.run.note(origins={**self.run.record.get("origins", {}), origin.key: about})

    # What was pruned ----------------------------------------------------------------------------------------------

    @cached_property
    def nets(self) -> dict[tuple[str, int], Net]:
        """(case, seed) -> what was left, as `pruned.json` has it."""
        path = self.run.file(PRUNED)
        items = read_json(path)["nets"] if path.is_file() else []
        return {(net.case, net.seed): net for net in map(Net.from_dict, items)}

    def _keep(self, net: Net) -> None:
        self.nets[net.case, net.seed] = net
        self._arms.pop((net.case, net.seed), None)
        write_json(self.run.file(PRUNED), {"schema": SCHEMA, "nets": [one.to_dict() for one in self.nets.values()]})

    @torch.no_grad()
    def _pruned(self, case: Case, seed: int) -> Net:
        """Prune a trained network, and keep the weights that are left."""
        method, space = METHODS[case.method], self.space
        source = self.traced.build(space.widest, seed=0)
        source.load_state_dict(load_weights(self.file_of(self.source(case, seed))))
        if method.choose is None:
            return self._masked(case, seed, magnitude.weights_of(space, source))
        source.to(self.setting.device)
        images = self._images(seed)
        chosen = method.choose(space, source, case.ratio, images)
        if not space.shuffles:
            narrow = inherit(space, source.cpu(), self.traced.build(chosen.widths, seed=0), chosen.kept)
            if method.mend is not None:
                both = source.to(self.setting.device), narrow.to(self.setting.device)
                method.mend(space, *both, chosen, images)
            save_weights(self.start_of(case, seed), narrow)
        if method.unit == "blocks":
            removed = len(space.gone(chosen.widths)) / len(space.branches)
        else:
            removed = 1 - sum(chosen.widths.values()) / sum(slot.ceiling for slot in space.slots)
        return Net(str(case), seed, chosen.widths, None, "", chosen.floored, removed, method.unit)

    def _masked(self, case: Case, seed: int, weights: Mapping[str, Tensor]) -> Net:
        many = self._weights(case)
        masks = magnitude.by_magnitude(weights, many)
        counts = magnitude.count(masks, self.kernels)
        kept = {layer: tuple(map(int, places)) for layer, places in counts.items()}
        empty = tuple(layer for layer, places in kept.items() if not any(places))
        return Net(str(case), seed, None, kept, magnitude.digest(masks), empty, 1 - many / self.total, "weights")

    def _weights(self, case: Case) -> int:
        return max(round((1 - float(case.ratio)) * self.total), len(self.kernels))

    def _images(self, seed: int) -> Tensor:
        """Random training images as the network sees them, without augmentation."""
        train, generator = self.setting.data.train, torch.Generator().manual_seed(seed)
        many = min(_IMAGES, len(train))
        return next(iter(train.batches(many, device=self.setting.device, generator=generator)))[0]

    # Finals -------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """Every training that the finals were asked for, seed by seed."""
        made = []
        for seed in self.seeds():
            if "base" in self.config.arms:
                made.append(self._base(seed))
            for case in self.cases:
                if (str(case), seed) in self.nets:
                    made += self._jobs_of(case, seed)
        return made

    def _jobs_of(self, case: Case, seed: int) -> list[Job]:
        config, net = self.config, self.nets[str(case), seed]
        made = []
        for arm, found in self.arms_of(net).items():
            if arm.partition("@")[0] not in config.arms:
                continue
            for widths, mask in found:
                plain = Job(str(case), arm, widths, seed, "", config.epochs, mask)
                own = [s for s in config.schedules if arm == "pruned" or s not in KEPT]
                made += [replace(plain, schedule=s, epochs=self._epochs(plain, s)) for s in own]
        return made

    def _epochs(self, job: Job, schedule: str) -> int:
        config = self.config
        return lasting(
            schedule,
            self.cost(job),
            self.space.cost(self.space.base),
            epochs=config.epochs,
            tuning=config.tuning_epochs,
            cap=config.scratch_b_cap,
            add=config.scratch_b_tuning,
        )

    def arms_of(self, net: Net) -> dict[str, list[tuple[Widths, Mask | None]]]:
        """Arm -> the networks that stand beside a pruned one, itself the first."""
        known = self._arms.get((net.case, net.seed))
        if known is None:
            known = self._arms[net.case, net.seed] = self._beside(net)
        return known

    @cached_property
    def _arms(self) -> dict[tuple[str, int], dict[str, list[tuple[Widths, Mask | None]]]]:
        return {}

    def _beside(self, net: Net) -> dict[str, list[tuple[Widths, Mask | None]]]:
        if net.widths is None:
            many = self._weights(Case.parse(net.case))
            masks = {"pruned": Mask(many, None, net.masks), UNIFORM: Mask(many, EVEN)}
            return {arm: [(self.space.widest, mask)] for arm, mask in masks.items()}
        wanted = {*self.config.arms, *self.run.record["config"]["arms"]}
        if net.unit == "blocks":
            wanted -= {"guided"}  # which blocks went is no share of their channels
        others = rivals(
            self.space, net.widths, wanted=wanted, randoms=self.config.randoms, seed=_STREAM + 97 * net.seed
        )
        return {arm: [(w, None) for w in found] for arm, found in {"pruned": [net.widths], **others}.items()}

    def case_of(self, job: Job) -> tuple[str, str]:
        """The method and the ratio of a job; empty for the base."""
        return Case.parse(job.budget) if job.budget else ("", "")

    def origin(self, job: Job) -> Path | None:
        """What a pruned net's weights, or its mask, come from."""
        if job.arm != "pruned":
            return None
        case = Case.parse(job.budget)
        if job.mask is not None:
            return self.file_of(self.source(case, job.seed))
        return self.start_of(case, job.seed) if job.schedule in KEPT else None

    def weights(self, job: Job) -> Path | None:
        """Everybody's trained weights are kept: the base is what some methods prune."""
        return self.run.file("weights") / weights_of(job.training)

    def cost(self, job: Job) -> Cost:
        """Macs and params; masked weights are left out, as a machine could that skips them."""
        dense = self.space.cost(job.widths)
        if job.mask is None:
            return dense
        if job.mask.rule is None:
            kept = magnitude.as_counts(self.nets[job.budget, job.seed].kept or {})
        else:
            kept = planned(job.mask.rule, self.kernels, self.space.stages, job.mask.weights)
        return magnitude.cost(dense, self.kernels, kept)

    def widths_of(self, budget: str, candidate: str | None) -> Widths:
        """The widths of a case's pruned net, by its digest."""
        own = [net for net in self.nets.values() if net.case == budget and net.widths is not None]
        by_digest = {net.widths.digest: net.widths for net in own if net.widths is not None}
        return by_digest.get(candidate or "", next(iter(by_digest.values()), self.space.widest))

    def about_weights(self, budget: str) -> dict[str, object]:
        """How many of the convolutions' weights are not zero, where single weights were pruned."""
        case = Case.parse(budget)
        if METHODS[case.method].choose is not None:
            return {}
        return {"weights": {"kept": self._weights(case), "of": self.total}}

    def candidates(self) -> dict[str, dict[str, set[str]]]:
        """Case -> arm -> the digests of its candidates over the seeds."""
        found: dict[str, dict[str, set[str]]] = {}
        for net in self.nets.values():
            for arm, own in self.arms_of(net).items():
                digests = {mask.digest if mask else widths.digest for widths, mask in own}
                found.setdefault(net.case, {}).setdefault(arm, set()).update(digests)
        return found
