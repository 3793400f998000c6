"""A training step in bf16 on this CPU with oneDNN's convolutions over small images and with ours, in turns.

python -m tests.benchmarks.convolution [--rounds 5] [--seconds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from statistics import fmean, stdev

import torch
from torch.nn import functional as F

from prune_nas.nets.tracing import trace
from prune_nas.search.rundir import machine
from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.loop import place
from prune_nas.training.optimiser import optimisers_of
from prune_nas.training.recipe import recipe

NETS = (("vgg16", 1.0), ("vgg16", 0.5), ("vgg16", 0.25), ("vgg16", 0.1), ("resnet20", 1.0), ("resnet56", 1.0))
CPU = torch.device("cpu")


def rate(network: torch.nn.Module, quick: bool, seconds: float, images: int = 64) -> float:
    """Images a second."""
    (optimiser,) = optimisers_of(network, recipe("fast", 10), fused=True)
    x = torch.randn(images, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.arange(images) % 10
    with quick_convolutions(network, CPU, torch.bfloat16) if quick else contextlib.nullcontext():
        done, start = 0, 0.0
        while not done or time.perf_counter() - start < seconds:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(x), y)
            loss.backward()
            optimiser.step()
            done += 1
            if done == 1:
                start = time.perf_counter()
        return (done - 1) * images / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    sys.stdout.write(
        f"{machine()['cpu']}, {torch.get_num_threads()} threads; torch {torch.__version__}; batch 64, bf16; n = "
        f"{given.rounds} rounds of {given.seconds:g} s a way, in turns\n\n"
        "| network | oneDNN, images/s | ours | ratio |\n|---|--:|--:|--:|\n"
    )
    for model, width in NETS:
        network = place(trace(model).scaled(base=width).build(seed=0), CPU).train()
        rates = [[rate(network, quick, given.seconds) for quick in (False, True)] for _ in range(given.rounds)]
        plain, quick = zip(*rates, strict=True)
        ratios = [b / a for a, b in rates]
        cells = [f"{fmean(v):.0f} +- {stdev(v):.0f}" for v in (plain, quick)]
        sys.stdout.write(
            f"| {model} x {width:g} | {' | '.join(cells)} | {fmean(ratios):.2f} +- {stdev(ratios):.2f} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
