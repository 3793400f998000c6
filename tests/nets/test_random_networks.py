"""Random small networks: whatever the tracer calls free can be built, runs, and costs what it says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.shufflenetv2 import channel_shuffle

from prune_nas.errors import UsageError
from prune_nas.nets.inherit import inherit
from prune_nas.nets.tracing import trace

from .test_tracing import counted

SHAPE = (3, 8, 8)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["conv", "conv", "conv", "depthwise", "double", "grouped", "add", "cat", "gate", "up", "glu", "turns"]
        ),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from([3, 4, 6, 8, 10, 12]),
    ),
    min_size=1,
    max_size=9,
)


class RandomNet(nn.Module):
    """A program of steps; each reads earlier results, named by how far back they are, and appends one."""

    def __init__(self, steps, flat):
        super().__init__()
        self.steps, self.flat = steps, flat
        self.layers = nn.ModuleDict({"stem": self.block(3, 8)})
        channels = [8]
        for i, (kind, a, b, width) in enumerate(steps):
            first, second = channels[-1 - a % len(channels)], channels[-1 - b % len(channels)]
            made = {
                "conv": width,
                "up": width,
                "glu": width,
                "turns": 2 * width,
                "grouped": width,
                "double": 2 * first,
                "cat": first + second,
            }
            channels.append(made.get(kind, first))
            if kind not in ("cat",) and not (kind == "add" and first == second):
                self.layers[str(i)] = self.layer(kind, first, second, channels[-1])
        self.head = nn.Linear(channels[-1] * (4 if flat else 1), 10)

    @staticmethod
    def block(inputs, outputs, groups=1):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def layer(self, kind, first, second, width):
        if kind in ("depthwise", "double"):
            return self.block(first, width, first)
        if kind == "grouped":
            return self.block(first, width, max(n for n in (1, 2, 3, 4) if first % n == width % n == 0))
        if kind == "up":
            return nn.Sequential(nn.ConvTranspose2d(first, width, 1), nn.BatchNorm2d(width))
        if kind == "glu":
            return self.block(first, 2 * width)
        if kind in ("add", "gate"):
            return self.block(second, first)
        return self.block(first, width)

    def forward(self, x):
        values = [self.layers["stem"](x)]
        for i, (kind, a, b, _) in enumerate(self.steps):
            first, second = values[-1 - a % len(values)], values[-1 - b % len(values)]
            if kind == "cat":
                values.append(torch.cat([first, second], 1))
            elif kind == "add":
                values.append(first + (self.layers[str(i)](second) if str(i) in self.layers else second))
            elif kind == "glu":
                value, gate = self.layers[str(i)](first).chunk(2, 1)
                values.append(value * gate.sigmoid())
            elif kind == "turns":
                values.append(channel_shuffle(self.layers[str(i)](first), 2))
            elif kind == "gate":
                values.append(first * self.layers[str(i)](second).mean((2, 3), keepdim=True))
            else:
                values.append(self.layers[str(i)](first))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(values[-1], 2 if self.flat else 1), 1))


@settings(max_examples=25, deadline=None)
@given(STEPS, st.booleans(), st.data())
def test_free_widths_build_run_and_cost_what_they_say(steps, flat, data):
    traced = traced_or_not(RandomNet(steps, flat))
    space = traced.space
    widths = space.snap({slot.name: data.draw(st.floats(0, 1)) for slot in space.slots})
    assert space.cost(widths)[:2] == counted(traced.build(widths, seed=0), SHAPE)


@settings(max_examples=20, deadline=None)
@given(STEPS, st.booleans(), st.randoms(use_true_random=False))
def test_inherited_network_computes_the_same_when_dropped_channels_are_zero(steps, flat, random):
    traced = traced_or_not(RandomNet([one for one in steps if one[0] != "grouped"], flat))
    space = traced.space
    assume(not any(slot.shuffled for slot in space.slots))
    source = traced.build(space.widest, seed=1)
    source(torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)))  # running statistics of some kind
    kept = {
        slot.name: sorted(random.sample(range(slot.ceiling), random.randint(slot.floor, slot.ceiling)))
        for slot in space.slots
    }
    silence(space, source, kept)
    target = traced.build({name: len(channels) for name, channels in kept.items()}, seed=2)
    inherit(space, source, target, kept)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(x), source.eval()(x), atol=1e-5, rtol=1e-4)


def traced_or_not(network):
    """The traced network; an example in which no width is free is dropped."""
    try:
        return trace(network, input_shape=SHAPE)
    except UsageError as error:
        if "no free width" not in str(error):
            raise
        assume(False)


@torch.no_grad()
def silence(space, network, kept):
    """Set gamma and beta of all channels outside `kept` to zero."""
    for layer in space.layers:
        if layer.kind != "norm":
            continue
        norm, start = network.get_submodule(layer.name), 0
        for slot, times in layer.outputs:
            count = 1 if slot is None else space.by_name[slot].ceiling
            for channel in range(count):
                if slot is not None and channel not in kept[slot]:
                    at = slice(start + channel * times, start + (channel + 1) * times)
                    norm.weight[at] = norm.bias[at] = 0
            start += count * times
