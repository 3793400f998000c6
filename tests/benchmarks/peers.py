"""The accuracy that each way to a smaller net reaches for the same total compute, everything it does counted.

    python -m tests.benchmarks.peers --data-dir DIR --out results.jsonl [--model vgg16] [--width 0.25]
        [--budget macs=0.2] [--ways uniform,taper,...] [--seeds 0,1,2]
    python -m tests.benchmarks.peers --table results.jsonl > FILE.md

One ledger: macs of training (forward and backward, three times the forward's) and of every pass that a search makes
to measure something. Every way gets the same total, twice the base's own training, and spends what its search leaves on
the last training. Training, validation and test images, macs counter, recipe and loop are the same for all; the test
images are read once, at the end. A seed repeats the whole way, search included. A result that is in the file already is
not made again.

Ways: `uniform`, `taper`, `random` (one drawn shape) and `rule/NAME` (one of `artifacts/rules`, or of a run in
`artifacts/results`; what it was found for is not counted) spend everything on the training. `slim/F/X` trains a sparse
supernet for the fraction F of the total, prunes by cost-weighted selection, and either trains the widths from scratch
(X = scratch), or goes on from the kept weights (rewind), or does so with the supernet's softened answers beside the
labels (soft); `slimming/F/X` prunes by Network Slimming's plain threshold, `guided/F/X` by the fitted rule, `l1/F/X`
trains no sparse net and keeps the filters of a uniform one with the largest L1 norm. `tpe/N`, `random/N` and `tilt/N`
train N candidates for a tenth of the base's compute each (Optuna's TPE over a width a slot, projected onto the
budget; random shapes; the one-parameter family around uniform), then the best of them with the rest. Peers, with half
of the total for the training that they need, and the layers that no slot holds kept whole: `torch-pruning-slim/X`,
`torch-pruning-group/X` (torch-pruning: BNScalePruner with normalizer=None, and GroupNormPruner) and `fastnas/X`
(nvidia-modelopt, in steps of 8 channels, or of half the narrowest slot), their nets going on as their authors do
(tuned: a tenth of the learning rate in steps; fastnas: half of it, one cycle), under rewind, or from scratch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn import functional as F

from prune_nas.design import family, rules
from prune_nas.design.budget import Budget, Limits
from prune_nas.design.files import parse_json
from prune_nas.design.ledger import train_macs
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import project
from prune_nas.design.selection import best_channels, select
from prune_nas.design.space import Widths
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import Traced, trace
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores, weight_norms
from prune_nas.search.rundir import machine
from prune_nas.training.data import ImageSet, load
from prune_nas.training.loop import Penalty, Setting, accuracy, train
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import Recipe, recipe
from tests.benchmarks import rows

TOTAL = 2  # in trainings of the base
SHORT = 0.1  # of the base's compute: what a candidate of a study is trained for
_ARTIFACTS = Path(__file__).parents[2] / "artifacts"
TEMPERATURE, SOFT = 2.0, 0.5  # of the supernet's answers, and their share of the labels


@dataclass
class Ground:
    """What all ways share, and the ledger of one of them."""

    traced: Traced
    setting: Setting
    test: ImageSet
    limits: Limits
    base_epochs: int
    seed: int
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.space = self.traced.space
        self.images = len(self.setting.data.train)
        self.base_macs = self.space.cost(self.space.base).macs
        self.total = TOTAL * train_macs(self.base_macs, self.images, self.base_epochs)

    def epochs_left(self, macs: int) -> int:
        """Whole epochs that the rest of the ledger pays for."""
        return max(int((self.total - self.spent) // train_macs(macs, self.images, 1)), 1)

    def passes(self, macs: float, images: int) -> None:
        """Count forward passes."""
        self.spent += macs * images

    def fit(
        self,
        build: Callable[[], nn.Module],
        macs: int,
        schedule: Recipe,
        *,
        seed: int,
        penalty: Penalty | None = None,
        setting: Setting | None = None,
    ) -> tuple[nn.Module, float]:
        """The trained network and its accuracy on validation; counted."""
        self.spent += train_macs(macs, self.images, schedule.epochs)
        self.passes(macs, len(self.setting.data.val))
        network, epochs = train(build, setting or self.setting, schedule, seed=seed, penalty=penalty)
        return network, epochs[-1].val_accuracy

    def widths_within(self, keep: Mapping[str, float]) -> Widths:
        """Keep ratios brought onto the budget."""
        return project(self.space, keep, self.limits)

    @property
    def even(self) -> Widths:
        """The uniform net."""
        return self.widths_within({slot.name: 1.0 for slot in self.space.slots})


@dataclass(frozen=True)
class Net:
    """What a search gives: widths, and where to go on from, if not from fresh weights."""

    widths: Widths
    build: Callable[[], nn.Module] | None = None
    macs: int | None = None
    soft: nn.Module | None = None
    schedule: Callable[[int], Recipe] = lambda epochs: recipe("fast", epochs)


def last(ground: Ground, net: Net) -> nn.Module:
    """Train what was found with all that is left."""
    macs = net.macs or ground.space.cost(net.widths).macs
    setting = ground.setting
    if net.soft is not None:
        setting = softened(ground, net.soft)
    build = net.build or (lambda: ground.traced.build(net.widths, seed=1000 + ground.seed))
    schedule = net.schedule(ground.epochs_left(macs))
    return ground.fit(build, macs, schedule, seed=1000 + ground.seed, setting=setting)[0]


@torch.inference_mode()
def softened(ground: Ground, teacher: nn.Module) -> Setting:
    """The training images with the teacher's answers to the plain image mixed into their labels; one pass, counted."""
    teacher.eval()
    images = ground.setting.data.train
    answers = torch.cat([F.softmax(teacher(x) / TEMPERATURE, 1) for x, _ in images.batches(500)])
    ground.passes(ground.base_macs, len(images))
    hard = F.one_hot(images.labels, answers.shape[1]).float()
    labels = ((1 - SOFT) * hard + SOFT * answers).clone()
    return replace(ground.setting, data=replace(ground.setting.data, train=replace(images, labels=labels)))


# Without a search ----------------------------------------------------------------------------------------------------


def uniform(ground: Ground) -> Net:
    """One factor for all widths."""
    return Net(ground.even)


def taper(ground: Ground) -> Net:
    """One ratio from stage to stage."""
    return Net(rules.taper_widths(ground.space, ground.limits))


def ruled(ground: Ground, name: str) -> Net:
    """A rule that was found before, in a published file or in the files of a published run."""
    path = _ARTIFACTS / "rules" / f"{name}.json"
    found = parse_json((path if path.exists() else _ARTIFACTS / "results" / name / "rule.json").read_text())
    rule = rules.rule_from_dict(found if isinstance(found, dict) else found[0], name)
    return Net(rules.apply(rule, ground.space, ground.limits))


def random(ground: Ground) -> Net:
    """One random shape."""
    return Net(family.random_widths(ground.space, ground.limits, 100 + ground.seed))


# From a supernet -----------------------------------------------------------------------------------------------------


def supernet(ground: Ground, fraction: float, strength: float | None) -> nn.Module:
    """Trained for a fraction of the total, sparsely unless `strength` is 0."""
    schedule = recipe("fast", max(round(fraction * TOTAL * ground.base_epochs), 1))
    space, traced = ground.space, ground.traced
    pull = penalties.strength_for(schedule, ground.images) if strength is None else strength
    pressure = penalties.Pressure("l1" if pull else "none", pull)
    penalty = penalties.make(pressure, space, traced.template, schedule, ground.images)
    build = lambda: traced.build(space.widest, seed=ground.seed)  # noqa: E731
    return ground.fit(build, ground.base_macs, schedule, seed=ground.seed, penalty=penalty)[0]


def pruned(ground: Ground, fraction: str, end: str, shape: str) -> Net:
    """Widths from a supernet, and its channels if asked for."""
    network = supernet(ground, float(fraction), 0.0 if shape == "l1" else None)
    space = ground.space
    if shape == "l1":
        scores = weight_norms(space, network, power=1)
        widths = ground.even
    else:
        scores = channel_scores(space, network)
        by = "threshold" if shape == "slimming" else "per-cost"
        widths = select(space, scores, ground.limits, by=by).widths
        if shape == "guided":
            widths = rules.apply(rules.fit("stage-mean", [pattern_of(space, widths)]).rule, space, ground.limits)
    if end == "scratch":
        return Net(widths)
    kept = best_channels(scores, widths)

    def build() -> nn.Module:
        return inherit(space, network, ground.traced.build(widths, seed=0), kept)

    return Net(widths, build, soft=network if end == "soft" else None)


# Studies without a supernet ------------------------------------------------------------------------------------------


def studied(ground: Ground, count: str, kind: str) -> Net:
    """The best of some candidates by accuracy on validation after a short training each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = {
        "random": optuna.samplers.RandomSampler(seed=ground.seed),
        "tpe": optuna.samplers.TPESampler(seed=ground.seed, n_startup_trials=6),
        "tilt": optuna.samplers.TPESampler(seed=ground.seed, n_startup_trials=4),
    }[kind]
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space, done = ground.space, {}
    last_stage = max(space.stages - 1, 1)
    if kind == "tilt":
        study.enqueue_trial({"t": 0.0})

    def objective(trial: optuna.Trial) -> float:
        if kind == "tilt":
            t = trial.suggest_float("t", -1.5, 1.5)
            keep = {slot.name: float(np.exp(t * slot.stage / last_stage)) for slot in space.slots}
        else:
            keep = {slot.name: trial.suggest_float(slot.name, 0.1, 1.0) for slot in space.slots}
        widths = ground.widths_within(keep)
        if widths not in done:
            schedule = recipe(
                "fast", max(round(SHORT * ground.base_epochs * ground.base_macs / space.cost(widths).macs), 1)
            )
            build = lambda: ground.traced.build(widths, seed=ground.seed)  # noqa: E731
            done[widths] = ground.fit(build, space.cost(widths).macs, schedule, seed=ground.seed)[1]
        return done[widths]

    study.optimize(objective, n_trials=int(count))
    return Net(max(done, key=lambda widths: done[widths]))


# Peers ---------------------------------------------------------------------------------------------------------------


def _forward_only(schedule: str) -> Callable[[int], Recipe]:
    if schedule == "tuned":  # their scripts: a tenth of the learning rate, in steps
        return lambda epochs: replace(recipe("fast", epochs), lr=0.01, policy="step", label_smoothing=0.0)
    if schedule == "half":
        return lambda epochs: replace(recipe("fast", epochs), lr=0.05)
    return lambda epochs: recipe("fast", epochs)


def _widths_of(ground: Ground, network: nn.Module) -> Widths:
    """Read back from the layers of a peer's net."""
    found = {}
    for slot in ground.space.slots:
        layer: Any = network.get_submodule(slot.layers[0])
        found[slot.name] = layer.weight.shape[0]
    return Widths(found)


def torch_pruning(ground: Ground, end: str, kind: str) -> Net:
    """torch-pruning's regularised pruners, as its reproduce/main.py calls them."""
    import torch_pruning as tp

    space = ground.space
    network = ground.traced.build(space.base, seed=ground.seed)
    ours = {layer for slot in space.slots for layer in slot.layers}
    fixed = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n not in ours]
    x = torch.randn(1, *space.input_shape)
    schedule = recipe("fast", ground.base_epochs)
    if kind == "slim":
        pull = penalties.strength_for(schedule, ground.images)  # theirs, 1e-5, is for 100 epochs
        chosen = tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None)
        make = tp.pruner.BNScalePruner
    else:
        pull = 5e-4
        chosen = tp.importance.GroupMagnitudeImportance(p=2, normalizer="max")
        make = tp.pruner.GroupNormPruner
    pruner = make(network, x, importance=chosen, reg=pull, global_pruning=True, pruning_ratio=1.0,
                  iterative_steps=400, ignored_layers=fixed)  # fmt: skip
    ground.fit(lambda: network, ground.base_macs, schedule, seed=ground.seed,
               penalty=lambda model, lr: pruner.regularize(model))  # fmt: skip
    network.eval()
    while pruner.current_step < 400 and not ground.limits.admits(space.cost(_widths_of(ground, network))):
        pruner.step()
    widths = _widths_of(ground, network)
    assert sum(p.numel() for p in network.parameters()) == space.cost(widths).params, "it pruned what no slot holds"
    if end == "scratch":
        return Net(widths)
    return Net(widths, lambda: network, schedule=_forward_only(end))


def fastnas(ground: Ground, end: str) -> Net:
    """nvidia-modelopt's FastNAS: a sensitivity map of the trained net, then the best subnet under the bound."""
    import modelopt.torch.prune as mtp

    space = ground.space
    (kind, bound), *more = ground.limits.bounds
    assert not more, "FastNAS takes one bound"
    trained, _ = ground.fit(
        lambda: ground.traced.build(space.base, seed=ground.seed),
        ground.base_macs,
        recipe("fast", ground.base_epochs),
        seed=ground.seed,
    )
    network = trained.to(memory_format=torch.contiguous_format)
    images = ground.setting.data.val
    few = images.subset(torch.arange(min(500, len(images))))

    def score(model: nn.Module) -> float:
        ground.passes(ground.base_macs, len(few))  # an upper bound: its subnets are smaller
        model.eval()
        with torch.inference_mode():
            right = sum(int((model(x.contiguous()).argmax(1) == y).sum()) for x, y in few.batches(500))
        return right / len(few)

    config = mtp.fastnas.FastNASConfig()
    divisor = min(8, min(space.base.values()) // 2)
    config["nn.Conv2d"]["*"]["channel_divisor"] = divisor
    config["nn.BatchNorm2d"]["*"]["feature_divisor"] = divisor
    loader = [
        (x.contiguous(), y)
        for x, y in ground.setting.data.train.subset(torch.arange(min(1280, ground.images))).batches(64)
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found, _ = mtp.prune(
            model=network,
            mode=[("fastnas", config)],
            constraints={"flops": 2 * bound} if kind == "macs" else {"params": bound},
            dummy_input=torch.randn(1, *space.input_shape),
            config={"data_loader": loader, "score_func": score, "checkpoint": f"{folder}/map.pth",
                    "max_iter_data_loader": len(loader)},
        )  # fmt: skip
    widths = _widths_of(ground, found)
    if end == "scratch":
        return Net(widths)
    state = {name: value.detach().clone() for name, value in found.state_dict().items()}

    def build() -> nn.Module:
        plain = ground.traced.build(widths, seed=0)
        plain.load_state_dict(state)
        return plain

    return Net(widths, build, schedule=_forward_only("half" if end == "tuned" else end))


WAYS: Mapping[str, Callable[..., Net]] = {
    "uniform": uniform,
    "taper": taper,
    "rule": ruled,
    "random": lambda ground, count=None: studied(ground, count, "random") if count else random(ground),
    "tpe": lambda ground, count: studied(ground, count, "tpe"),
    "tilt": lambda ground, count: studied(ground, count, "tilt"),
    "slim": lambda ground, fraction, end: pruned(ground, fraction, end, "slim"),
    "slimming": lambda ground, fraction, end: pruned(ground, fraction, end, "slimming"),
    "guided": lambda ground, fraction, end: pruned(ground, fraction, end, "guided"),
    "l1": lambda ground, fraction, end: pruned(ground, fraction, end, "l1"),
    "torch-pruning-slim": lambda ground, end: torch_pruning(ground, end, "slim"),
    "torch-pruning-group": lambda ground, end: torch_pruning(ground, end, "group"),
    "fastnas": fastnas,
}


def go(way: str, ground: Ground) -> dict[str, Any]:
    """Everything from the first training to the test images."""
    start = time.perf_counter()
    name, *parameters = way.split("/")
    net = WAYS[name](ground, *parameters)
    searched = ground.spent
    network = last(ground, net)
    cost = ground.space.cost(net.widths)
    return {
        "way": way,
        "seed": ground.seed,
        "widths": dict(net.widths),
        "macs": cost.macs / ground.base_macs,
        "params": cost.params / ground.space.cost(ground.space.base).params,
        "searched": searched / ground.total,
        "spent": ground.spent / ground.total,
        "val": accuracy(network, ground.setting.data.val, ground.setting),
        "test": accuracy(network, ground.test, ground.setting),
        "seconds": time.perf_counter() - start,
    }


def run(given: argparse.Namespace) -> Iterator[rows.Row]:
    """What is not in the file yet."""
    done = rows.read(given.out)
    data = load("cifar10", data_dir=given.data_dir, train_size=given.images, val_size=given.images // 4, download=False)
    setting = Setting(data, torch.device("cpu"), Precision("fp32"))
    about = {name: getattr(given, name) for name in rows.GROUP}
    traced = trace(given.model, input_shape=data.input_shape, classes=10, base_width=given.width)
    limits = Budget.parse(given.budget).limits(traced.space)
    test = data.open_test()
    for seed in map(int, given.seeds.split(",")):
        for way in given.ways.split(","):
            if not rows.has(done, {**about, "way": way, "seed": seed}):
                ground = Ground(traced, setting, test, limits, given.epochs, seed)
                yield {**about, **go(way, ground), "machine": machine()["cpu"], "torch": torch.__version__}


def table(path: Path) -> Iterator[str]:
    """A row a way, the best first."""
    for (model, width, budget, images, epochs), own in rows.groups(rows.read(path)).items():
        yield f"## {model} x {width:g}, {budget}: {images:,} training images, {TOTAL} x {epochs} base epochs in all\n"
        yield "| way | n | test, % | minus uniform, points [95 % interval] | of it searching | macs | params |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for way, results, cells in rows.ranked(own, "way"):
            yield (
                f"| {way} | {cells} | {fmean(r['searched'] for r in results):.0%} "
                f"| {fmean(r['macs'] for r in results):.1%} | {fmean(r['params'] for r in results):.1%} |"
            )
        yield ""


def main() -> None:
    """Measure, or print the table."""
    parser = rows.parser(__doc__)
    parser.add_argument("--ways", default="uniform,taper")
    given = parser.parse_args()
    if given.table:
        sys.stdout.write("\n".join(table(given.table)) + "\n")
        return
    torch.set_num_threads(given.threads)
    rows.keep(given.out, run(given), "way")


if __name__ == "__main__":
    main()
