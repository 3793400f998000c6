"""Residual branches: which there are, what a network costs without some, and that it computes the rest as before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prune_nas.design.parts import size
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.settings import parse_settings
from prune_nas.nets.tracing import trace

NETWORKS = ("resnet20", "preresnet164", "mobilenetv2", "torchvision:resnext50_32x4d")


def without(space, *branches):
    gone = {slot for branch in branches for slot in branch.slots}
    return {name: 0 if name in gone else width for name, width in space.base.items()}


def images(space, n=2):
    return torch.randn(n, *space.input_shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    return trace("resnet20", base_width=0.5)


@pytest.mark.parametrize(("name", "count"), [("resnet20", 9), ("resnet56", 27), ("vgg16", 0), ("densenet40", 0)])
def test_every_block_has_one(name, count):
    assert len(trace(name).space.branches) == count


def test_names_and_layers(resnet):
    first = resnet.space.branches[0]
    assert first.name == "stage1.block0"
    assert first.slots == ("stage1.block0.conv1",)
    assert first.layers == tuple(f"stage1.block0.{layer}" for layer in ("conv1", "norm1", "conv2", "norm2"))
    assert first.last == "stage1.block0.norm2"
    assert Space.from_dict(resnet.space.to_dict()) == resnet.space


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cost_without_is_what_torch_counts(name):
    traced = trace(name, input_shape=(3, 32, 32))
    space = traced.space
    for gone in (space.branches[:1], space.branches[1::2], space.branches):
        widths = without(space, *gone)
        network = traced.build(widths, seed=0).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *space.input_shape))
        params = sum(parameter.numel() for parameter in network.parameters())
        assert space.cost(widths)[:2] == (counter.get_total_flops() // 2, params)
        assert space.gone(widths) == tuple(gone)


@given(st.sets(st.integers(0, 8)), st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_outputs_are_those_of_the_whole_network_whose_branches_add_nothing(gone, seed):
    traced = trace("resnet20", base_width=0.25)
    branches = [traced.space.branches[i] for i in gone]
    whole = traced.build(seed=seed).eval()
    for branch in branches:
        nn.init.zeros_(whole.get_submodule(branch.last).weight)
    widths = without(traced.space, *branches)
    kept = {name: tuple(range(width)) for name, width in widths.items()}
    shallow = inherit(traced.space, whole, traced.build(widths, seed=0), kept).eval()
    torch.testing.assert_close(shallow(images(traced.space)), whole(images(traced.space)))
    assert len(shallow.state_dict()) == len(whole.state_dict()) - sum(12 for _ in branches)


class Doubtful(nn.Module):
    """Additions whose sides cannot go: read twice, both with slots, ending in no layer, called twice; one that can."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        for name in ("read", "left", "right", "scaled", "twice", "sound"):
            setattr(self, name, nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding="same")))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        read = self.read(x)
        x = x + read
        x = self.left(x) + self.right(x)
        x = x + F.relu(self.scaled(x))
        x = x + self.twice(x)
        x = x + self.twice(x)
        x = x + self.sound(x)
        return self.head(torch.cat([x, read], 1).mean((2, 3)))


def test_what_cannot_go_is_no_branch():
    traced = trace(Doubtful())
    assert [branch.name for branch in traced.space.branches] == ["sound"]
    traced.build(without(traced.space, *traced.space.branches), seed=0)(images(traced.space))


class Inplace(nn.Module):
    """A pre-activation block whose ReLU works in place, a gated one, and one whose last norm never sees zeros."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.conv1, self.conv2 = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 3, padding=1)
        self.gate, self.back = nn.Conv2d(8, 24, 1), nn.Conv2d(12, 8, 1)
        self.squash, self.last = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.after = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv2(self.conv1(self.relu(self.norm(x))))
        value, gate = self.gate(x).chunk(2, 1)
        x = x + self.back(value * torch.sigmoid(gate))
        x = x + self.after(torch.sigmoid(self.last(F.relu(self.squash(x)))))
        return self.head(x.mean((2, 3)))


def test_nothing_of_a_branch_that_is_gone_reaches_the_stream():
    traced = trace(Inplace())
    space = traced.space
    assert {"conv2", "after"} <= {branch.last for branch in space.branches}
    whole = traced.build(seed=1).eval()
    for branch in space.branches:
        for parameter in whole.get_submodule(branch.last).parameters():
            nn.init.zeros_(parameter)
    widths = without(space, *space.branches)
    kept = {name: tuple(range(width)) for name, width in widths.items()}
    shallow = inherit(space, whole, traced.build(widths, seed=0), kept).eval()
    torch.testing.assert_close(shallow(images(space)), whole(images(space)))


def test_the_terms_of_a_latency_leave_a_branch_out(resnet):
    space = resnet.space
    branch = space.branches[1]
    rows = np.array([list(space.base.values()), list(without(space, branch).values())])
    terms = space.terms(rows)
    assert list(terms["params"]) == [space.cost(space.base).params, space.cost(without(space, branch)).params]
    layers = {layer.name: layer for layer in space.layers}
    written = sum(layers[name].positions * size(layers[name].outputs, space.base) for name in branch.layers
                  if layers[name].kernel)  # fmt: skip
    assert terms["activations"][0] - terms["activations"][1] == written
    timed = replace(space, latency=(("activations", 2.0), ("constant", 1.0)))
    assert timed.latencies(rows)[0] - timed.latencies(rows)[1] == pytest.approx(2 * written)


def test_a_width_of_0_elsewhere_is_refused(resnet):
    traced = trace("preresnet164", base_width=0.25)
    half = {**traced.space.base, "stage1.block0.conv1": 0}
    with pytest.raises(UsageError, match=r"'stage1.block0.conv1' must be a positive integer. Got 0: only all slots"):
        traced.build(half, seed=0)
    with pytest.raises(UsageError, match="Got -1"):
        resnet.build({**resnet.space.base, "stage1.block0.conv1": -1}, seed=0)


def test_the_macs_of_a_frozen_layer_go_with_its_branch():
    traced = trace("preresnet164", settings=parse_settings({"freeze": ["stage1.block1.conv1"]}, "the test"))
    space = traced.space
    (branch,) = (one for one in space.branches if one.name == "stage1.block1")
    widths = without(space, branch)
    network = traced.build(widths, seed=0).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *space.input_shape))
    params = sum(parameter.numel() for parameter in network.parameters())
    assert space.cost(widths)[:2] == (counter.get_total_flops() // 2, params)
