"""Every network of torchvision and every built-in one: traced, counted, built at other widths, exported, reloaded.

A dozen of them, one a family, run in `make test`; `make test-full` runs all and writes `artifacts/results/networks.md`.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torchvision import models

from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.export.python import to_python
from prune_nas.nets.models import MODELS
from prune_nas.nets.tracing import trace
from prune_nas.nets.walk import OUTPUT_REASON

from .test_tracing import counted
from .torch_pruning_groups import asked, groups

TABLE = Path(__file__).parents[2] / "artifacts" / "results" / "networks.md"
CLASSES = 10
SIZES = {"inception_v3": 299, "alexnet": 96}  # the smallest images that are taken, where 64x64 are not
FAMILY = (
    "vgg16", "resnet20", "mobilenetv2", "torchvision:alexnet", "torchvision:resnet18", "torchvision:resnext50_32x4d",
    "torchvision:densenet121", "torchvision:squeezenet1_1", "torchvision:googlenet", "torchvision:mobilenet_v3_small",
    "torchvision:mnasnet0_5", "torchvision:efficientnet_b0", "torchvision:regnet_y_400mf",
    "torchvision:shufflenet_v2_x0_5", "torchvision:convnext_tiny", "torchvision:swin_t",
)  # fmt: skip
EVERY = (*MODELS, *(f"torchvision:{name}" for name in models.list_models(module=models)))


def shape_of(name: str) -> tuple[int, int, int]:
    kind = name.partition(":")[2]
    if not kind:
        return (3, 32, 32)
    size = SIZES.get(kind) or (models.get_model_builder(kind).__kwdefaults__ or {}).get("image_size") or 64
    size = {"vit": 224, "maxvit": 224}.get(kind.partition("_")[0], size)
    return (3, 518, 518) if kind == "vit_h_14" and size == 518 else (3, size, size)


def examine(name: str) -> dict[str, object]:
    """One row of the table; every claim in it was checked here."""
    shape = shape_of(name)
    traced = trace(name, input_shape=shape, classes=CLASSES)
    space = traced.space
    base = traced.build(seed=0)
    cost = space.cost(space.base)
    assert cost[:2] == counted(base, shape)
    del base
    generator = torch.Generator().manual_seed(0)
    keeps = {
        "25 %": dict.fromkeys(space.base, 0.25),
        "50 %": dict.fromkeys(space.base, 0.5),
        "random": {slot: float(torch.rand((), generator=generator)) for slot in space.base},
    }
    for keep in keeps.values():
        widths = space.snap(keep)
        network = traced.build(widths, seed=1)
        macs, params = space.cost(widths)[:2]
        assert sum(p.numel() for p in network.parameters()) == params
        network(torch.randn(2, *shape, generator=generator)).sum().backward()
        assert macs <= cost.macs
    return {
        "network": name,
        "input": "x".join(map(str, shape)),
        "macs": f"{cost.macs / 1e6:,.1f}M",
        "params": f"{cost.params / 1e6:.2f}M",
        "slots": len(space.slots),
        "shuffled": sum(slot.shuffled for slot in space.slots),
        "frozen": frozen(space),
        "python": exported(network, name, shape),
    }


def frozen(space) -> str:
    """How many dimensions are frozen, by reason."""
    reasons = Counter(item.reason.partition(":")[0].partition(";")[0] for item in space.frozen)
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def compared(space: Space, theirs: set[frozenset[str]] | str) -> str:
    """How torch-pruning's groups differ from our slots, and why."""
    if isinstance(theirs, str):
        return theirs
    ours = {frozenset(slot.layers) for slot in space.slots}
    reasons = {item.dimension: item.reason.partition(":")[0].partition(";")[0] for item in space.frozen}
    said, rest = [], theirs - ours
    for why, count in Counter(
        next((reasons[layer] for layer in sorted(group) if layer in reasons), "") for group in rest
    ).most_common():
        if why == OUTPUT_REASON and count == 1:
            continue  # it calls the classes a group until it is told to ignore them
        said.append(f"{count} of its groups are frozen here ({why})" if why else f"{count} groups that are none here")
    if missing := len(ours - theirs):
        said.append(f"{missing} slots are no groups there")
    return "; ".join(said) or "the same"


def exported(network: nn.Module, name: str, shape: tuple[int, int, int]) -> str:
    """Whether the exported file, loaded again, computes the same; else why there is none."""
    try:
        source, state = to_python(network, name, shape, name)
    except UsageError as error:
        return str(error).partition(", which")[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location("exported", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    again = module.Model()
    again.load_state_dict(load(save({key: value.contiguous() for key, value in state.items()})))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = network.eval()(x)
        assert (again.eval()(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    return "yes"


@pytest.mark.parametrize("name", FAMILY)
def test_one_of_each_family(name):
    row = examine(name)
    assert row["slots"] > 0


@pytest.mark.parametrize("name", ["resnet20", "torchvision:densenet121", "torchvision:mobilenet_v3_small"])
def test_torch_pruning_sees_the_same_groups(name):
    shape = shape_of(name)
    traced = trace(name, input_shape=shape, classes=CLASSES)
    said = compared(traced.space, groups(traced.build(seed=0), shape))
    assert said == ("1 of its groups are frozen here (parts do not line up)" if name == "resnet20" else "the same")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_network_is_in_the_table():
    rows = [row_of(name) for name in EVERY]
    write(rows)
    assert len(rows) == len(EVERY)
    assert not [row for row in rows if "slots" not in row]


def row_of(name: str) -> dict[str, object]:
    """The row of one network, or why it has none."""
    try:
        row = examine(name)
        space = trace(name, input_shape=shape_of(name), classes=CLASSES).space
        return {**row, "torch-pruning": compared(space, asked(name, shape_of(name), CLASSES))}
    except (UsageError, AssertionError) as error:
        return {"network": name, "frozen": f"not handled: {str(error).splitlines()[0]}"}


def write(rows: list[dict[str, object]]) -> None:
    """Write the table."""
    columns = ("network", "input", "macs", "params", "slots", "shuffled", "frozen", "python", "torch-pruning")
    lines = [f"| {' | '.join(str(row.get(c, '')).replace('|', '/') for c in columns)} |" for row in rows]
    head = f"| {' | '.join(columns)} |\n|{' :-- |' * len(columns)}\n"
    TABLE.write_text(f"{_ABOUT}\n{head}" + "\n".join(lines) + "\n")


_ABOUT = """# Every network that was tried

`make test-full` writes this table (`tests/nets/test_every_network.py`). For each network of torchvision and each
built-in network:

- macs equal torch's `FlopCounterMode` / 2, and params equal the sum of `numel`.
- The network is built at 25 %, 50 % and random widths, and runs forward and backward.
- The last of these networks is exported as a Python file that imports torch alone. The file is loaded again and gives
  the same outputs to 1e-4 (column `python`).

Shuffled slots are free in their width alone, because their channels have no identity. The column `torch-pruning`
compares the groups of torch-pruning 1.6 with the slots. The tool is told the network and nothing else, in a process
of 8 GiB and 120 seconds. Some groups that it prunes are frozen here, because pruning them would cut the network
wrongly. Streams of CIFAR ResNets meet zero-padded shortcuts of constant width. Streams of transformers meet reshapes
with fixed sizes.
"""
