"""Initial values are the author's, at every width and under every seed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from prune_nas.nets.initialise import PAPER_GAMMA, published
from prune_nas.nets.tracing import trace

from . import networks
from .test_tracing import halves

SMALL = (3, 8, 8)


def plain(classes=10):
    """Convolutions and a linear layer as PyTorch's constructors leave them."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 3), nn.BatchNorm2d(96), nn.ReLU(),
        nn.Conv2d(96, 128, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes),
    )  # fmt: skip


class Warped(nn.Module):
    """A linear layer that starts at the identity, set by hand, behind a layer whose width is free."""

    def __init__(self, classes=10):
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.warp = nn.Linear(8, 6)
        nn.init.zeros_(self.warp.weight)
        self.warp.bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])
        self.body, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, classes)

    def forward(self, x):
        theta = self.warp(self.look(x).flatten(1)).reshape(-1, 2, 3)
        grid = nn.functional.affine_grid(theta, x.size(), align_corners=False)
        return self.head(self.body(nn.functional.grid_sample(x, grid, align_corners=False)).mean((2, 3)))


class Filtered(nn.Module):
    """A depthwise filter that does not learn, and one in a layer whose width is free."""

    def __init__(self, classes=10):
        super().__init__()
        edge = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        self.edges = nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)
        self.edges.weight.data = torch.stack([edge, edge.T]).unsqueeze(1).repeat(3, 1, 1, 1)
        self.edges.weight.requires_grad_(False)
        self.a, self.b = nn.Conv2d(6, 16, 3), nn.Conv2d(16, 16, 3, bias=False)
        self.b.weight.data = edge.expand(16, 16, 3, 3).clone()
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.b(self.a(self.edges(x)).relu()).mean((2, 3)))


class Kernel(nn.Module):
    """A layer written by hand around a parameter."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernel)


def hand_made(classes=10):
    layers = nn.Sequential(Kernel(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))
    layers.turn = nn.Parameter(torch.tensor([random.random(), float(np.random.rand())]))
    return layers


def arrives_trained(classes=10):
    network, draw = plain(classes), torch.Generator().manual_seed(7)
    for weight in network.parameters():
        weight.data = torch.rand(weight.shape, generator=draw)
    return network


def kaiming(classes=10):
    network = plain(classes)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return network


def std(values):
    return values.std(correction=0).item()


def test_a_layer_starts_as_its_constructor_leaves_it():
    torch.manual_seed(3)
    wanted = plain().state_dict()
    built = trace(plain, input_shape=SMALL).build(seed=3).state_dict()
    assert all(torch.equal(built[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("width", [32, 192])
def test_a_default_layer_at_another_width_has_the_bounds_of_its_fan_in(width):
    traced = trace(plain, input_shape=SMALL)
    layer = traced.build({"0": width, "3": 64}, seed=0)[3]
    bound = 1 / math.sqrt(9 * width)  # kaiming_uniform_(a=sqrt(5)) of torch.nn.Conv2d
    assert layer.weight.shape == (64, width, 3, 3)
    assert std(layer.weight) == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert 0.95 * bound < layer.weight.abs().max().item() <= bound * (1 + 1e-6)
    assert 0.8 * bound < layer.bias.abs().max().item() <= bound * (1 + 1e-6)


def test_a_constructor_that_scales_by_the_fan_out_keeps_its_law_where_all_widths_shrink_alike():
    layer = trace(kaiming, input_shape=SMALL).build({"0": 48, "3": 64}, seed=0)[3]
    assert std(layer.weight) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert not layer.bias.any()


def test_a_wider_layer_repeats_no_channel():
    weight = trace(plain, input_shape=SMALL).build({"0": 192, "3": 256}, seed=0)[0].weight.flatten(1)
    assert len(weight.unique(dim=0)) == 192


def test_norms_start_at_one_and_running_statistics_anew():
    norm = trace(plain, input_shape=SMALL).build({"0": 10, "3": 12}, seed=0)[1]
    assert norm.weight.eq(1).all()
    assert norm.running_var.eq(1).all()
    assert not norm.running_mean.any()


@pytest.mark.parametrize("make", networks.ALL)
def test_same_seed_same_network_and_the_global_states_are_untouched(make):
    traced = trace(make, input_shape=SMALL)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = traced.build(seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    torch.manual_seed(99)
    again, other = traced.build(seed=5), traced.build(seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_every_seed_draws_all_that_the_constructor_draws():
    traced = trace(hand_made, input_shape=SMALL)
    first, second = (dict(traced.build(seed=seed).named_parameters()) for seed in (0, 1))
    assert sum(int(first[name].eq(second[name]).sum()) for name in first) == 0
    assert traced.notes == ()


def test_what_is_drawn_is_the_same_in_every_process():
    torch.manual_seed(1)
    first = trace(hand_made, input_shape=SMALL).build(seed=4)
    torch.manual_seed(2)
    random.seed(2)
    second = trace(hand_made, input_shape=SMALL).build(seed=4)
    assert torch.equal(first.turn, second.turn)
    assert torch.equal(first[0].kernel, second[0].kernel)


@pytest.mark.parametrize("seed", [0, 1])
def test_values_set_by_hand_are_kept_where_the_width_is_not_free(seed):
    traced = trace(Warped, input_shape=SMALL)
    for widths in (traced.space.base, traced.space.narrowest):
        built = traced.build(widths, seed=seed)
        assert built.warp.bias.tolist() == [1, 0, 0, 0, 1, 0]
        assert not built.warp.weight.any()
    assert traced.notes == ()


def test_a_parameter_that_does_not_learn_keeps_its_values_and_its_width():
    traced = trace(Filtered, input_shape=SMALL)
    for seed in (0, 1):
        built = traced.build(traced.space.narrowest, seed=seed)
        assert built.edges.weight[0].flatten().tolist() == [1, 0, -1, 2, 0, -2, 1, 0, -1]
        assert not built.edges.weight.requires_grad

    def held(classes=10):
        network = plain(classes)
        network[1].weight.requires_grad_(False)
        return network

    frozen = trace(held, input_shape=SMALL).space
    assert [slot.name for slot in frozen.slots] == ["3"]
    assert next(item.reason for item in frozen.frozen if item.dimension == "0").startswith(
        "1.weight does not learn (requires_grad=False)"
    )


def test_values_set_by_hand_in_a_layer_of_free_width_are_lost_and_named():
    traced = trace(Filtered, input_shape=SMALL)
    assert len(traced.notes) == 1
    assert "lost in b.weight" in traced.notes[0]
    assert 'freeze = ["b"]' in traced.notes[0]
    first, second = (traced.build(seed=seed).b.weight for seed in (0, 1))
    assert not torch.equal(first, second)
    assert std(first) == pytest.approx(1 / math.sqrt(3 * 9 * 16), rel=0.1)


def test_a_network_that_arrives_trained_is_drawn_anew_and_says_so():
    traced = trace(arrives_trained, input_shape=SMALL)
    assert "arrives with the same values whatever the seed" in traced.notes[0]
    first, second = traced.build(seed=0), traced.build(seed=1)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.unique().numel() > 1)
    assert std(first[3].weight) == pytest.approx(1 / math.sqrt(3 * 9 * 96), rel=0.03)
    assert first[1].weight.eq(1).all()


def test_a_module_is_drawn_by_its_layers_and_says_so():
    network = Warped()
    traced = trace(network, input_shape=SMALL)
    assert "is a module and not the class or function" in traced.notes[0]
    first, second = traced.build(seed=0), traced.build(seed=1)
    assert first.warp.bias.tolist() == second.warp.bias.tolist() == [1, 0, 0, 0, 1, 0]
    assert not torch.equal(first.body.weight, second.body.weight)
    layers = nn.Sequential(*hand_made())
    one, other = (trace(layers, input_shape=SMALL).build(seed=seed)[0].kernel for seed in (0, 1))
    assert not torch.equal(one, other)
    assert one.flatten().sort().values.tolist() == other.flatten().sort().values.tolist()


def test_a_built_network_starts_as_published_under_the_paper_s_recipe_alone():
    traced = trace("vgg11", base_width=0.25)
    narrow = halves(traced.space)
    paper = traced.starting_as("paper").build(narrow, seed=0)
    assert paper.norm1_1.weight.eq(PAPER_GAMMA).all()
    assert std(paper.conv4_1.weight) == pytest.approx(math.sqrt(2 / (9 * narrow["conv4_1"])), rel=0.03)
    assert std(paper.classifier.weight) == pytest.approx(0.01, rel=0.1)
    assert traced.starting_as("fast").build(narrow, seed=0).norm1_1.weight.eq(1).all()
    other = trace(plain, input_shape=SMALL).starting_as("paper")
    assert other.build(seed=0)[1].weight.eq(1).all()


def test_grouped_fan_out_as_published():
    conv = nn.Conv2d(64, 64, 3, groups=64)
    published(conv, 0)
    assert std(conv.weight) == pytest.approx(math.sqrt(2 / 9), rel=0.1)
