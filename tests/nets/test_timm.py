"""Networks of timm, whose layers are its own subclasses of torch's: traced, counted, built, inherited."""

import pytest
import torch

from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import trace

from .test_tracing import counted, halves

SHAPE = (3, 64, 64)
SLOTS = {
    "resnet18": 12,
    "mobilenetv3_small_050": 26,
    "tf_efficientnet_b0": 40,
    "convnext_atto": 16,
    "regnetx_002": 31,
    "densenet121": 120,
    "nfnet_l0": 57,
}


@pytest.mark.parametrize("name", SLOTS)
def test_every_width_but_the_head_is_free(name):
    traced = trace(f"timm:{name}", input_shape=SHAPE)
    space = traced.space
    assert [item.reason for item in space.frozen] == ["the network's output (classes)"]
    assert len(space.slots) == SLOTS[name]
    widths = halves(space)
    network = traced.build(widths, seed=0)
    assert space.cost(widths)[:2] == counted(network, SHAPE)
    trained = traced.build(widths, seed=0)
    trained(torch.randn(2, *SHAPE)).sum().backward()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "nfnet_l0"])
def test_inheriting_every_channel_changes_nothing(name):
    traced = trace(f"timm:{name}", input_shape=SHAPE)
    space, x = traced.space, torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    source, target = (traced.build(space.widest, seed=seed) for seed in (0, 1))
    inherit(space, source, target, {slot.name: tuple(range(slot.ceiling)) for slot in space.slots})
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(x), source.eval()(x))


def test_a_standardised_convolution_is_scaled_by_its_own_fan_in():
    traced = trace("timm:nfnet_l0", input_shape=SHAPE)
    halved = traced.space.snap(dict.fromkeys(traced.space.base, 0.5))
    for widths in (traced.space.base, halved):
        conv, whole = traced.build(widths, seed=0).stem.conv2, traced.template.stem.conv2
        assert conv.scale == pytest.approx(whole.scale * (whole.weight[0].numel() / conv.weight[0].numel()) ** 0.5)


def test_a_network_that_looks_at_its_input_is_followed():
    space = trace("timm:vgg11_bn", input_shape=(3, 32, 32), classes=10).space
    assert space.cost(space.base).params > 0


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean timm:resnet18"):
        trace("timm:resnet_18", input_shape=SHAPE)
