"""Factors of residual blocks: folded without a trace, exactly zero where a block is out, and refused where none is."""

import pytest
import torch
from torch.nn import functional as F

from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import trace
from prune_nas.pruning import apg, sss, sss_blocks
from prune_nas.pruning.methods import METHODS

NETWORKS = ("resnet20", "preresnet164", "mobilenetv2")


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_what_is_pruned_computes_what_the_factors_left(name):
    traced = trace(name, base_width=0.25)
    plain, network = traced.build(seed=3), sss_blocks.attach(traced.space, traced.build(seed=3))
    assert torch.equal(plain.eval()(images()), network.eval()(images()))
    values = sss.factors_of(network).of("blocks")
    values.copy_(torch.linspace(0.2, 1, len(values)))
    values[[1, 4]] = 0
    before = network(images())
    folded = sss_blocks.fold(traced.space, network)
    rounding = 1e-5 * float(before.abs().max())  # norms that are not trained let a deep network's outputs grow
    torch.testing.assert_close(folded(images()), before, rtol=0, atol=rounding)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    chosen = sss_blocks.prune(traced.space, folded, "0.3")
    assert traced.space.gone(chosen.widths) == (traced.space.branches[1], traced.space.branches[4])
    shallow = inherit(traced.space, folded, traced.build(chosen.widths, seed=0), chosen.kept).eval()
    torch.testing.assert_close(shallow(images()), before, rtol=0, atol=rounding)


def test_a_step_is_the_published_update():
    traced = trace("resnet20", base_width=0.25)
    network = sss_blocks.attach(traced.space, traced.build(seed=3))
    values = sss.factors_of(network).of("blocks")
    expected, velocity, step = values.detach().clone(), torch.zeros(9), sss.penalty(0.3, 0.99, momentum=0.9)
    for lr in (0.1, 0.05):
        F.cross_entropy(network(images()), torch.arange(4)).backward()
        apg.step(expected, velocity, values.grad, lr=lr, strength=torch.full((9,), 0.3), momentum=0.9)
        step(network, lr)
    torch.testing.assert_close(values.detach(), expected)


def test_as_many_go_as_were_asked_for_even_where_all_are_equal():
    traced = trace("resnet20", base_width=0.25)
    network = sss_blocks.attach(traced.space, traced.build(seed=3))
    step = sss.penalty(100.0, 0.99, momentum=0.0)
    F.cross_entropy(network(images()), torch.arange(4)).backward()
    step(network, 0.1)
    chosen = sss_blocks.prune(traced.space, sss_blocks.fold(traced.space, network), "0.99")
    assert len(traced.space.gone(chosen.widths)) == 8  # 0.99 of nine, whole ones


def test_a_network_without_blocks_is_refused():
    traced = trace("vgg11")
    with pytest.raises(UsageError, match="no block of vgg11 can go"):
        METHODS["sss-blocks"].check(traced.space, traced.template, "0.5")
