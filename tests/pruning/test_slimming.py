"""Network Slimming's rule: one threshold, strictly above it, never an empty layer."""

import numpy as np
import pytest
import torch
from torch import nn

from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning import slimming


@pytest.fixture
def vgg():
    traced = trace("vgg11", base_width=0.5)
    network = traced.build(seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.randn(len(module.weight), generator=generator)
    return traced.space, network


def _gammas(network):
    return np.concatenate([m.weight.detach().abs().numpy() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])


@pytest.mark.parametrize("ratio", ["0.1", "0.33", "0.5"])
def test_floor_of_the_share_and_one_go(vgg, ratio):
    """int(n * ratio) + 1 channels go, since the one at the threshold itself does."""
    space, network = vgg
    chosen = slimming.prune(space, network, ratio)
    values = np.sort(_gammas(network))
    threshold = values[int(len(values) * float(ratio))]
    assert not chosen.floored
    assert sum(chosen.widths.values()) == len(values) - int(len(values) * float(ratio)) - 1
    for slot in space.slots:
        own = np.abs(_of(network, slot))
        assert list(chosen.kept[slot.name]) == np.flatnonzero(own > threshold).tolist()


def _of(network, slot):
    layer = slot.layers[0].replace("conv", "norm")
    modules = dict(network.named_modules())
    if layer in modules:
        return modules[layer].weight.detach().numpy()
    names = list(modules)
    return modules[names[names.index(slot.layers[0]) + 1]].weight.detach().numpy()


def test_ties_with_the_threshold_go_too(vgg):
    space, network = vgg
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(0.5)
    chosen = slimming.prune(space, network, "0.2")
    assert chosen.floored == tuple(slot.name for slot in space.slots)
    assert all(chosen.widths[slot.name] == slot.floor for slot in space.slots)


def test_a_layer_below_the_threshold_keeps_its_floor_of_the_largest(vgg):
    space, network = vgg
    slot = space.slots[2]
    values = _of(network, slot)
    values[:] = np.linspace(0, 1e-3, len(values))
    chosen = slimming.prune(space, network, "0.5")
    assert chosen.floored == (slot.name,)
    assert chosen.kept[slot.name] == tuple(range(slot.ceiling - slot.floor, slot.ceiling))


@pytest.mark.parametrize("ratio", ["0", "1", "A", "-1"])
def test_ratios_that_are_none(vgg, ratio):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        slimming.prune(*vgg, ratio)
