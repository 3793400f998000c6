"""L1-norm filter pruning: the published configurations, their reductions, and the filters that stay."""

import pytest
import torch

from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning import l1_norm

# Widths of the slots, and what they save of params and macs (paper.md, section 4).
PUBLISHED = {
    ("resnet56", "A"): (
        [14] * 7 + [16, 14] + [32] + [28] * 8 + [64] + [57] * 7 + [64], 0.773e6, 0.104),
    ("resnet56", "B"): (
        [6] * 7 + [16, 16] + [32] + [22] * 6 + [32, 22] + [64] + [57] * 7 + [64], 0.736e6, 0.276),
    ("resnet110", "A"): ([8] * 17 + [16] + [32] * 18 + [64] * 18, 1.689e6, 0.159),
    ("resnet110", "B"): ([8] * 17 + [16] + [32] + [19] * 17 + [64] + [44] * 17, 1.168e6, 0.387),
}  # fmt: skip


@pytest.mark.parametrize(("model", "letter"), PUBLISHED)
def test_published_configurations_of_resnets(model, letter):
    widths, params, saved = PUBLISHED[model, letter]
    traced = trace(model)
    chosen = l1_norm.prune(traced.space, traced.build(seed=0), letter)
    assert list(chosen.widths.values()) == widths
    cost, base = traced.space.cost(chosen.widths), traced.space.cost(traced.space.base)
    assert cost.params == pytest.approx(params, rel=1e-3)
    assert 1 - cost.macs / base.macs == pytest.approx(saved, abs=1e-3)
    assert not chosen.floored


def test_vgg16_a():
    """34.2 % of the macs; of the convolutions' and norms' params 64 %, whose head in the paper is 512 wide."""
    traced = trace("vgg16")
    chosen = l1_norm.prune(traced.space, traced.build(seed=0), "A")
    assert list(chosen.widths.values()) == [32, 64, 128, 128] + [256] * 9
    cost, base = traced.space.cost(chosen.widths), traced.space.cost(traced.space.base)
    assert 1 - cost.macs / base.macs == pytest.approx(0.342, abs=1e-3)
    # Liu et al.'s head: 512-BN-ReLU-10, so 512 (width + 1) + 2 * 512 + 5130 in place of 10 (width + 1).
    with_head = [c.params + 502 * (w + 1) + 1024 + 5120 for c, w in ((base, 512), (cost, 256))]
    assert with_head[0] == pytest.approx(14.99e6, rel=1e-3)
    assert with_head[1] == pytest.approx(5.40e6, rel=1e-3)


def test_the_filters_with_the_largest_norms_stay():
    traced = trace("vgg11", base_width=0.125)
    network = traced.build(seed=4)
    chosen = l1_norm.prune(traced.space, network, "0.5")
    for slot in traced.space.slots:
        norms = network.get_submodule(slot.layers[0]).weight.abs().sum((1, 2, 3))
        best = torch.sort(norms.topk(slot.ceiling // 2).indices).values.tolist()
        assert list(chosen.kept[slot.name]) == best


def test_a_layer_never_vanishes():
    traced = trace("vgg11", base_width=0.125)
    chosen = l1_norm.prune(traced.space, traced.build(seed=0), "0.99")
    assert min(chosen.widths.values()) == 4
    assert "conv1_1" in chosen.floored


@pytest.mark.parametrize("ratio", ["0", "1", "1.5", "-0.1", "C", "nan"])
def test_ratios_that_are_none(ratio):
    traced = trace("resnet56")
    with pytest.raises(UsageError, match="above 0 and below 1"):
        l1_norm.prune(traced.space, traced.build(seed=0), ratio)
