"""Images a second of two workers of one thread against one of two threads, and what the machinery costs a training.

    python -m tests.benchmarks.workers --data-dir DIR [--rounds 3] [--out FILE.md]

Rounds of the two alternate, so that a machine that gets slower does so for both. The machinery's cost is the wall time
of a training beyond its epochs: orders, checkpoints, the evaluation on validation, answers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

import torch

from prune_nas.config import Config
from prune_nas.design.files import write_text
from prune_nas.search.crew import Alone, Crew, Workers
from prune_nas.search.rundir import machine
from prune_nas.search.setup import on_device, prepare
from prune_nas.search.work import Result, Training, Workplace
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import recipe

IMAGES, EPOCHS, TRAININGS = 1280, 2, 4


class Trainings:
    """A source of so many equal trainings."""

    def __init__(self, space, folder: Path, count: int) -> None:
        self.left = [Training("", f"t{n}", f"t{n}", space.base, n, EPOCHS, folder / str(n)) for n in range(count)]
        self.results: list[Result] = []

    def ask(self) -> Training | None:
        return self.left.pop() if self.left else None

    def tell(self, training: Training, result: Result) -> None:
        training.checkpoint.unlink(missing_ok=True)
        self.results.append(result)


def timed(crew: Crew, space, folder: Path, count: int) -> tuple[float, float]:
    """Images a second over all trainings, and seconds a training beyond its epochs."""
    source, start = Trainings(space, folder, count), time.perf_counter()
    crew.run([source], lambda training, epoch: None)
    wall = time.perf_counter() - start
    beside = 2 if isinstance(crew, Workers) else 1
    return count * EPOCHS * IMAGES / wall, wall * beside / count - fmean(r.seconds for r in source.results)


def measure(width: float, data_dir: Path, rounds: int) -> list[str]:
    """A row for each way, of a VGG-16 of that width."""
    config = Config(model="vgg16", dataset="cifar10", data_dir=data_dir, base_width=width, train_size=IMAGES,
                    val_size=500, precision="fp32", threads=2)  # fmt: skip
    device, data, traced = prepare(config)
    setting = Setting(on_device(data, device), device, Precision("fp32"))
    orders = {
        "config": config.model_dump(mode="json"),
        "threads": 1,
        "precision": "fp32",
        "fingerprint": data.fingerprint,
    }
    rates: dict[str, list[float]] = {"1 worker x 2 threads": [], "2 workers x 1 thread": []}
    rests: dict[str, list[float]] = {name: [] for name in rates}
    with (
        tempfile.TemporaryDirectory() as folder,
        Alone(Workplace(config, traced, setting)) as one,
        Workers(["cpu", "cpu"], orders) as two,
    ):
        crews = dict(zip(rates, (one, two), strict=True))
        for crew in crews.values():
            timed(crew, traced.space, Path(folder), 2)  # workers start, kernels are chosen
        for _ in range(rounds):
            for name, crew in crews.items():
                rate, rest = timed(crew, traced.space, Path(folder), TRAININGS)
                rates[name].append(rate)
                rests[name].append(rest)
    ratio = [b / a for a, b in zip(*rates.values(), strict=True)]
    return [
        f"| {width:g} | {name} | {fmean(rates[name]):.0f} +- {stdev(rates[name]):.0f} | "
        f"{fmean(rests[name]):.2f} +- {stdev(rests[name]):.2f} | "
        + (f"{fmean(ratio):.2f} +- {stdev(ratio):.2f} |" if name.startswith("2") else "1 |")
        for name in rates
    ]


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(2)
    lines = [
        f"VGG-16, {IMAGES} images of CIFAR-10, batch {recipe('fast').batch}, fp32, {TRAININGS} trainings of {EPOCHS} "
        f"epochs a round, n = {given.rounds} rounds; {machine()['cpu']}, {machine()['cores']} cores; "
        f"torch {torch.__version__}",
        "",
        "| width | way | images/s | s a training beyond its epochs | ratio |",
        "|---|---|---|---|---|",
        *(row for width in (0.25, 0.5) for row in measure(width, given.data_dir, given.rounds)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if given.out is not None:
        write_text(given.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
