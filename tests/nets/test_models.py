"""The built-in networks against published totals and torch's own counter."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch
import torch.nn.functional as F

from prune_nas.errors import UsageError
from prune_nas.nets import tracing
from prune_nas.nets.models import DESCRIPTIONS, MODELS, create

from .test_tracing import counted, halves

SHAPE = (3, 32, 32)
trace = functools.cache(tracing.trace)
# github.com/foolwood/pytorch-slimming: VGG-19 with 70 % of its channels removed.
SLIMMED = (49, 64, 128, 128, 256, 254, 234, 198, 114, 41, 24, 11, 14, 13, 19, 104)
# "Pruning Filters for Efficient ConvNets", table 1.
VGG16_A = (32, 64, 128, 128, *[256] * 9)


@pytest.mark.parametrize("name", MODELS)
def test_cost_is_what_torch_counts(name):
    traced = trace(name)
    assert traced.space.cost(traced.space.base)[:2] == counted(create(name, 10), SHAPE)
    widths = halves(traced.space)
    assert traced.space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SHAPE)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("vgg19", 20.035e6, 398.1e6),
        ("resnet20", 0.27e6, 40.6e6),
        ("resnet56", 0.853e6, 125.5e6),
        ("resnet110", 1.728e6, 252.9e6),
        ("preresnet164", 1.703e6, 247.6e6),
        ("densenet40", 1.06e6, 282.9e6),
        ("mobilenetv2", 2.237e6, 88.0e6),
    ],
)
def test_published_totals(name, params, macs):
    space = trace(name).space
    cost = space.cost(space.base)
    assert cost.params == pytest.approx(params, rel=2e-3)
    assert cost.macs == pytest.approx(macs, rel=2e-3)


def test_published_slimmed_vgg19():
    space = trace("vgg19").space
    cost = space.cost(dict(zip(space.base, SLIMMED, strict=True)))
    assert cost.params == pytest.approx(2.37e6, rel=3e-3)
    assert cost.macs == pytest.approx(208.3e6, rel=1e-3)


def test_published_vgg16_a_saves_its_share_of_macs():
    space = trace("vgg16").space
    cost = space.cost(dict(zip(space.base, VGG16_A, strict=True)))
    assert 1 - cost.macs / space.cost(space.base).macs == pytest.approx(0.342, abs=1e-3)


@pytest.mark.parametrize("blocks", [3, 9])
def test_resnet_frees_the_first_convolution_of_each_block(blocks):
    space = trace(f"resnet{6 * blocks + 2}").space
    assert list(space.base) == [f"stage{s}.block{b}.conv1" for s in (1, 2, 3) for b in range(blocks)]
    reasons = {item.dimension: item.reason for item in space.frozen}
    assert "do not line up" in reasons["conv"]
    assert "8 + conv (16) + 8" in reasons["conv"]


@pytest.mark.parametrize("name", ["vgg16", "resnet20"])
@pytest.mark.parametrize("factor", [0.02, 0.25, 0.3, 0.5, 2])
def test_base_width_scales_every_layer(name, factor):
    traced = trace(name, base_width=factor)
    assert traced.space.cost(traced.space.base)[:2] == counted(create(name, 10, factor), SHAPE)
    widths = halves(traced.space)
    assert traced.space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SHAPE)
    assert all(slot.floor == min(4, slot.ceiling) for slot in traced.space.slots)


def test_half_width_vgg16_is_the_scaled_space():
    space = trace("vgg16", base_width=0.5).space
    assert space == trace("vgg16").scaled(base=0.5).space
    assert space.cost(space.base)[:2] == (78_744_064, 3_684_842)


def test_half_width_resnet20_has_half_streams_and_can_still_be_widened():
    half = trace("resnet20", base_width=0.5)
    network = create("resnet20", 10, base_width=0.5)
    assert [network.get_submodule(f"stage{i}.block2.conv2").out_channels for i in (1, 2, 3)] == [8, 16, 32]
    assert half.space.cost(half.space.base)[:2] == counted(network, SHAPE)
    wide = half.scaled(supernet=2.0)
    assert wide.space.base == half.space.base
    assert [slot.ceiling for slot in wide.space.slots] == [16] * 3 + [32] * 3 + [64] * 3
    assert wide.space.cost(wide.space.widest)[:2] == counted(wide.build(wide.space.widest, seed=0), SHAPE)


def test_the_narrowest_resnet_still_halves_its_maps():
    network = create("resnet20", 10, base_width=0.01).eval()
    with torch.no_grad():
        x = network.get_submodule("conv")(torch.zeros(1, *SHAPE))
        for stage, size in (("stage1", 32), ("stage2", 16), ("stage3", 8)):
            x = network.get_submodule(stage)(x)
            assert x.shape[2:] == (size, size)


@pytest.mark.parametrize("factor", [0, -1, float("nan")])
def test_base_width_must_be_positive(factor):
    with pytest.raises(UsageError, match=rf"^--base-width must be above 0. Got {factor}$"):
        create("vgg11", 10, factor)


def test_option_a_passes_the_gradient():
    network = create("resnet20", 10)
    block = network.get_submodule("stage2.block0")
    x = torch.ones(1, 16, 4, 4, requires_grad=True)
    torch.nn.init.zeros_(block.get_submodule("norm2").weight)  # only the shortcut remains
    block(x).sum().backward()
    assert x.grad[0, :, ::2, ::2].eq(1).all()


def test_other_input_sizes_work():
    assert F.softmax(create("vgg11", 7).eval()(torch.zeros(2, 3, 48, 48)), 1).shape == (2, 7)


def test_every_model_is_described_and_unknown_ones_have_neighbours():
    assert set(DESCRIPTIONS) == set(MODELS)
    assert all({"classes", "base_width"} == set(inspect.signature(make).parameters) for make in MODELS.values())
    with pytest.raises(UsageError, match="Did you mean resnet"):
        create("resnet65", 10)
