"""A realistic run directory: a VGG-like space of 13 slots, two budgets, every arm on three seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from prune_nas.design.answer import Answer
from prune_nas.design.budget import Budget
from prune_nas.design.files import write_json
from prune_nas.design.ledger import train_macs
from prune_nas.design.parts import Layer, Segment, Slot, constant
from prune_nas.design.records import Curve, Expense, Final, TrialRow, write_table
from prune_nas.design.space import Space, Widths
from prune_nas.design.subject import Subject

PLAN = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
BUDGETS = ("macs=0.2", "macs=0.4,params=0.2")
RATIOS = [0.57, 0.31, 0.17, 0.2, 0.3]
SEEDS = (11, 12, 13)
# test accuracy of the seed in the middle; the others lie half a point above and below
ARMS = {
    "found": 0.790, "pruned": 0.778, "guided": 0.781, "uniform": 0.782, "taper": 0.783, "inherited": 0.795,
}  # fmt: skip
RANDOM = (0.750, 0.760, 0.765)
SCRATCH_B = {"found": 0.815, "uniform": 0.820}
SHAPES = {"pruned": -0.9, "guided": -0.6, "found": -0.3, "uniform": 0.0, "taper": -0.25}


def vgg(model: str = "vgg16") -> Space:
    slots, layers, source = [], [], constant(3)
    for stage, widths in enumerate(PLAN):
        for i, width in enumerate(widths):
            name = f"conv{stage + 1}_{i + 1}"
            slots.append(Slot(name, stage, i / (len(widths) - 1), width // 2, 4, 1, (name,)))
            target = (Segment(name, 1),)
            layers.append(Layer(name, "conv", source, target, 9, (32 >> stage) ** 2, vectors=2))
            source = target
    layers.append(Layer("fc", "linear", source, constant(10), 1, 1, vectors=1))
    names = tuple(f"{32 >> s}x{32 >> s}" for s in range(len(PLAN)))
    base = Widths({slot.name: slot.ceiling for slot in slots})
    return Space(model, (3, 32, 32), 10, tuple(slots), tuple(layers), (), base, names)


def shaped(space: Space, budget: str, slope: float) -> Widths:
    """The largest net of keep = scale * exp(slope * stage) under the budget."""
    limits = Budget.parse(budget).limits(space)
    for scale in np.linspace(1.6, 0.05, 400):
        widths = space.snap({s.name: scale * np.exp(slope * s.stage) for s in space.slots})
        if limits.admits(space.cost(widths)):
            return widths
    raise AssertionError(budget)


def final_rows(space: Space) -> list[Final]:
    base = space.cost(space.base)
    rows = []

    def add(budget, arm, schedule, widths, middle, candidate=None):
        cost = space.cost(widths)
        epochs = 20 * base.macs // cost.macs if schedule == "scratch-b" else 20
        for i, seed in enumerate(SEEDS):
            accuracy = round(middle + 0.005 * (i - 1), 4)
            digest = candidate or widths.digest
            spent = train_macs(cost.macs, 10_000, epochs)
            rows.append(
                Final(
                    budget,
                    arm,
                    "",
                    "",
                    digest,
                    seed,
                    schedule,
                    epochs,
                    *cost[:2],
                    accuracy + 0.002,
                    accuracy,
                    spent,
                    60,
                )
            )

    add("", "base", "scratch-e", space.base, 0.820)
    for shift, budget in enumerate(BUDGETS):
        for arm, middle in ARMS.items():
            schedule = "rewind" if arm == "inherited" else "scratch-e"
            add(budget, arm, schedule, shaped(space, budget, SHAPES.get(arm, -0.9)), middle + 0.01 * shift)
        for arm, middle in SCRATCH_B.items():
            add(budget, arm, "scratch-b", shaped(space, budget, SHAPES[arm]), middle + 0.01 * shift)
        for i, middle in enumerate(RANDOM):
            add(budget, "random", "scratch-e", shaped(space, budget, -0.5 + 0.3 * i), middle + 0.01 * shift, f"r{i}")
    return rows


def trial_rows(space: Space) -> list[TrialRow]:
    rows = []
    slopes = (-0.9, -0.6, 0.0, -0.25, -0.4, -0.3, -0.5, -0.1, -0.35, 0.1, -0.28, -0.3)
    for budget in BUDGETS:
        for number, slope in enumerate(slopes):
            widths = shaped(space, budget, slope)
            value = None if number == 9 else round(0.79 - 0.04 * (slope + 0.3) ** 2 - 0.001 * (number % 3), 4)
            state = "fail" if value is None else "complete"
            cost = space.cost(widths)
            rows.append(TrialRow(budget, number, state, value, *cost[:2], 20, 30.0, "1", widths.to_json(), 0))
    return rows


def write_widths(path: Path, space: Space) -> None:
    lines = ["budget,slot,stage,depth,ceiling,base,uniform,taper,pruned,guided,found,random"]
    for budget in BUDGETS:
        shapes = {arm: shaped(space, budget, slope) for arm, slope in SHAPES.items()}
        for s in space.slots:
            arms = [shapes[arm][s.name] for arm in ("uniform", "taper", "pruned", "guided", "found")]
            cells = [s.name, s.stage, s.depth, s.ceiling, space.base[s.name], *arms, ""]
            lines.append(f'"{budget}",' + ",".join(map(str, cells)))
    path.write_text("\n".join(lines) + "\n")


ANSWER = Answer(
    budget="macs=0.2",
    file="budgets/deploy.json",
    use="The found network.",
    test="Test accuracy 79.0 ± 0.5 % (n = 3, 20 epochs). The unpruned network has 82.0 ± 0.5 % (n = 3, 20 epochs).",
    cost="15.6M macs (20 %), 732k params (20 %), 0.5 ms (20 % of 2.345 ms).",
    sure="The found network is better than uniform scaling by 0.8 points (95 % CI 0.2 to 1.4, n = 3).",
    search="The search cost as much as 2.0 trainings of the unpruned network, 12 min (supernet, study).",
    model="",
)


def run_json(model: str, space: Space) -> dict:
    return {
        "schema": 1,
        "version": "0.1.0",
        "config": {"model": model, "dataset": "cifar10", "budgets": list(BUDGETS), "preset": "laptop",
                   "recipe": {"epochs": 20, "lr": 0.1, "batch": 128}},
        "versions": {"python": "3.12.3", "torch": "2.14.0"},
        "machine": {"cpu": "2 cores", "memory": "8 GB"},
        "device": "cpu",
        "precision": "bf16",
        "data": {"name": "cifar10", "fingerprint": "0a1b2c", "train": 45000, "val": 5000, "test": 10000, "classes": 10},
        "subject": Subject.of(space, 0.5, "cifar10", (45_000, 5000, 10_000)).to_dict(),
        "phases": {"supernet": "done", "study": "done", "finals": "running"},
        "diagnosis": {"penalty": "l1", "strength": 1e-3,
                      "sentences": ["Gamma separates: 41 % of channels lie below 0.01."]},
        "cuts": {budget: [{"slot": "conv1_1", "kept": 20, "score": 0.1}] for budget in BUDGETS},
    }  # fmt: skip


def verdict(budget: str) -> dict:
    return {
        "schema": 1,
        "budget": budget,
        "subject": "found",
        "headline": "The found network is better than uniform scaling by 0.8 points (95 % CI 0.2 to 1.4, n = 3).",
        "sentences": ["Under scratch-b uniform scaling is better: 82.0 %.", "Its training takes five times as long."],
        "learnt": True,
        "answer": ANSWER.to_dict("runs/here") | {"budget": budget},
        "latency": {"base": {"median_ms": 2.345, "iqr_ms": 0.1, "batch": 1, "threads": 2, "device": "cpu",
                             "dtype": "float32", "runs": 99}},
        "comparisons": [{"left": "found", "right": "uniform", "schedule": "scratch-e", "n": 3, "difference": 0.008,
                         "low": 0.002, "high": 0.014, "outcome": "better"}],
        "deploy": {"arm": "uniform", "schedule": "scratch-b", "val_accuracy": 0.822,
                   "macs": 15_600_000, "params": 732_000},
    }  # fmt: skip


def write_run(path: Path, model: str = "vgg16") -> Path:
    space, random = vgg(model), np.random.default_rng(0)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "run.json", run_json(model, space))
    write_json(path / "space.json", space.to_dict())
    scores = {}
    for s in space.slots:
        dead = random.random(s.ceiling) < 0.1 + 0.17 * s.stage
        scores[s.name] = np.where(dead, random.exponential(0.01, s.ceiling), random.normal(0.28, 0.09, s.ceiling))
    save_file({k: np.abs(v).astype(np.float32) for k, v in scores.items()}, path / "scores.safetensors")
    write_widths(path / "widths.csv", space)
    write_table(path / "trials.csv", TrialRow, trial_rows(space))
    write_table(path / "curves.csv", Curve, [Curve("", "supernet", e, 2 / (e + 1), 0.5, 1.0) for e in range(5)])
    write_table(path / "finals.csv", Final, final_rows(space))
    expenses = [Expense("", "supernet", "", 1, 3 * 10**13, 600.0), Expense(BUDGETS[0], "study", "", 12, 10**13, 400.0),
                Expense(BUDGETS[0], "finals", "found", 2, 10**13, 60.0),
                Expense(BUDGETS[0], "finals", "found", 1, 0, 20.0)]  # fmt: skip
    write_table(path / "ledger.csv", Expense, expenses)
    write_json(path / "verdict.json", [verdict(b) for b in BUDGETS])
    write_json(path / "rule.json", [{"budget": b, "schema": 1, "kind": "stage-mean", "parameters": {"ratios": RATIOS},
                                     "explanation": "Keep 57 %, 31 %, 17 % of stages 0, 1, 2.",
                                     "fit": {"patterns": ["vgg16"], "residual": 0.05, "spread": []}}
                                    for b in BUDGETS])  # fmt: skip
    widths = shaped(space, BUDGETS[0], SHAPES["found"])
    macs, params = space.cost(widths)[:2]
    spec = {"model": model, "input_shape": [3, 32, 32], "classes": 10, "widths": dict(widths), "macs": macs,
            "params": params, "preprocessing": {}, "source": "found"}  # fmt: skip
    (path / "best.json").write_text(json.dumps(spec))
    return path


@pytest.fixture(scope="session")
def run_path(tmp_path_factory) -> Path:
    """One run for all tests that only read it."""
    return write_run(tmp_path_factory.mktemp("runs") / "vgg16-cifar10-0a1b")


@pytest.fixture
def write_fake_run():
    """The writer itself, for tests that change the run."""
    return write_run


@pytest.fixture
def fake_vgg():
    """The space of the run."""
    return vgg()
