"""Masks: chosen as the largest weights or drawn from probabilities, imposed, and never revived."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prune_nas.design.kernels import EVEN, KernelMean, Mask, planned
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning import magnitude


@pytest.fixture(scope="module")
def vgg():
    traced = trace("vgg11", base_width=0.125)
    return traced.space, traced.build(seed=3)


def test_the_convolutions_and_their_stages(vgg):
    space, network = vgg
    own = magnitude.convolutions(space, magnitude.weights_of(space, network))
    assert [(k.layer, k.stage) for k in own] == [(s.layers[0], s.stage) for s in space.slots]
    assert sum(k.weights for k in own) == sum(
        m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Conv2d)
    )


def test_frozen_layers_have_the_stage_of_their_feature_map():
    traced = trace("resnet20")
    own = magnitude.convolutions(traced.space, magnitude.weights_of(traced.space, traced.build(seed=0)))
    assert len(own) == 19
    assert [k.stage for k in own] == [0] * 7 + [1] * 6 + [2] * 6


def test_the_largest_weights_of_all_layers_stay(vgg):
    space, network = vgg
    own = magnitude.convolutions(space, magnitude.weights_of(space, network))
    masks = magnitude.by_magnitude(magnitude.weights_of(space, network), 5000)
    weights = torch.cat([network.get_submodule(k.layer).weight.abs().flatten() for k in own])
    cut = weights.topk(5000).values[-1]
    for kernel in own:
        assert torch.equal(masks[kernel.layer], network.get_submodule(kernel.layer).weight.abs() >= cut)
    # Places are counted as the kernel has them, row by row.
    counted = magnitude.count(masks, own)
    first = own[0].layer
    assert counted[first].tolist() == masks[first].sum((0, 1)).flatten().tolist()


def test_of_equal_weights_exactly_so_many_stay(vgg):
    space, network = vgg
    flat = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.fill_(0.5)
    masks = magnitude.by_magnitude(magnitude.weights_of(space, flat), 777)
    assert sum(int(mask.sum()) for mask in masks.values()) == 777


def test_drawn_masks_have_the_counts_of_their_rule(vgg):
    space, network = vgg
    own = magnitude.convolutions(space, magnitude.weights_of(space, network))
    nine = (0.1, 0.2, 0.1, 0.2, 0.4, 0.2, 0.1, 0.2, 0.1)
    rule = KernelMean((nine,) * space.stages)
    mask = Mask(9000, rule)
    masks = magnitude.masks_of(mask, space, network, seed=5)
    wanted = planned(rule, own, space.stages, 9000)
    assert {k: v.tolist() for k, v in magnitude.count(masks, own).items()} == {k: v.tolist() for k, v in wanted.items()}
    again, other = (magnitude.masks_of(mask, space, network, seed=seed) for seed in (5, 6))
    assert all(torch.equal(masks[layer], again[layer]) for layer in masks)
    assert not all(torch.equal(masks[layer], other[layer]) for layer in masks)


def test_fresh_weights_are_scaled_to_the_fan_that_is_left():
    """N(0, sqrt(2 / n)) with n = nnz / inputs, as cifar/weight-level/cifar_E.py draws them."""
    traced = trace("vgg11").starting_as("paper")
    network = traced.build(seed=0)
    masks = magnitude.masks_of(Mask(1_000_000, EVEN), traced.space, network, seed=0)
    magnitude.impose(network, masks, rescale=True)
    for layer in ("features.conv4_1", "features.conv5_2"):
        name = next(k for k in masks if k.endswith(layer.rpartition(".")[2]))
        module = network.get_submodule(name)
        left = module.weight[masks[name]]
        n = int(masks[name].sum()) / module.in_channels
        assert float(left.detach().std()) == pytest.approx(math.sqrt(2 / n), rel=0.02)
        assert (module.weight[~masks[name]] == 0).all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_masked_weights_never_revive(vgg, nesterov):
    space, network = vgg
    network = copy.deepcopy(network)
    masks = magnitude.masks_of(Mask(4000, EVEN), space, network, seed=1)
    magnitude.impose(network, masks, rescale=True)
    frozen = magnitude.Frozen(masks)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3, nesterov=nesterov)
    before = {layer: network.get_submodule(layer).weight.detach().clone() for layer in masks}
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y = torch.randn(8, 3, 32, 32, generator=generator), torch.randint(10, (8,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        frozen(network, 0.1)
        optimiser.step()
    for layer, mask in masks.items():
        weight = network.get_submodule(layer).weight.detach()
        assert (weight[~mask] == 0).all()
        assert not torch.equal(weight[mask], before[layer][mask])


def test_grouped_convolutions_are_counted_by_their_own_weights():
    traced = trace("mobilenetv2", base_width=0.25)
    network = traced.build(seed=0)
    weights = magnitude.weights_of(traced.space, network)
    own = {k.layer: k for k in magnitude.convolutions(traced.space, weights)}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            assert own[name].weights == module.weight.numel()
    kept = magnitude.count(magnitude.by_magnitude(weights, 10_000), list(own.values()))
    assert sum(int(np.sum(n)) for n in kept.values()) == 10_000


def test_a_state_has_the_weights_of_its_network():
    traced = trace("resnet20")
    network = traced.build(seed=0)
    from_state = magnitude.weights_in(traced.space, network.state_dict())
    of_network = magnitude.weights_of(traced.space, network)
    assert list(from_state) == list(of_network)
    assert all(torch.equal(from_state[name], of_network[name]) for name in of_network)
    with pytest.raises(UsageError, match="is missing"):
        magnitude.weights_in(traced.space, {})


def test_a_supernet_that_was_trained_again_is_noticed(vgg):
    space, network = vgg
    masks = magnitude.by_magnitude(magnitude.weights_of(space, network), 5000)
    mask = Mask(5000, None, magnitude.digest(masks))
    again = magnitude.masks_of(mask, space, network, seed=0)
    assert all(torch.equal(masks[layer], again[layer]) for layer in masks)
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).mul_(0.5)
    with pytest.raises(PruneNasError, match="Name another --run"):
        magnitude.masks_of(mask, space, other, seed=0)


class Products(torch.nn.Module):
    """A product of two activations has macs and no weights."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)
        self.second, self.head = torch.nn.Conv2d(8, 8, 3), torch.nn.Linear(64, 10)

    def forward(self, x):
        y = self.second(self.norm(self.first(x)).relu()).flatten(2)
        return self.head((y @ y.transpose(1, 2)).flatten(1))


def test_macs_without_weights_have_no_mask():
    traced = trace(Products(), input_shape=(3, 8, 8))
    network = traced.build(seed=0)
    assert any(layer.name == "other operations" for layer in traced.space.layers)
    assert list(magnitude.weights_of(traced.space, network)) == ["first", "second"]
    assert list(magnitude.weights_in(traced.space, network.state_dict())) == ["first", "second"]
