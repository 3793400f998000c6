"""Building and inheriting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import trace

from . import networks
from .test_tracing import halves

SMALL = (3, 8, 8)


@pytest.mark.parametrize("make", networks.ALL)
def test_built_at_base_is_the_same_network(make):
    network = make()
    built = trace(network, input_shape=SMALL).build(seed=0)
    assert str(built) == str(network)
    assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert all(module.training for module in built.modules())


@pytest.mark.parametrize("make", networks.ALL)
def test_built_networks_train(make):
    traced = trace(make, input_shape=SMALL)
    built = traced.build(halves(traced.space), seed=0)
    built(torch.randn(2, *SMALL)).sum().backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_arguments_of_layers_survive():
    odd = nn.Sequential(
        nn.Conv2d(3, 8, (3, 1), stride=2, padding=(1, 0), dilation=1, padding_mode="reflect"),
        nn.BatchNorm2d(8, eps=1e-3, momentum=0.3, affine=False),
        nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10, bias=False),
    )
    built = trace(odd, input_shape=SMALL).build({"0": 5, "2": 4}, seed=0)
    assert str(built) == str(odd).replace("(3, 8,", "(3, 5,").replace("(8, 6,", "(5, 4,").replace(
        "(8, eps", "(5, eps"
    ).replace("(6, eps", "(4, eps").replace("in_features=6", "in_features=4")


def test_what_hangs_on_a_layer_survives():
    network = networks.Flat()
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    layer.note = "kept"
    calls = []
    layer.register_forward_hook(lambda module, inputs, output: calls.append(output.shape[1]))
    traced = trace(network, input_shape=SMALL)
    calls.clear()
    built = traced.build(halves(traced.space), seed=0)
    built(torch.randn(2, *SMALL))
    assert calls == [halves(traced.space)["body.0.0"]]
    assert next(module for module in built.modules() if isinstance(module, nn.Conv2d)).note == "kept"
    assert layer.weight.shape[0] == traced.space.base["body.0.0"]  # the traced network stays as it was


def test_a_bare_parameter_keeps_its_numbers_and_is_inherited():
    traced = trace(networks.Scaled, input_shape=SMALL)
    narrow, wide = traced.build({"stem": 5, "up": 6}, seed=0), traced.build({"stem": 11, "up": 6}, seed=0)
    assert narrow.scale.shape == (5, 1, 1)
    assert wide.shift.shape == (1, 11, 1, 1)
    assert wide.shift.eq(0.2).all()
    source = traced.build(seed=0)
    source.scale.data = torch.arange(8.0).reshape(8, 1, 1)
    inherit(traced.space, source, narrow, {"stem": [7, 1, 2, 5, 0], "up": range(6)})
    assert narrow.scale.flatten().tolist() == [7, 1, 2, 5, 0]


@pytest.mark.parametrize(
    "make", [networks.Grouped, networks.Tokens, networks.Depthwise, networks.Scaled, networks.Gated]
)
def test_inheriting_everything_is_a_copy(make):
    traced = trace(make, input_shape=SMALL)
    source, target = traced.build(seed=1), traced.build(seed=2)
    inherit(traced.space, source, target, {slot.name: range(slot.ceiling) for slot in traced.space.slots})
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_grouped_convolution_inherits_group_by_group():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.group, self.head = networks.cbr(3, 8), networks.cbr(8, 12, groups=2), networks.Head(12)

        def forward(self, x):
            return self.head(self.group(self.stem(x)))

    traced = trace(Net, input_shape=SMALL)
    source = traced.build(seed=1)
    kept = {"stem.0": [0, 2, 5, 6], "group.0": [1, 2, 3, 4, 6, 7, 8, 11]}
    with torch.no_grad():
        for name, slot in (("stem.1", "stem.0"), ("group.1", "group.0")):
            norm = source.get_submodule(name)
            gone = [i for i in range(len(norm.weight)) if i not in kept[slot]]
            norm.weight[gone] = 0
    target = traced.build({"stem.0": 4, "group.0": 8}, seed=2)
    inherit(traced.space, source, target, kept)
    x = torch.randn(2, *SMALL, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(target.eval()(x), source.eval()(x), atol=1e-5, rtol=1e-4)


def test_channels_without_an_identity_cannot_be_inherited():
    traced = trace(networks.Shuffled, input_shape=SMALL)
    network = traced.build(seed=0)
    with pytest.raises(UsageError, match=r"shuffles the channels of left\.0.*Leave out the inherited arm"):
        inherit(traced.space, network, network, {slot.name: range(slot.ceiling) for slot in traced.space.slots})


def test_wrong_names_and_channels():
    traced = trace(networks.Flat, input_shape=SMALL)
    with pytest.raises(UsageError, match="there is no slot of Flat 'hiden'"):
        traced.build({**traced.space.base, "hiden": 3}, seed=0)
    network = traced.build(seed=0)
    with pytest.raises(UsageError, match=r"kept channels of slot 'hidden' must lie in \[0, 9\)"):
        inherit(traced.space, network, network, {"body.0.0": [0], "body.1.0": [0], "hidden": [9]})
