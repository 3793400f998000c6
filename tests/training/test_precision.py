import random

import pytest
import torch
from torch import nn

from prune_nas.errors import MissingError, UsageError
from prune_nas.training import precision
from prune_nas.training.precision import Precision, choose, choose_device

BATCH = torch.randn(8, 3, 8, 8), torch.arange(8) % 2


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


@pytest.fixture
def net():
    built = network()
    built(BATCH[0])
    return built


def measured(**seconds_and_gradients):
    return lambda *_: seconds_and_gradients


@pytest.mark.parametrize(
    ("seconds", "gradient", "chosen"),
    [
        (0.5, [1.0, 0.01], "bf16"),  # faster and agrees
        (0.95, [1.0, 0.0], "fp32"),  # hardly faster
        (0.1, [0.0, 1.0], "fp32"),  # fast and wrong
        (0.1, [float("nan"), 1.0], "fp32"),
    ],
)
def test_the_fastest_that_agrees_is_chosen(net, monkeypatch, seconds, gradient, chosen):
    reference = 1.0, torch.tensor([1.0, 0.0])
    monkeypatch.setattr(precision, "_measure", measured(fp32=reference, bf16=(seconds, torch.tensor(gradient))))
    assert choose("auto", net, BATCH, torch.device("cpu")).name == chosen


def test_the_self_check_leaves_the_network_alone(net):
    before = [p.clone() for p in net.state_dict().values()]
    got = choose("auto", net, BATCH, torch.device("cpu"), seconds=0.02)
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    assert all(p.grad is None for p in net.parameters())
    assert [name for name, _, _ in got.checked] == ["fp32", "bf16"]


def test_formats_take_turns_so_that_a_busy_machine_slows_them_alike(net, monkeypatch):
    ticks, order = iter(range(10**6)), []

    def clock():
        """Every format takes one second while the machine is busy, and bf16 half of one afterwards."""
        return next(ticks) * (1.0 if len(order) < 6 else 0.5)

    real = Precision.autocast
    monkeypatch.setattr(Precision, "autocast", lambda self, device: order.append(self.name) or real(self, device))
    monkeypatch.setattr(precision.time, "perf_counter", clock)
    precision._measure(net, BATCH, torch.device("cpu"), ["fp32", "bf16"], 1.0)
    assert order[:2] == ["fp32", "bf16"]  # kernels are picked
    assert all(order[i : i + 2] == ["fp32", "bf16"] for i in range(2, len(order), 2))
    assert len(order) >= 6


def test_a_run_changes_over_where_its_format_is_far_slower():
    slow = Precision("fp32", (("fp32", 0.1, 1.0), ("bf16", 0.21, 1.0)))
    begun = Precision("bf16", (("fp32", 0.2, 1.0), ("bf16", 0.1, 1.0)))
    assert begun.or_faster(slow) == Precision("fp32", slow.checked, before=("bf16",))
    assert begun.or_faster(Precision("fp32", (("fp32", 0.1, 1.0), ("bf16", 0.19, 1.0)))) == begun
    assert begun.or_faster(begun) == begun
    elsewhere = Precision("fp16", (("fp32", 0.2, 1.0), ("fp16", 0.1, 1.0)))  # a GPU without bf16 does not measure it
    assert begun.or_faster(elsewhere).name == "fp16"


def test_a_wish_is_followed(net):
    assert choose("bf16", net, BATCH, torch.device("cpu")).name == "bf16"
    with pytest.raises(UsageError, match="fp32"):
        choose("fp33", net, BATCH, torch.device("cpu"))


def test_a_device_that_is_not_there_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MissingError, match="0 CUDA devices"):
        choose_device("cuda")
    with pytest.raises(UsageError, match="there is no device"):
        choose_device("gpu")
    assert choose_device("cpu").type == "cpu"


def test_a_branch_that_a_step_leaves_out_by_lot_is_left_out_in_every_format():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.branch, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x):
            x = self.stem(x)
            return self.head((x + self.branch(x) if random.random() < 0.5 else x).mean((2, 3)))

    batch = torch.randn(8, 3, 10, 10), torch.arange(8) % 4
    for _ in range(4):
        found = choose("auto", Skips(), batch, torch.device("cpu"), seconds=0.1)
        assert {name: cosine for name, _, cosine in found.checked}["bf16"] > 0.95
