"""One policy for all weights, from a generator of its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from prune_nas.nets.initialise import initialise
from prune_nas.nets.tracing import trace

from . import networks


def test_spread_of_every_kind_of_layer():
    network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Linear(512, 256), nn.PReLU())
    network[1].running_mean.fill_(3)
    initialise(network, 0)
    assert network[0].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    assert network[2].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert network[1].weight.eq(0.5).all()
    assert network[3].weight.item() == 0.25
    assert not any(t.any() for t in (network[0].bias, network[1].bias, network[2].bias, network[1].running_mean))


def test_grouped_fan_out():
    conv = nn.Conv2d(64, 64, 3, groups=64)
    initialise(conv, 0)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)


@pytest.mark.parametrize("make", networks.ALL)
def test_same_seed_same_network_and_the_global_state_is_untouched(make):
    traced = trace(make(), input_shape=(3, 8, 8))
    before = torch.get_rng_state()
    first = traced.build(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = traced.build(seed=5), traced.build(seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    )


def drawn(classes):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, classes))
    network.scale = nn.Parameter(torch.randn(5))
    return network


def test_what_no_seed_covers_is_the_same_in_every_process():
    torch.manual_seed(1)
    first, before = trace(drawn, input_shape=(3, 8, 8)).build(seed=0), torch.get_rng_state()
    torch.manual_seed(2)
    torch.rand(7)
    second = trace(drawn, input_shape=(3, 8, 8)).build(seed=0)
    assert torch.equal(first.scale, second.scale)
    torch.manual_seed(1)
    trace(drawn, input_shape=(3, 8, 8)).build(seed=0)
    assert torch.equal(torch.get_rng_state(), before)
