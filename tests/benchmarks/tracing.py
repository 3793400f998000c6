"""How long reading a network and costing its candidates take.

    python -m tests.benchmarks.tracing [NETWORK ...]

Prints one line a network: median and range over repeats of tracing (the network's construction left out), and of
costing 10,000 random width vectors at once.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from prune_nas.nets.models.sources import maker
from prune_nas.nets.tracing import trace

REPEATS = 7
CANDIDATES = 10_000
SHAPE = (3, 224, 224)
NETWORKS = ("torchvision:resnet50", "torchvision:densenet121", "torchvision:efficientnet_b0")


def seconds(work: Callable[[], object]) -> str:
    """Median and range of several runs, after one that warms up."""
    work()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return f"{statistics.median(taken):.3f} s ({min(taken):.3f} to {max(taken):.3f}, n={REPEATS})"


def main(names: tuple[str, ...]) -> None:
    """Measure each network."""
    for name in names:
        network = maker(name, 1000, 1.0)[0]()
        space = trace(network, input_shape=SHAPE, classes=1000).space
        ceilings = np.array([slot.ceiling for slot in space.slots])
        rows = np.ceil(np.random.default_rng(0).uniform(0, 1, (CANDIDATES, len(ceilings))) * ceilings).astype(int)
        reading = seconds(lambda network=network: trace(network, input_shape=SHAPE, classes=1000))
        costing = seconds(lambda space=space, rows=rows: space.costs(rows))
        print(f"{name}: {len(space.slots)} slots; trace {reading}; {CANDIDATES} costs {costing}")  # noqa: T201


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or NETWORKS)
