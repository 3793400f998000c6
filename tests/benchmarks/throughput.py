"""Images a second of the whole training loop, beside the plain way to write one and beside the bare step.

    python -m tests.benchmarks.throughput --data-dir DIR [--rounds 3] [--seconds 8] [--out FILE.md]
        [--nets vgg16:1,vgg16:0.5] [--precision auto]

- plain: torchvision's CIFAR-10 with PIL transforms in a `DataLoader` of one worker, fp32, NCHW, torch.optim's SGD as it
  comes: how the code of Liu et al. 2019 trains (cifar/network-slimming/main.py).
- bare step: forward, backward and update on one fixed batch in the loop's own memory format, precision and optimiser:
  the ceiling of any loop around it.
- loop: `prune_nas.training.loop.fit`: shuffling, augmentation, schedule and loss included, evaluation left out (it
  has a column of its own).
- peak: what a matrix product of 2,048 x 2,048 reaches in the loop's precision; a training step counts three times the
  forward's macs.

The ways take turns in every round, so that a machine that gets slower does so for all of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from prune_nas.design.files import write_text
from prune_nas.nets.tracing import trace
from prune_nas.search.rundir import machine
from prune_nas.training import precision as formats
from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.data import Data, load
from prune_nas.training.loop import Setting, accuracy, fit, place
from prune_nas.training.optimiser import optimisers_of
from prune_nas.training.recipe import recipe

NETS = "vgg16:1,vgg16:0.5,vgg16:0.25,vgg16:0.1,resnet20:1,resnet56:1"
RECIPE = recipe("fast", 1_000_000)
WAYS = ("plain", "bare step", "loop")


class Plain(Dataset):
    """As torchvision's CIFAR10 hands out its images."""

    def __init__(self, data: Data) -> None:
        self.pixels = data.train.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.Pad(4),
                transforms.RandomCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain(network: nn.Module, data: Data) -> Iterator[int]:
    """Yields the images of each step, as soon as it is done."""
    loader = DataLoader(Plain(data), RECIPE.batch, shuffle=True, num_workers=1, drop_last=True)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    network.train()
    while True:
        for x, y in loader:
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
            yield len(y)


def bare(network: nn.Module, setting: Setting) -> Iterator[int]:
    """The same, on one fixed batch."""
    place(network, setting.device)
    (optimiser,) = optimisers_of(network, RECIPE, fused=True)
    x, y = next(setting.data.train.batches(RECIPE.batch))
    network.train()
    with quick_convolutions(network, setting.device, formats.FORMATS[setting.precision.name]):
        while True:
            optimiser.zero_grad(set_to_none=True)
            with setting.precision.autocast(setting.device):
                loss = F.cross_entropy(network(x), y, label_smoothing=RECIPE.label_smoothing)
            loss.backward()
            optimiser.step()
            yield len(y)


def counted(steps: Iterator[int], seconds: float) -> float:
    """Images a second over about that many seconds."""
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(steps)
    return images / (time.perf_counter() - start)


def peak(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Multiply-accumulates a second of a large matrix product."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    a @ b
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2048**3 / best


@dataclass
class Measured:
    """The rates of one network, a number a round."""

    precision: str
    macs: int
    peaks: list[float] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in (*WAYS, "evaluation")})

    def ratio(self, way: str, other: str) -> list[float]:
        return [a / b for a, b in zip(self.rates[way], self.rates[other], strict=True)]

    @property
    def of_peak(self) -> list[float]:
        """The bare step's part of the matrix product's."""
        return [3 * self.macs * r / p for r, p in zip(self.rates["bare step"], self.peaks, strict=True)]


def measure(model: str, width: float, data: Data, precision: str, rounds: int, seconds: float) -> Measured:
    """Rounds in which every way has its turn; a first turn of each does not count."""
    traced = trace(model, input_shape=data.input_shape, classes=len(data.classes), base_width=width)
    space = traced.space

    def network() -> nn.Module:
        return traced.build(space.base, seed=0)

    device = torch.device("cpu")
    batch = next(data.train.batches(RECIPE.batch))
    setting = Setting(data, device, formats.choose(precision, network(), batch, device))
    found = Measured(setting.precision.name, space.cost(space.base).macs)
    ways = {"plain": plain(network(), data), "bare step": bare(network(), setting)}
    trained = place(network(), device)

    def loop() -> float:
        """Whole epochs, so that what an epoch begins and ends with is in it."""
        spent = images = 0.0
        for epoch in fit(trained, setting, RECIPE, seed=0):
            spent += epoch.seconds
            images += len(data.train) // RECIPE.batch * RECIPE.batch
            if spent > seconds:
                break
        return images / spent

    def evaluation() -> float:
        start = time.perf_counter()
        accuracy(trained, data.val, setting)
        return len(data.val) / (time.perf_counter() - start)

    for number in range(rounds + 1):
        turn: dict[str, Callable[[], float]] = {
            **{way: lambda steps=steps: counted(steps, seconds) for way, steps in ways.items()},
            "loop": loop,
            "evaluation": evaluation,
        }
        results = {way: go() for way, go in turn.items()}
        if number:
            found.peaks.append(peak(formats.FORMATS[setting.precision.name]))
            for way, rate in results.items():
                found.rates[way].append(rate)
    return found


def pm(values: list[float], form: str) -> str:
    """Mean and deviation."""
    return f"{fmean(values):{form}} +- {stdev(values):{form}}" if len(values) > 1 else f"{values[0]:{form}}"


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--nets", default=NETS)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = load("cifar10", data_dir=given.data_dir, train_size=given.images, val_size=1000, download=False)
    lines = [
        f"{machine()['cpu']}, {torch.get_num_threads()} threads; torch {torch.__version__}; CIFAR-10, batch "
        f"{RECIPE.batch}; n = {given.rounds} rounds of about {given.seconds:g} s a way; mean and standard deviation.",
        "",
        "| network | precision | plain, images/s | bare step | loop | loop / bare step | loop / plain "
        "| bare step / matmul peak | evaluation, images/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, _, factor in (net.partition(":") for net in given.nets.split(",")):
        width = float(factor)
        m = measure(model, width, data, given.precision, given.rounds, given.seconds)
        rates = " | ".join(pm(m.rates[way], ".0f") for way in WAYS)
        lines.append(
            f"| {model} x {width:g} | {m.precision} | {rates} | {pm(m.ratio('loop', 'bare step'), '.2f')} | "
            f"{pm(m.ratio('loop', 'plain'), '.2f')} | {pm(m.of_peak, '.2f')} | {pm(m.rates['evaluation'], '.0f')} |"
        )
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    if given.out is not None:
        write_text(given.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
