"""Does the package learn as well as a plain trainer? Initial values, optimisers, padding and schedule, one by one.

    python -m tests.benchmarks.learning --out learning.jsonl --network MODEL --images SPEC [--data-dir DIR]
        [--image-size 64] [--width 0.25] [--epochs 24] [--train-size 5000] [--seeds 0,1,2] [--ways author,adamw,...]
    python -m tests.benchmarks.learning --table learning.jsonl > FILE.md

Each way changes one part of the package's own recipe (`fast`, with SGD and the author's initial values):

- `author`: nothing; VGG and ResNet start from He's values, MobileNetV2 from PyTorch's. `adamw`: the optimiser.
  `paper`: initial values as Network Slimming's code draws them, and `torch`: PyTorch's defaults, both in a built-in
  network. `he`: He's normal values for every layer of another network. `zeros`: crops reach into zeros, not into the
  mirrored picture. `step`: the paper's schedule.
- `plain sgd`, `plain adamw`: `tests/benchmarks/plain.py` in the network as its constructor made it, or for VGG and
  ResNet in He's values, on the same pixels, for as many epochs, at the same learning rate and batch.

`chosen` is the optimiser that the probe of `--optimizer auto` takes. A result that is in the file already is not made
again. Test accuracy is of the whole test split; what is chosen is chosen with --validation, on other seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import nn

from prune_nas.design.sizes import Size
from prune_nas.nets import models
from prune_nas.nets.tracing import Traced, trace
from prune_nas.training.data import load
from prune_nas.training.data.images import Images, ImageSet
from prune_nas.training.loop import Setting, accuracy, train
from prune_nas.training.precision import Precision
from prune_nas.training.probe import probe, steps_for
from prune_nas.training.recipe import Recipe, recipe
from tests.benchmarks import plain, rows

WAYS = ("author", "adamw", "paper", "torch", "he", "zeros", "step", "plain sgd", "plain adamw")


class Bench:
    """One network on one set of images."""

    def __init__(self, given: argparse.Namespace) -> None:
        size = None if given.image_size is None else Size.parse(given.image_size)
        data = load(given.images, data_dir=given.data_dir, train_size=given.train_size, image_size=size,
                    download=False)  # fmt: skip
        self.setting = Setting(data, torch.device("cpu"), Precision("fp32"))
        self.test = data.val if given.validation else data.open_test()
        self.classes, self.images = len(data.classes), len(data.train)
        self.model = given.network
        self.built_in = given.network in models.MODELS
        self.name = given.network if self.built_in else Path(given.network).name
        self.traced: Traced = trace(
            given.network, input_shape=data.input_shape, classes=self.classes, base_width=given.width
        )
        self.recipe = replace(recipe("fast", given.epochs), batch=given.batch)

    def fits(self, way: str) -> bool:
        """Whether there is such a training of this network."""
        return {"paper": self.built_in, "torch": self.built_in, "he": not self.built_in}.get(way, True)

    def chosen(self) -> str:
        """The optimiser that `--optimizer auto` takes, tried for as many steps as `search` tries it."""
        steps = steps_for(self.recipe, self.images)
        return probe(lambda: self._build(0), self.setting, self.recipe, seed=0, steps=steps).optimizer

    def ours(self, way: str, seed: int) -> float:
        """Test accuracy of one training by the package."""
        traced = self.traced.starting_as("paper" if way == "paper" else "fast")

        def build() -> nn.Module:
            network = traced.build(traced.space.base, seed=seed)
            torch.manual_seed(seed)
            if way == "he":
                plain.he(network)
            if way == "torch":
                defaults(network)
            return network

        network, _ = train(build, self.setting, self._recipe(way), seed=seed)
        return accuracy(network, self.test, self.setting)

    def plain(self, way: str, seed: int) -> float:
        """Test accuracy of one training by the plain trainer, at the learning rate and batch of ours."""
        optimizer, data = way.removeprefix("plain "), self.setting.data
        ours = self.recipe.using(optimizer)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
        splits = (
            plain.Pixels(part.pixels.permute(0, 2, 3, 1).contiguous().numpy(), part.labels.numpy(), mean, std)
            for part in map(_in_memory, (data.train, self.test))
        )
        initial = "he" if self.built_in and self.model not in models.BY_DEFAULT else "as-made"
        plan = plain.Plan(
            ours.epochs, optimizer, ours.lr, ours.batch, ours.weight_decay, smoothing=ours.label_smoothing,
            pixels=min(data.input_shape[1:]) // 8, initial=initial,
        )  # fmt: skip
        return float(plain.trained(lambda: self._made(seed), *splits, plan, seed)["test"])

    def _recipe(self, way: str) -> Recipe:
        ours = self.recipe
        return {
            "adamw": ours.using("adamw"),
            "zeros": replace(ours, reflect=False),
            "step": replace(ours, policy="step"),
        }.get(way, ours)

    def _made(self, seed: int) -> nn.Module:
        """The network as its author makes it, without the package; a built-in one as the package makes it."""
        return self._build(seed) if self.built_in else plain.named(self.model)(num_classes=self.classes)

    def _build(self, seed: int) -> nn.Module:
        return self.traced.build(self.traced.space.base, seed=seed)


def defaults(network: nn.Module) -> None:
    """PyTorch's initial values of convolutions and linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()


def _in_memory(images: ImageSet) -> Images:
    assert isinstance(images, Images)
    return images


def results(given: argparse.Namespace) -> Iterator[rows.Row]:
    """Every result that is not in the file yet."""
    bench, done = Bench(given), rows.read(given.out)
    about = {"network": bench.name, "width": given.width, "images": bench.images, "epochs": given.epochs}
    chosen = ""
    for seed in map(int, given.seeds.split(",")):
        for way in given.ways.split(","):
            key = {**about, "way": way, "seed": seed}
            if rows.has(done, key) or not bench.fits(way):
                continue
            chosen = chosen or bench.chosen()
            begun = time.perf_counter()
            test = bench.plain(way, seed) if way.startswith("plain") else bench.ours(way, seed)
            yield {**key, "batch": given.batch, "validation" if given.validation else "test": test, "chosen": chosen,
                   "seconds": time.perf_counter() - begun}  # fmt: skip


def table(results: list[rows.Row]) -> Iterator[str]:
    """A network a row, a way a column; below, the package's choice beside the better of the two plain trainings."""
    kinds: dict[tuple[Any, ...], list[rows.Row]] = {}
    for row in results:
        kinds.setdefault(tuple(row[name] for name in ("network", "width", "images", "epochs")), []).append(row)
    yield f"| network | images | epochs | {' | '.join(WAYS)} | probe takes | the package minus plain |"
    yield f"|---{'|--:' * (len(WAYS) + 2)}|---|--:|"
    for (network, width, images, epochs), own in kinds.items():
        by_way = {way: {row["seed"]: row["test"] for row in own if row["way"] == way} for way in WAYS}
        chosen = next((row["chosen"] for row in own if "chosen" in row), "")
        ours = by_way["author" if chosen == "sgd" else "adamw"]
        theirs = max((by_way["plain sgd"], by_way["plain adamw"]), key=lambda found: fmean(found.values() or [0]))
        gap = rows.difference([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
        name = network if width == 1 else f"{network} x {width:g}"
        yield f"| {name} | {images} | {epochs} | {' | '.join(map(_cell, by_way.values()))} | {chosen} | {gap} |"


def _cell(found: dict[int, float]) -> str:
    values = [100 * value for value in found.values()]
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread} (n={len(values)})"


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--network")
    parser.add_argument("--images", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--image-size")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--validation", action="store_true", help="measure on the validation images, to choose by them")
    parser.add_argument("--ways", default=",".join(WAYS))
    given = parser.parse_args()
    if given.table:
        sys.stdout.write("\n".join(table(rows.read(given.table))) + "\n")
        return
    torch.set_num_threads(1)
    for row in results(given):
        rows.keep(given.out, [row], "way")


if __name__ == "__main__":
    main()
