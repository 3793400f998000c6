"""How far the shapes agree that one network's supernets teach: across seeds, lambdas, epochs and data sets.

    python -m tests.benchmarks.stability RUNS DATA > artifacts/results/stability.md

Trains one supernet a variation into RUNS (resumable: what is there is not trained again), prunes each under a few
budgets, and prints for each group how far its patterns agree. DATA holds cifar10 and cifar100.
"""

import sys
from pathlib import Path

from prune_nas.config import resolve
from prune_nas.design.budget import Budget
from prune_nas.design.patterns import Pattern, non_uniformity, stability, stage_means
from prune_nas.search.pipeline import search
from prune_nas.search.prior import pattern_of_run
from prune_nas.search.progress import View
from prune_nas.search.rundir import machine, read_json

BUDGETS = ("params=0.2", "params=0.1", "macs=0.4,params=0.2", "macs=0.4,params=0.1", "macs=0.4")
PLAIN = {"model": "vgg16", "dataset": "cifar10", "preset": "laptop", "base_width": 0.25, "supernet_epochs": 20}
SCALED = 5.03e-4  # what the laptop preset's lambda comes to; halved and doubled below
GROUPS = {
    "seeds": [{}, {"seed": 1}, {"seed": 2}],
    "lambdas": [{"strength": SCALED / 2}, {}, {"strength": SCALED * 2}],
    "epochs": [{"supernet_epochs": 10}, {}],
    "data sets": [{}, {"dataset": "cifar100"}],
}


def trained(runs: Path, data: Path, changes: dict[str, object]) -> Path:
    """The run of one variation: a supernet and nothing else."""
    asked = {**PLAIN, "budget": BUDGETS[:1], "trials": 0, "arms": ("found",), "data_dir": data, **changes}
    config = resolve(asked)
    path = runs / config.run_name
    if not (path / "scores.safetensors").exists():
        search(config, path, View(quiet=False))
    return path


def line(name: str, patterns: list[Pattern]) -> str:
    """A row: how far the patterns of a group agree."""
    found = stability(patterns)
    each = " / ".join(f"{non_uniformity(pattern):.2f}" for pattern in patterns)
    return f"| {name} | {found.patterns} | {found.rank_correlation:.2f} | {found.noise:.2f} | {each} |"


def main(runs: Path, data: Path) -> None:
    """Train what is missing, then print the tables."""
    made = {name: [trained(runs, data, changes) for changes in group] for name, group in GROUPS.items()}
    everything = list(dict.fromkeys(path for paths in made.values() for path in paths))
    record = read_json(everything[0] / "run.json")
    print(f"""# How far supernets agree on the widths

VGG-16 x 0.25, preset laptop, 10,000 training images. One supernet per variation, and nothing else, was trained. The
first supernet has seed 0, lambda {SCALED:.3g} (by schedule) and 20 epochs on CIFAR-10. Every group varies one of
them.

The numbers compare the pruned widths under the same budget:

| column | meaning |
|---|---|
| rank correlation | mean of Spearman's correlation over all pairs |
| spread | root mean square, over slots, of the standard deviation of the slot's share |
| non-uniformity | standard deviation of the keep ratios / their mean |

- command: `python -m tests.benchmarks.stability RUNS DATA`, commit {record["commit"]}
- versions: {", ".join(f"{name} {version}" for name, version in record["versions"].items())}
- machine: {machine()["cpu"]}, {machine()["cores"]} cores; data: half of CIFAR-10 and CIFAR-100
""")  # noqa: T201
    for text in BUDGETS:
        budget = Budget.parse(text)
        patterns = {path: pattern_of_run(path, budget) for path in everything}
        rows = [line(name, [patterns[path] for path in paths]) for name, paths in made.items()]
        rows.append(line("all", list(patterns.values())))
        head = "| varied | n | rank correlation | spread | non-uniformity of each |\n| :-- | --: | --: | --: | :-- |"
        print(f"## {text}\n\n{head}\n" + "\n".join(rows) + "\n")  # noqa: T201
        print(stability(list(patterns.values())).sentence() + ".\n")  # noqa: T201
        means = {path: " ".join(f"{100 * m:.0f}" for m in stage_means(pattern)) for path, pattern in patterns.items()}
        listed = (f"- {name}, variation {i + 1}: {means[p]}" for name, ps in made.items() for i, p in enumerate(ps))
        print("Kept of each stage, %, by variation:\n\n" + "\n".join(listed) + "\n")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
