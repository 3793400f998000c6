"""Slots, extents and costs as read from ordinary PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prune_nas.design.parts import Segment
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.settings import SlotSettings, SpaceSettings
from prune_nas.nets.tracing import trace

from . import networks
from .networks import Head, cbr

SMALL = (3, 8, 8)


def counted(network, shape):
    """Macs and params, as torch and the network itself count them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval().to("meta")(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters())


def halves(space, seed=0):
    """Random allowed widths."""
    generator = torch.Generator().manual_seed(seed)
    return space.snap({slot.name: float(torch.rand((), generator=generator)) for slot in space.slots})


@pytest.mark.parametrize("make", networks.ALL)
@pytest.mark.parametrize("seed", range(3))
def test_cost_is_exact_at_random_widths(make, seed):
    traced = trace(make, input_shape=SMALL)
    assert traced.space.cost(traced.space.base)[:2] == counted(make(), SMALL)
    widths = halves(traced.space, seed)
    assert traced.space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SMALL)
    assert all(layer.kind != "fixed" for layer in traced.space.layers)


def test_residual_stream_is_one_slot_with_its_norms():
    space = trace(networks.Residual, input_shape=SMALL).space
    assert [slot.name for slot in space.slots] == ["stem", "a1.0", "b1.0"]
    assert space.by_name["stem"].layers == ("stem", "a2", "b2")
    norms = [layer.name for layer in space.layers if layer.kind == "norm" and layer.outputs == (Segment("stem", 1),)]
    assert norms == ["norm", "an"]
    assert [item.dimension for item in space.frozen] == ["head.linear"]


def test_concatenation_gives_segments():
    layers = {layer.name: layer for layer in trace(networks.Concat, input_shape=SMALL).space.layers}
    first, second, third = Segment("stem.0", 1), Segment("grow1.0", 1), Segment("grow2.0", 1)
    assert layers["both"].outputs == (first, second)
    assert layers["head.linear"].inputs == (first, second, third)


def test_depthwise_ties_and_gate_joins():
    space = trace(networks.Depthwise, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    assert space.by_name["expand.0"].layers == ("expand.0", "excite")
    assert layers["depth"].inputs == (Segment(None, 1),)
    assert layers["depth"].outputs == (Segment("expand.0", 1),)
    assert layers["project.0"].inputs == (Segment("expand.0", 2),)


def test_a_parameter_with_one_number_a_channel_follows():
    space = trace(networks.Scaled, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    assert [slot.name for slot in space.slots] == ["stem", "up"]
    assert layers["scale"].outputs == layers["shift"].outputs == layers["norm"].outputs == (Segment("stem", 1),)
    assert [item.dimension for item in space.frozen] == ["head.linear"]


class Twice(nn.Module):
    """A scale that follows one width and is read for another: each way of reading it must freeze it."""

    def __init__(self, way):
        super().__init__()
        self.one, self.two, self.mix, self.head = cbr(3, 16), cbr(3, 16), cbr(32, 8), Head(8)
        self.scale, self.rows, self.way = nn.Parameter(torch.ones(16)), nn.Parameter(torch.ones(3, 16)), way

    def forward(self, x):
        a, b = self.one(x), self.two(x)
        if self.way == "sigmoid":
            a, b = a * self.scale.view(1, -1, 1, 1), b * torch.sigmoid(self.scale.view(1, -1, 1, 1))
        elif self.way == "row":
            a = a * self.rows[-1].view(-1, 1, 1)
        elif self.way == "weight":
            b = b * self.mix[0].weight.mean()
        elif self.way == "size":
            z = torch.cat([a, torch.zeros_like(x).mean(1, keepdim=True).expand(-1, 16, -1, -1)], 1)
            return self.head(self.mix(z.view(z.size(0), 2 * a.shape[1], 8, 8)))
        return self.head(self.mix(torch.cat([a, b], 1)))


@pytest.mark.parametrize(
    ("way", "free"),
    [("none", {"one.0", "two.0", "mix.0"}), ("sigmoid", {"mix.0"}), ("row", {"two.0", "mix.0"}), ("weight", set()),
     ("size", {"two.0", "mix.0"})],
)  # fmt: skip
def test_what_is_read_in_two_ways_is_not_free(way, free):
    if not free:
        with pytest.raises(UsageError, match=r"no free width .*mix.0.weight is also read in a way"):
            trace(Twice(way), input_shape=SMALL)
        return
    traced = trace(Twice(way), input_shape=SMALL)
    assert {slot.name for slot in traced.space.slots} == free
    network = traced.build(traced.space.narrowest, seed=0)
    network(torch.zeros(2, *SMALL))
    assert traced.space.cost(traced.space.narrowest).params == sum(p.numel() for p in network.parameters())


def test_what_is_added_to_a_concatenation_has_a_part_for_each_branch():
    space = trace(networks.Joined, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    row = (Segment("left.0", 1), Segment("right.0", 1))
    assert [slot.name for slot in space.slots] == ["stem.0", "left.0", "right.0"]
    assert layers["first.0"].outputs == layers["again"].outputs == layers["shortcut"].outputs == row
    assert space.by_name["right.0"].layers == ("right.0", "first.0", "shortcut", "again")
    assert [slot.multiple for slot in space.slots] == [1, 2, 2]


def test_norms_and_scales_written_by_hand_follow():
    space = trace(networks.OwnNorm, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    assert [slot.name for slot in space.slots] == ["stem", "down"]
    assert layers["norm.weight"].outputs == layers["norm.bias"].outputs == layers["gamma"].outputs
    assert layers["gamma"].outputs == (Segment("stem", 1),)
    assert [item.dimension for item in space.frozen] == ["head.linear"]


def test_a_scale_with_its_size_written_out_is_frozen():
    class Net(networks.OwnNorm):
        def forward(self, x):
            x = self.norm(self.stem(x))
            return self.head(x + self.gamma.view(1, 8, 1, 1) * self.up(F.gelu(self.down(x))))

    space = trace(Net, input_shape=SMALL).space
    assert [slot.name for slot in space.slots] == ["down"]


def test_cut_and_interleaved_channels_are_free_in_their_width_alone():
    space = trace(networks.Shuffled, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    assert {slot.name: slot.shuffled for slot in space.slots} == {"stem.0": False, "left.0": True, "inner.0": False}
    assert space.by_name["left.0"].layers == ("left.0", "right.0", "outer.0")
    assert layers["norm"].outputs == layers["head.linear"].inputs == (Segment("left.0", 2),)
    assert [item.dimension for item in space.frozen] == ["head.linear"]


def test_a_gate_cuts_its_convolution_in_two_equal_pieces_in_order():
    space = trace(networks.Gated, input_shape=SMALL).space
    layers = {layer.name: layer for layer in space.layers}
    assert not any(slot.shuffled for slot in space.slots)
    assert space.by_name["both.0"].ceiling == 8
    assert layers["both.0"].outputs == layers["both.1"].outputs == (Segment("both.0", 1), Segment("both.0", 1))
    assert layers["head.linear"].inputs == (Segment("left.0", 2),)


def test_flatten_repeats_each_channel():
    layers = {layer.name: layer for layer in trace(networks.Flat, input_shape=SMALL).space.layers}
    assert layers["hidden"].inputs == (Segment("body.1.0", 4),)
    assert layers["out"].inputs == (Segment("hidden", 1),)


def test_groups_set_the_multiple_and_the_floor():
    space = trace(networks.Grouped, input_shape=SMALL).space
    assert space.by_name["stem.0"].multiple == 4
    assert (space.by_name["group"].multiple, space.by_name["group"].floor) == (12, 12)
    assert {slot.name: (slot.kind, slot.groups) for slot in space.slots} == {
        "stem.0": ("group width", 4),
        "group": ("group width", 4),
        "up": ("width", 1),
    }


def test_resnext_and_regnet_choose_the_width_of_a_group():
    for name, groups in (("resnext50_32x4d", {32}), ("regnet_x_400mf", {2, 4, 10, 25})):
        space = trace(f"torchvision:{name}", input_shape=(3, 32, 32)).space
        own = [slot for slot in space.slots if slot.kind == "group width"]
        assert {slot.groups for slot in own} == groups
        assert all(slot.multiple % slot.groups == 0 for slot in own)
        assert {slot.ceiling // slot.groups for slot in own} == ({4, 8, 16, 32} if "resnext" in name else {16})


@pytest.mark.parametrize("shuffle", [True, False])
def test_unknown_operation_freezes_and_is_named(shuffle):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = cbr(3, 8), cbr(8, 8), Head(8)

        def forward(self, x):
            x = self.one(x)
            x = torch.roll(x, 1, 1) if shuffle else x.view(x.size(0), 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)
            return self.head(self.two(x))

    space = trace(Net, input_shape=SMALL).space
    assert [slot.name for slot in space.slots] == ["two.0"]
    frozen = next(item for item in space.frozen if item.dimension == "one.0")
    assert ("roll" if shuffle else "view") in frozen.reason
    assert "test_tracing.py:" in frozen.reason


def test_frozen_dimensions_still_count():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = cbr(3, 8), cbr(8, 8), Head(8)
            self.scale = nn.Parameter(torch.ones(1, 8, 8, 8))
            self.unused = nn.Linear(3, 3)
            self.free = cbr(8, 5)
            self.back = cbr(5, 8)

        def forward(self, x):
            x = self.back(self.free(self.one(x) * self.scale))
            tokens = self.two(x).flatten(2)
            return self.head((tokens.transpose(1, 2) @ tokens).unflatten(1, (8, 8)).mean(3, keepdim=True) * x)

    traced = trace(Net, input_shape=SMALL)
    assert traced.space.cost(traced.space.base)[:2] == counted(Net(), SMALL)
    assert traced.space.cost({"free.0": 4})[:2] == counted(traced.build({"free.0": 4}, seed=0), SMALL)
    names = {item.dimension: item.reason for item in traced.space.frozen}
    assert "matmul" in names["two.0"]
    assert {"the network's own parameters", "unused", "other operations"} <= set(names)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x + torch.ones(8, 1, 1), "ones"),
        (lambda x: x[:, ::2].repeat(1, 2, 1, 1), "getitem"),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "getitem"),
        (lambda x: torch.cat(x.split(4, 1), 1), "split"),
        (lambda x: torch.cat(x.chunk(3, 1), 1), "chunk"),
        (lambda x: F.pad(x, (0, 0, 0, 0, -1, 1)), "pad"),
        (lambda x: x.view(x.size(0), 8, -1).view(-1, 8, 8, 8), "view"),
        (lambda x: torch.einsum("nchw->nchw", x), "einsum"),
        (lambda x: x + torch.zeros(x.shape), "zeros"),
        (lambda x: torch.roll(torch.channel_shuffle(x, 2), 1, 1), "roll"),
        (lambda x: x.clamp(min=torch.zeros(8, 1, 1)), "clamp"),
        (lambda x: torch.clamp(x, max=torch.ones(8, 1, 1)), "clamp"),
    ],
)
def test_never_followed(change, reason):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = cbr(3, 8), cbr(8, 8), Head(8)

        def forward(self, x):
            return self.head(self.two(change(self.one(x))))

    traced = trace(Net, input_shape=SMALL)
    if reason == "ones":  # a constant made at tracing: the sum is what freezes
        reason = "add"
    assert [slot.name for slot in traced.space.slots] == ["two.0"]
    assert reason in traced.space.frozen[0].reason


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.view(x.size(0), x.size(1), -1).view(x.shape[0], -1, 8, 8),
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: 1 - x / x.size(1),
        lambda x: x[..., ::2] + x[:, :, :, 1::2],
        lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2) * x.mean(1, keepdim=True),
        lambda x: x * x.mean((2, 3)).view(x.size(0), x.size(1), 1, 1),
        lambda x: F.interpolate(F.avg_pool2d(x, 2), size=x.shape[2:]),
        lambda x: F.pad(x, (1, 1)).clamp(min=0).float(),
        lambda x: x.clamp(0, 6).type_as(x).to(x),
        lambda x: x * x.mean(axis=(2, 3), keepdims=True) + x.sum(axis=1, keepdim=True),
        lambda x: x * torch.mean(x, axis=(2, 3)).view(x.size(0), x.size(1), 1, 1),
    ],
)
def test_followed(change):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = cbr(3, 8), cbr(8, 8), Head(8)

        def forward(self, x):
            return self.head(self.two(change(self.one(x))))

    traced = trace(Net, input_shape=SMALL)
    assert [slot.name for slot in traced.space.slots] == ["one.0", "two.0"]
    widths = {"one.0": 5, "two.0": 7}
    assert traced.space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SMALL)


def test_an_operation_of_two_widths_frees_neither():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three, self.head = cbr(3, 8), cbr(3, 8), cbr(8, 8), Head(8)

        def forward(self, x):
            return self.head(self.three(self.one(x).clamp(min=self.two(x))))

    space = trace(Net, input_shape=SMALL).space
    assert [slot.name for slot in space.slots] == ["three.0"]
    reasons = {item.dimension: item.reason for item in space.frozen}
    assert "clamp" in reasons["one.0"]
    assert "clamp" in reasons["two.0"]


def test_a_mean_over_places_named_axis_keeps_the_channels():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.out = cbr(3, 8), nn.Linear(8, 10)

        def forward(self, x):
            return self.out(self.one(x).mean(axis=(2, 3)))

    traced = trace(Net, input_shape=SMALL)
    assert traced.space.cost({"one.0": 5})[:2] == counted(traced.build({"one.0": 5}, seed=0), SMALL)


def test_groups_that_divide_only_a_concatenation_freeze_its_parts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = cbr(3, 6), cbr(3, 6), cbr(3, 8)
            self.group, self.head = nn.Conv2d(20, 8, 1, groups=4), Head(8)

        def forward(self, x):
            return self.head(self.group(torch.cat([self.one(x), self.two(x), self.three(x)], 1)))

    traced = trace(Net, input_shape=SMALL)
    assert [slot.name for slot in traced.space.slots] == ["three.0", "group"]
    assert [item.dimension for item in traced.space.frozen] == ["one.0", "two.0", "head.linear"]
    assert traced.space.frozen[0].reason.startswith("its 6 channels are not a multiple of 4 groups: Conv2d at group")
    widths = {"three.0": 4, "group": 4}
    assert traced.space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SMALL)


def test_attention_map_of_one_channel_stays_one():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.map, self.head = cbr(3, 8), nn.Conv2d(8, 1, 1), Head(8)

        def forward(self, x):
            x = self.one(x)
            return self.head(x * self.map(x))

    space = trace(Net, input_shape=SMALL).space
    assert [slot.name for slot in space.slots] == ["one.0"]
    assert "broadcast" in space.frozen[0].reason


def test_layer_called_twice_ties_its_ends_and_costs_twice():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.again, self.head = cbr(3, 8), cbr(8, 8), Head(8)

        def forward(self, x):
            return self.head(self.again(self.again(self.one(x))))

    traced = trace(Net, input_shape=SMALL)
    assert [slot.name for slot in traced.space.slots] == ["one.0"]
    assert traced.space.cost({"one.0": 5})[:2] == counted(traced.build({"one.0": 5}, seed=0), SMALL)


def test_stage_and_depth_follow_the_longest_path():
    space = trace("vgg16").space
    assert [slot.stage for slot in space.slots] == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert [slot.depth for slot in space.slots[4:7]] == [0, 0.5, 1]
    assert trace(networks.Flat, input_shape=SMALL).space.stage_names == ("8x8", "1")


def test_json_round_trip():
    space = trace("resnet20").space
    assert Space.from_dict(space.to_dict()) == space


def test_scaled_keeps_base_and_supernet_apart():
    traced = trace("vgg11", settings=SpaceSettings(widening=2.0))
    slot = traced.space.slots[0]
    assert (slot.ceiling, traced.space.base[slot.name]) == (128, 64)
    half = traced.scaled(base=0.5, supernet=1.5).space
    assert (half.slots[0].ceiling, half.base[slot.name]) == (96, 32)
    assert traced.scaled().space == traced.space


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.5])
def test_a_constructor_that_takes_base_width_gets_it(factor):
    def made(classes, base_width=1.0):
        return nn.Sequential(cbr(3, round(8 * base_width)), Head(round(8 * base_width)))

    traced = trace(made, input_shape=SMALL, base_width=factor)
    assert traced.space.base == traced.space.widest == {"0.0": round(8 * factor)}
    assert traced.space.cost(traced.space.base)[:2] == counted(made(10, factor), SMALL)


def test_other_networks_are_scaled_slot_by_slot():
    for model in (networks.Residual, networks.Residual()):
        half = trace(model, input_shape=SMALL, base_width=0.5)
        assert half.space == trace(networks.Residual, input_shape=SMALL).scaled(base=0.5).space
        assert half.space.cost(half.space.base)[:2] == counted(half.build(seed=0), SMALL)


@pytest.mark.parametrize("model", ["resnet20", networks.Residual, lambda base_width: networks.Residual()])
@pytest.mark.parametrize("factor", [0, -0.5])
def test_base_width_must_be_positive(model, factor):
    with pytest.raises(UsageError, match=rf"^--base-width must be above 0. Got {factor}$"):
        trace(model, input_shape=SMALL, base_width=factor)


def test_settings_are_applied():
    settings = SpaceSettings(
        floor=8, multiple=8, freeze=("conv1_1",), slots={"conv5_2": SlotSettings(floor=64, multiple=64, ceiling=1024)}
    )
    space = trace("vgg11", settings=settings).space
    assert "conv1_1" not in space.by_name
    assert space.by_name["conv2_1"].floor == space.by_name["conv2_1"].multiple == 8
    last = space.by_name["conv5_2"]
    assert (last.floor, last.ceiling, last.multiple, space.base["conv5_2"]) == (64, 1024, 64, 512)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SpaceSettings(freeze=("conv1_2",)), "there is no slot of vgg11 'conv1_2'. Did you mean"),
        (SpaceSettings(stage_names=("a",)), "stage_names of vgg11 must be 5 names"),
        (SpaceSettings(slots={"conv1_1": SlotSettings(ceiling=32)}), "ceiling"),
        (SpaceSettings(slots={"conv1_1": SlotSettings(multiple=7)}), "multiple"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        trace("vgg11", settings=settings)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 8, 8)])
def test_an_input_that_does_not_fit_is_one_line(shape, capfd):
    with pytest.raises(UsageError, match=f"^vgg11 does not run on an input of shape {shape[0]}x") as caught:
        trace("vgg11", input_shape=shape)
    assert "\n" not in str(caught.value)
    assert "Give the input shape" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_errors_name_the_repair():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3)
            self.two = nn.Conv2d(3, 8, 3)
            self.two.weight = self.one.weight

    with pytest.raises(UsageError, match=r"there is no network 'vgg91'. Did you mean vgg19"):
        trace("vgg91")
    with pytest.raises(UsageError, match=r"cannot trace Branches.*test_tracing.py:\d+: return x if"):
        trace(Branches)
    with pytest.raises(UsageError, match=r"a tensor of shape \(7,\).*--classes 10, or in Python classes=10"):
        trace(networks.Flat(), classes=7)
    with pytest.raises(UsageError, match="no free width"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), input_shape=SMALL)
    with pytest.raises(UsageError, match=r"one.weight and two.weight"):
        trace(Tied())
    with pytest.raises(UsageError, match="groups"):
        trace(networks.Grouped, input_shape=SMALL).build({"stem.0": 6, "group": 12, "up": 6}, seed=0)


class Two(nn.Module):
    """Two inputs and two outputs, one of them features; an argument with a default."""

    def __init__(self):
        super().__init__()
        self.image, self.more = cbr(3, 8), nn.Linear(5, 6)
        self.mix = nn.Linear(14, 9)
        self.head, self.other = nn.Linear(9, 10), nn.Linear(9, 4)

    def forward(self, x, y, scale=None, features=False):
        x = self.image(x).mean((2, 3))
        z = self.mix(torch.cat([x, self.more(y).relu()], 1)).relu()
        if scale is not None:
            z = z * scale
        if features:
            return z
        return {"classes": self.head(z), "others": [self.other(z), x]}


def test_several_inputs_and_outputs():
    traced = trace(Two, input_shape=SMALL, other_inputs=[(5,)])
    space = traced.space
    assert [slot.name for slot in space.slots] == ["more", "mix"]  # `image` leaves the network as it is
    assert {item.dimension for item in space.frozen} == {"image.0", "head", "other"}
    assert Space.from_dict(space.to_dict()) == space
    network = traced.build({"more": 4, "mix": 5}, seed=0)
    out = network(torch.zeros(2, *SMALL), torch.zeros(2, 5))
    assert out["classes"].shape == (2, 10)
    macs, params = space.cost({"more": 4, "mix": 5})[:2]
    assert params == sum(p.numel() for p in network.parameters())
    assert macs == 64 * 27 * 8 + 5 * 4 + 12 * 5 + 5 * 10 + 5 * 4
    with pytest.raises(UsageError, match=r"takes 2 inputs.*Wrap it"):
        traced.check(torch.zeros(2, *SMALL))


@pytest.mark.parametrize("others", [[], [(5,), (3,), (1,), (1,)]])
def test_a_shape_for_each_input_is_asked_for(others):
    with pytest.raises(UsageError, match=r"takes 2 inputs \(x, y\). Got the shapes of"):
        trace(Two, input_shape=SMALL, other_inputs=others)


class Trap(nn.Module):
    """What a reading in eval mode cannot see: a size written out in a branch of training; two outputs in training."""

    def __init__(self, aux=False):
        super().__init__()
        self.body, self.head, self.aux = cbr(3, 16), Head(16), aux

    def forward(self, x):
        x = self.body(x)
        if self.training and not self.aux:
            x = x.view(-1, 16, 8, 8)
        return (self.head(x), x) if self.training and self.aux else self.head(x)


def test_a_size_written_out_in_training_ends_with_its_line():
    with pytest.raises(UsageError, match=r"narrowest Trap does not run in training.*test_tracing\.py:\d+: x = x\.view"):
        trace(Trap, input_shape=SMALL)


def test_training_needs_logits_alone():
    traced = trace(lambda: Trap(aux=True), input_shape=SMALL)
    with pytest.raises(UsageError, match=r"must give one tensor of shape.*Got a tuple.*returns the logits alone"):
        traced.check(torch.zeros(3, *SMALL))


def test_reading_a_network_spares_the_import_of_the_compiler():
    code = (
        "import sys\nfrom prune_nas.nets.tracing import trace\n"
        "trace('vgg11', input_shape=(3, 32, 32), classes=10)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


class Gated(nn.Module):
    """Two gates, on maps of 8x8 and of 4x4."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = cbr(3, 16), nn.Conv2d(16, 24, 3, stride=2, padding=1), Head(24)
        self.squeeze1, self.excite1 = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.squeeze2, self.excite2 = nn.Linear(24, 8), nn.Linear(8, 24)

    def forward(self, x):
        x = self.one(x)
        x = x * self.excite1(self.squeeze1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = self.two(x).relu()
        gate = self.excite2(self.squeeze2(F.adaptive_avg_pool2d(x, 1).flatten(1)).relu()).sigmoid()
        return self.head(x * gate[:, :, None, None])


def test_a_gate_has_the_stage_of_the_map_that_it_gates():
    space = trace(Gated, input_shape=SMALL).space
    stages = {slot.name: space.stage_names[slot.stage] for slot in space.slots}
    assert stages == {"one.0": "8x8", "squeeze1": "8x8", "two": "4x4", "squeeze2": "4x4"}
