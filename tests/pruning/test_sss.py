"""Scaling factors: part of the network while it trains, gone without a trace afterwards, and exactly zero where out."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.pruning import apg, sss
from prune_nas.training.data import load
from prune_nas.training.loop import Setting, train
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import recipe


@pytest.fixture(scope="module")
def traced():
    return trace("resnet20", base_width=0.5)


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_at_first_the_network_is_what_it_was(traced):
    plain, scaled = traced.build(seed=3), sss.attach(traced.space, traced.build(seed=3))
    assert torch.equal(plain(images()), scaled(images()))


@torch.no_grad()
def test_folding_leaves_the_outputs_and_an_ordinary_network(traced):
    network = sss.attach(traced.space, traced.build(seed=3))
    for number, values in enumerate(sss.factors_of(network).values):
        values.copy_(torch.rand(len(values), generator=torch.Generator().manual_seed(number)))
        values[0] = 0
    network.eval()
    before = network(images())
    folded = sss.fold(traced.space, network)
    torch.testing.assert_close(folded(images()), before)
    assert folded.state_dict().keys() == traced.build(seed=0).state_dict().keys()
    left = {slot.name: slot.ceiling - 1 for slot in traced.space.slots}
    assert sss.left(traced.space, folded) == left
    chosen = sss.prune(traced.space, folded, "0.1")
    assert all(chosen.kept[name] == tuple(range(1, n + 1)) for name, n in left.items())


@torch.no_grad()
def test_a_norm_of_several_slots_scales_each_by_its_own():
    traced = trace("densenet40", base_width=0.34)
    network = sss.attach(traced.space, traced.build(seed=0)).eval()
    network(images())
    for values in sss.factors_of(network).values:
        values[1] = 0.25
    before = network(images())
    torch.testing.assert_close(sss.fold(traced.space, network)(images()), before)


def test_a_step_is_the_published_update(traced):
    network = sss.attach(traced.space, traced.build(seed=3))
    factors = sss.factors_of(network)
    velocity = [torch.zeros_like(values) for values in factors.values]
    expected = [values.detach().clone() for values in factors.values]
    step = sss.penalty(0.3, 0.99, momentum=0.9)
    for lr in (0.1, 0.05):
        F.cross_entropy(network(images()), torch.arange(4)).backward()
        for old, v, now, floor in zip(expected, velocity, factors.values, factors.floors, strict=True):
            strength = torch.full_like(old, 0.3)
            strength[old.topk(floor).indices] = 0
            apg.step(old, v, now.grad, lr=lr, strength=strength, momentum=0.9)
        step(network, lr)
        assert all(values.grad is None for values in factors.values)  # the network's own optimiser has no say
    for old, now in zip(expected, factors.values, strict=True):
        torch.testing.assert_close(old, now.detach())


@pytest.fixture(scope="module")
def setting():
    return Setting(load("digits", seed=0, train_size=320, val_size=64), torch.device("cpu"), Precision("fp32"))


def trained(traced, setting, share, epochs=3, **other):
    plan = dataclasses.replace(recipe("fast", epochs), batch=32)
    strength = sss.strength_for(plan, len(setting.data.train))
    network, _ = train(
        lambda: sss.attach(traced.space, traced.build(seed=1)),
        setting,
        plan,
        seed=1,
        penalty=sss.penalty(strength, share, plan.momentum),
        **other,
    )
    return network


@pytest.fixture(scope="module")
def digits():
    return trace("vgg11", base_width=0.25, input_shape=(3, 32, 32), classes=10)


def test_the_share_that_was_asked_for_goes_and_no_layer_vanishes(digits, setting):
    network = trained(digits, setting, 0.4)
    factors = sss.factors_of(network)
    out = torch.cat([mask == 0 for mask in factors.alive])
    values = torch.cat(list(factors.values))
    assert int(out.sum()) == int(0.4 * len(out))
    assert (values[out] == 0).all()
    folded = sss.fold(digits.space, network)
    left = sss.left(digits.space, folded)
    assert sum(left.values()) == len(out) - int(out.sum())
    assert all(left[slot.name] >= slot.floor for slot in digits.space.slots)
    chosen = sss.prune(digits.space, folded, "0.4")
    assert dict(chosen.widths) == left


def test_it_goes_on_from_a_checkpoint_as_it_would_have(digits, setting, tmp_path):
    class StopError(Exception):
        pass

    def stop(epoch):
        if epoch.number == 2:
            raise StopError

    with pytest.raises(StopError):
        trained(digits, setting, 0.4, checkpoint=tmp_path / "c", on_epoch=stop)
    resumed = trained(digits, setting, 0.4, checkpoint=tmp_path / "c").state_dict()
    for name, value in trained(digits, setting, 0.4).state_dict().items():
        assert torch.equal(value, resumed[name]), name


def test_without_a_norm_there_is_nothing_to_scale():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(torch.relu(self.a(x)).mean((2, 3)))

    bare = trace(Bare(), classes=2)
    with pytest.raises(UsageError, match="Use l1-norm"):
        sss.attach(bare.space, bare.build(seed=0))


class Backwards(nn.Module):
    """A concatenation whose first part comes from the later layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.early, self.late, self.head = nn.BatchNorm2d(8), nn.BatchNorm2d(14), nn.Linear(14, 10)

    def forward(self, x):
        x = self.early(self.first(x)).relu()
        y = self.second(x)
        return self.head(self.late(torch.cat([y, x], 1)).relu().mean((2, 3)))


@torch.no_grad()
@pytest.mark.parametrize("make", [Backwards, "timm:cs3darknet_s"])
def test_folding_is_exact_whatever_stands_before_and_behind_the_norm(make):
    if isinstance(make, str):
        pytest.importorskip("timm")
    traced = trace(make if isinstance(make, str) else make())
    network = sss.attach(traced.space, traced.build(seed=1)).eval()
    for number, values in enumerate(sss.factors_of(network).values):
        values.copy_(torch.rand(len(values), generator=torch.Generator().manual_seed(number)) + 0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.mul_(4)  # far from where an activation is a straight line
    network, inputs = network.double(), images().double()
    before = network(inputs)
    torch.testing.assert_close(sss.fold(traced.space, network)(inputs), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_after_the_penalty_no_other_factor_comes_to_zero(traced):
    """Training may take a small factor to zero by itself; as many go as were asked for, and no more."""
    network = sss.attach(traced.space, traced.build(seed=3))
    factors = sss.factors_of(network)
    with torch.no_grad():
        factors.alive[0][0] = 0  # the penalty is over
        factors.values[0][0] = 0
        factors.values[1][0] = 1e-6
    for values in factors.values:
        values.grad = torch.ones_like(values)
    sss.penalty(0.3, 0.1, momentum=0.9)(network, 0.1)
    assert factors.values[0][0] == 0
    assert 0 < factors.values[1][0] < 1e-6
    assert sum(int((values == 0).sum()) for values in factors.values) == 1
