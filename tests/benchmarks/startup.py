"""Seconds from the command to the first training step of a search, phase by phase, with the data set cached.

    python -m tests.benchmarks.startup --data-dir DIR [--rounds 5] [--precision fp32] [--anew]

A process a round; the first, which fills the caches, does not count. With `--anew` nothing is remembered of the steps
that earlier rounds timed: what the first command of an hour takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

CODE = """
import json, sys, time
start = float(sys.argv.pop(1))
import prune_nas.training.loop as loop
from prune_nas.search import pipeline, speed
if sys.argv.pop(1) == "anew":
    speed._HOUR = 0.0
marks = {"imports": time.time() - start}
def noted(module, name, label):
    real = getattr(module, name)
    def call(*arguments, **options):
        result = real(*arguments, **options)
        marks[label] = time.time() - start
        return result
    setattr(module, name, call)
noted(pipeline, "prepare", "data and network")
noted(pipeline, "setting_of", "precision")
noted(pipeline.estimate, "announce", "estimate")
def first(*arguments):
    marks["first step"] = time.time() - start
    print(json.dumps(marks))
    sys.stdout.flush()
    import os
    os._exit(0)
loop._epoch = first
from prune_nas.cli import run
run(sys.argv[1:])
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--anew", action="store_true")
    given = parser.parse_args()
    rows = []
    for number in range(given.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                "search", "-m", "vgg16", "-d", "cifar10", "--data-dir", str(given.data_dir), "--preset", "laptop",
                "--precision", given.precision, "--run", f"{folder}/run", "-q",
            ]  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", CODE, str(time.time()), "anew" if given.anew else "", *command],
                capture_output=True,
                text=True,
                check=True,
            )
        marks = json.loads(done.stdout.strip().splitlines()[-1])
        if number:
            rows.append(marks)
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f" +- {stdev(values):.2f}" if len(values) > 1 else ""
        sys.stdout.write(f"{name}: {fmean(values):.2f}{spread} s (n = {len(values)})\n")


if __name__ == "__main__":
    main()
