"""A plain trainer, as somebody might write it in an afternoon; it shares no code with the package.

    python -m tests.benchmarks.plain DATA.npz NETWORK.py:CALLABLE --epochs 26 [--optimizer adamw] [--seeds 0,1,2] ...

It is the yardstick for the package's own loop: `learning.py` trains the same networks on the same images with both.
DATA.npz holds `train_x`, `test_x` (uint8, N x H x W x 3) and `train_y`, `test_y` (int64).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """How to train. `initial` is `as-made` (the constructor's values) or `he` (normal, fan in; norms start at 1)."""

    epochs: int
    optimizer: str = "sgd"
    lr: float = 0.1
    batch: int = 128
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    padding: str = "reflect"
    pixels: int = 4
    flip: bool = True
    smoothing: float = 0.0
    initial: str = "as-made"


class Pixels:
    """Images and labels of one split, normalised by the training split's mean and deviation."""

    def __init__(self, x: np.ndarray, y: np.ndarray, mean: Tensor, std: Tensor) -> None:
        self.x = ((torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous(
            memory_format=torch.channels_last
        )
        self.y = torch.from_numpy(y)


def read(path: Path) -> tuple[Pixels, Pixels]:
    """The training and the test split."""
    data = np.load(path)
    pixels = torch.from_numpy(data["train_x"]).float().div(255).flatten(0, 2)
    mean, std = pixels.mean(0).view(1, 3, 1, 1), pixels.std(0).view(1, 3, 1, 1)
    return tuple(Pixels(data[f"{split}_x"], data[f"{split}_y"], mean, std) for split in ("train", "test"))  # type: ignore[return-value]


def he(network: nn.Module) -> None:
    """He's normal values over the fan in, zero biases, norms at 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def rate(plan: Plan, progress: float) -> float:
    """The learning rate at `progress` in [0, 1)."""
    if plan.schedule == "cosine":
        return plan.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if plan.schedule == "step":
        return plan.lr * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
    up = 0.25
    return plan.lr * (progress / up if progress < up else (1 - progress) / (1 - up))


def augmented(x: Tensor, plan: Plan) -> Tensor:
    """Each image shifted by its own few pixels and mirrored half of the time."""
    p, n, (h, w) = plan.pixels, len(x), x.shape[2:]
    if p:
        mode = {"reflect": "reflect", "zero": "constant"}[plan.padding]
        wide = nn.functional.pad(x, (p, p, p, p), mode=mode)
        dy, dx = torch.randint(0, 2 * p + 1, (2, n)).tolist()
        x = torch.stack([wide[i, :, dy[i] : dy[i] + h, dx[i] : dx[i] + w] for i in range(n)])
    if plan.flip:
        turned = torch.rand(n) < 0.5
        x = torch.where(turned[:, None, None, None], x.flip(3), x)
    return x.contiguous(memory_format=torch.channels_last)


def fit(network: nn.Module, train: Pixels, plan: Plan) -> list[float]:
    """Train in place; the mean loss of each epoch."""
    network.to(memory_format=torch.channels_last).train()
    if plan.optimizer == "adamw":
        optimiser: Any = torch.optim.AdamW(network.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    else:
        optimiser = torch.optim.SGD(
            network.parameters(), lr=plan.lr, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay
        )
    each = max(len(train.y) // plan.batch, 1)
    losses, step = [], 0
    for _ in range(plan.epochs):
        order, total = torch.randperm(len(train.y)), 0.0
        for i in range(each):
            rows = order[i * plan.batch : (i + 1) * plan.batch]
            for group in optimiser.param_groups:
                group["lr"] = rate(plan, (step + 0.5) / (each * plan.epochs))
            loss = nn.functional.cross_entropy(
                network(augmented(train.x[rows], plan)), train.y[rows], label_smoothing=plan.smoothing
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            total += loss.item()
        losses.append(total / each)
    return losses


@torch.inference_mode()
def accuracy(network: nn.Module, split: Pixels) -> float:
    """Share of images that the network classifies right."""
    network.eval()
    found = torch.cat([network(x).argmax(1) for x in split.x.split(250)])
    return float((found == split.y).float().mean())


def named(text: str) -> Callable[..., nn.Module]:
    """The callable of FILE.py:NAME."""
    place, _, name = text.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(place).resolve().parent))
    spec.loader.exec_module(module)
    return getattr(module, name)


def trained(make: Callable[[], nn.Module], train: Pixels, test: Pixels, plan: Plan, seed: int) -> dict[str, Any]:
    """One training: losses, test accuracy and seconds."""
    torch.manual_seed(seed)
    network = make()
    if plan.initial == "he":
        he(network)
    start = time.perf_counter()
    losses = fit(network, train, plan)
    return {"losses": losses, "test": accuracy(network, test), "seconds": time.perf_counter() - start}


def main() -> None:
    """Train with every seed and print a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("network")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=1)
    for name, field in Plan.__dataclass_fields__.items():
        kind = {"int": int, "float": float, "str": str, "bool": lambda text: text == "True"}[field.type]
        required = name == "epochs"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=required,
                            default=None if required else field.default)  # fmt: skip
    given = vars(parser.parse_args())
    torch.set_num_threads(given["threads"])
    plan = Plan(**{name: given[name] for name in Plan.__dataclass_fields__})
    train, test = read(given["data"])
    for seed in map(int, given["seeds"].split(",")):
        row = trained(named(given["network"]), train, test, plan, seed)
        sys.stdout.write(json.dumps({"seed": seed, **plan.__dict__, **row}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
