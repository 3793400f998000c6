"""What each part of a search is worth: shapes, supernets and cheap measures, each against the same training.

    python -m tests.benchmarks.ablation --data-dir DIR --out shapes.jsonl [--model vgg16] [--width 0.25]
        [--budget macs=0.2] [--names uniform,taper,...] [--seeds 0,1,2] [--randoms 20]
    python -m tests.benchmarks.ablation --table shapes.jsonl > FILE.md

Every shape meets the budget and is trained from scratch for the base's own compute (scratch-b): its `test` is what the
shape is worth, whatever it cost to find. Beside it stand the cheap measures that a study could use in its place: the
accuracy on validation after short complete schedules (`rungs`, in trainings of the base), and that of the supernet's
weights in the shape's channels, BatchNorm's statistics taken anew (`inherited`). `searched` is what finding the shape
cost, in trainings of the base. A result that is in the file already is not made again.

Shapes: `uniform`; `taper`; `tilt/T` (keep ratios exp(T * stage / last)); `random/I`; from a sparse supernet of the
base's epochs: `per-cost` (selection by gain per cost), `threshold` (Network Slimming's own), `stage-mean` and
`depth-curve` (rules fitted on per-cost); `cost-penalty` (the penalty weighs a channel by its macs); `sparse/F`
(per-cost after a complete schedule of the fraction F of the epochs); `dense` (per-cost without a penalty);
`transferred` (the stage means of a VGG-11 on CIFAR-100; its cost is not counted).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from prune_nas.design import family, rules
from prune_nas.design.budget import Budget
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import project
from prune_nas.design.selection import best_channels, select
from prune_nas.design.space import Widths
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import Traced, trace
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores
from prune_nas.search.rundir import machine
from prune_nas.training.data import load
from prune_nas.training.loop import Setting, accuracy, train
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import recipe
from tests.benchmarks import rows

_FEW = 4  # random shapes, below which nothing is drawn from them
RUNGS = (0.05, 0.1, 0.25)
NAMES = (
    "uniform,taper,per-cost,threshold,stage-mean,cost-penalty,sparse/0.1,sparse/0.2,sparse/0.5,transferred,"
    "tilt/-1,tilt/-1.5"
)


class Bench:
    """One network, budget and seed; supernets are trained once."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        data = load("cifar10", data_dir=given.data_dir, train_size=given.images, val_size=given.images // 4,
                    download=False)  # fmt: skip
        self.given, self.seed = given, seed
        self.setting = Setting(data, torch.device("cpu"), Precision("fp32"))
        self.test = data.open_test()
        self.traced = trace(given.model, input_shape=data.input_shape, classes=10, base_width=given.width)
        self.space = self.traced.space
        self.limits = Budget.parse(given.budget).limits(self.space)
        self.base_macs = self.space.cost(self.space.base).macs
        self.supernet = cache(self._supernet)

    def _supernet(self, penalty: str, part: float) -> nn.Module:
        epochs = max(round(part * self.given.epochs), 1)
        return sparse(self.traced, self.setting, penalty, epochs, self.seed)

    def fitted(self, kind: str, space: Any, widths: Widths) -> Widths:
        """A rule from widths, on this space."""
        return rules.apply(rules.fit(kind, [pattern_of(space, widths)]).rule, self.space, self.limits)

    def shape(self, name: str) -> tuple[Widths, float]:
        """Widths, and what finding them cost in trainings of the base."""
        kind, _, value = name.partition("/")
        even = {slot.name: 1.0 for slot in self.space.slots}
        if kind == "uniform":
            return rules.apply(rules.Uniform(), self.space, self.limits), 0.0
        if kind == "taper":
            return rules.taper_widths(self.space, self.limits), 0.0
        if kind == "random":
            return family.random_widths(self.space, self.limits, 100 + int(value)), 0.0
        if kind == "tilt":
            last = max(self.space.stages - 1, 1)
            keep = {s.name: even[s.name] * float(np.exp(float(value) * s.stage / last)) for s in self.space.slots}
            return project(self.space, keep, self.limits), 0.0
        if kind == "transferred":
            source = load("cifar100", data_dir=self.given.data_dir, train_size=self.given.images,
                          val_size=self.given.images // 4, download=False)  # fmt: skip
            traced = trace("vgg11", input_shape=source.input_shape, classes=100, base_width=self.given.width)
            network = sparse(traced, Setting(source, torch.device("cpu"), Precision("fp32")), "l1",
                             self.given.epochs, self.seed)  # fmt: skip
            limits = Budget.parse(self.given.budget).limits(traced.space)
            widths = select(traced.space, channel_scores(traced.space, network), limits, by="per-cost").widths
            return self.fitted("stage-mean", traced.space, widths), 0.0
        part = float(value) if kind == "sparse" else 1.0
        penalty = {"cost-penalty": "l1-macs", "dense": "none"}.get(kind, "l1")
        scores = channel_scores(self.space, self.supernet(penalty, part))
        widths = select(self.space, scores, self.limits, by="threshold" if kind == "threshold" else "per-cost").widths
        if kind in rules.FITS:
            widths = self.fitted(kind, self.space, widths)
        return widths, part

    def scratch(self, widths: Widths, part: float, seed: int) -> nn.Module:
        """Trained for that part of the base's compute."""
        epochs = max(round(part * self.given.epochs * self.base_macs / self.space.cost(widths).macs), 1)
        build = lambda: self.traced.build(widths, seed=seed)  # noqa: E731
        return train(build, self.setting, recipe("fast", epochs), seed=seed)[0]

    def inherited(self, widths: Widths) -> float:
        """Accuracy on validation with the supernet's weights and fresh statistics of BatchNorm; nothing is trained."""
        source = self.supernet("l1", 1.0)
        kept = best_channels(channel_scores(self.space, source), widths)
        network = inherit(self.space, source, self.traced.build(widths, seed=0), kept)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            network.train()
            for x, _ in self.setting.data.train.batches(500):
                network(x)
        return accuracy(network, self.setting.data.val, self.setting)

    def row(self, name: str, cheap: bool) -> dict[str, Any]:
        """Everything about one shape."""
        start = time.perf_counter()
        widths, searched = self.shape(name)
        cost = self.space.cost(widths)
        val = self.setting.data.val
        found: dict[str, Any] = {"searched": searched, "widths": dict(widths), "macs": cost.macs / self.base_macs,
                                 "params": cost.params / self.space.cost(self.space.base).params}  # fmt: skip
        if cheap:
            found["inherited"] = self.inherited(widths)
            found["rungs"] = {
                str(part): accuracy(self.scratch(widths, part, self.seed), val, self.setting) for part in RUNGS
            }
        network = self.scratch(widths, 1.0, 1000 + self.seed)
        return {**found, "val": accuracy(network, val, self.setting),
                "test": accuracy(network, self.test, self.setting), "seconds": time.perf_counter() - start}  # fmt: skip


def sparse(traced: Traced, setting: Setting, penalty: str, epochs: int, seed: int) -> nn.Module:
    """A supernet after a complete schedule."""
    schedule = recipe("fast", epochs)
    images = len(setting.data.train)
    pressure = penalties.Pressure(penalty, penalties.strength_for(schedule, images))
    pull = penalties.make(pressure, traced.space, traced.template, schedule, images)
    build = lambda: traced.build(traced.space.widest, seed=seed)  # noqa: E731
    return train(build, setting, schedule, seed=seed, penalty=pull)[0]


def run(given: argparse.Namespace) -> Iterator[rows.Row]:
    """What is not in the file yet."""
    done = rows.read(given.out)
    about = {name: getattr(given, name) for name in rows.GROUP}
    for seed in map(int, given.seeds.split(",")):
        bench = Bench(given, seed)
        names = [name for name in given.names.split(",") if name]
        if seed == 0:
            names += [f"random/{i}" for i in range(given.randoms)]
        for name in names:
            key = {**about, "name": name, "seed": seed}
            if not rows.has(done, key):
                found = bench.row(name, cheap=seed == 0)
                yield {**key, **found, "machine": machine()["cpu"], "torch": torch.__version__}


def table(path: Path) -> Iterator[str]:
    """The shapes, the cheap measures, and what random search needs."""
    for (model, width, budget, images, epochs), own in rows.groups(rows.read(path)).items():
        yield f"## {model} x {width:g}, {budget}: {images:,} training images, {epochs} base epochs\n"
        yield from shapes(own)
        if cheap := {json.dumps(row["widths"]): row for row in own if "rungs" in row}:  # each shape once
            yield from measures(list(cheap.values()))
        if sum(row["name"].startswith("random/") for row in own) >= _FEW:
            yield from random_search(own)


def shapes(own: list[rows.Row]) -> Iterator[str]:
    """A row a shape, the best first; differences are paired by seed."""
    named = [{**row, "name": "random"} if row["name"].startswith("random/") else row for row in own]
    yield "| shape | n | test, % | minus uniform, points [95 % interval] | found for, base trainings | macs | params |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, results, cells in rows.ranked(named, "name"):
        yield (
            f"| {name} | {cells} | {fmean(r['searched'] for r in results):.1f} "
            f"| {fmean(r['macs'] for r in results):.1%} | {fmean(r['params'] for r in results):.1%} |"
        )
    yield ""


def measures(own: list[rows.Row]) -> Iterator[str]:
    """Rank correlations with the accuracy after the whole training."""
    full = [r["test"] for r in own]
    yield f"Rank correlation (Spearman) with the test accuracy after the whole training, over {len(own)} shapes:\n"
    yield "| measure on validation | rho | p | cost a shape, trainings of the base |\n|---|--:|--:|--:|"
    kinds = {"inherited weights, BatchNorm anew": ([r["inherited"] for r in own], 0.0)}
    for part in RUNGS:
        kinds[f"a schedule of {part:g} of the base's compute"] = ([r["rungs"][str(part)] for r in own], part)
    kinds["the whole training's own validation"] = ([r["val"] for r in own], 1.0)
    for name, (values, cost) in kinds.items():
        rho, p = spearmanr(values, full)
        yield f"| {name} | {rho:+.2f} | {p:.2g} | {cost:g} |"
    yield ""


def random_search(own: list[rows.Row]) -> Iterator[str]:
    """Expected test accuracy of the best of N random shapes by each measure, over 2,000 draws from those trained."""
    pool = [r for r in own if r["name"].startswith("random/")]
    draw = np.random.default_rng(0)
    tests = 100 * np.array([r["test"] for r in pool])
    yield f"Random search: the test accuracy of the best of N shapes by a measure, N drawn from {len(pool)}:\n"
    counts = [n for n in (1, 2, 4, 8, 16) if n <= len(pool)]
    yield "| measure | " + " | ".join(f"N = {n}" for n in counts) + " |\n|---|" + "--:|" * len(counts)
    kinds = {str(part): np.array([r["rungs"][str(part)] for r in pool]) for part in RUNGS}
    kinds = {"inherited": np.array([r["inherited"] for r in pool]), **kinds, "1": np.array([r["val"] for r in pool])}
    for name, values in kinds.items():
        cells = []
        for n in counts:
            picked = [max(draw.choice(len(pool), n, replace=False), key=lambda i: values[i]) for _ in range(2000)]
            cost = "" if name == "inherited" else f" (search {n * float(name):.3g})"
            cells.append(f"{tests[picked].mean():.1f}{cost}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def main() -> None:
    """Measure, or print the table."""
    parser = rows.parser(__doc__)
    parser.add_argument("--names", default=NAMES)
    parser.add_argument("--randoms", type=int, default=20)
    given = parser.parse_args()
    if given.table:
        sys.stdout.write("\n".join(table(given.table)) + "\n")
        return
    torch.set_num_threads(given.threads)
    rows.keep(given.out, run(given), "name")


if __name__ == "__main__":
    main()
