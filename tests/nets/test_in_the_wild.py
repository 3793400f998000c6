"""Networks as people write them: followed with exact counts, or refused with the layer and the repair.

Each stands for a kind that public bug reports show. The oracle is torch's own counter and the sum of `numel`.
"""

from __future__ import annotations

import random
import threading
import types
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from prune_nas.design.budget import Budget
from prune_nas.errors import BudgetError, UsageError
from prune_nas.nets.export.python import to_python
from prune_nas.nets.tracing import trace

from .test_tracing import counted, halves

SHAPE = (3, 16, 16)


def unit(before, after, step=2):
    return nn.Sequential(nn.Conv2d(before, after, 3, step, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Plain(nn.Module):
    """Two units and a head: slots `low.0` (12) and `high.0` (20)."""

    def __init__(self, classes=10, **more):
        super().__init__()
        self.low, self.high, self.head = unit(3, 12), unit(12, 20), nn.Linear(20, classes)

    def pooled(self, x):
        return self.high(self.low(x)).mean((2, 3))

    def forward(self, x):
        return self.head(self.pooled(x))


class InTiles(Plain):
    """Four tiles of a picture go through the network as four examples."""

    def forward(self, x):
        tiles = torch.cat([tile for row in x.chunk(2, 2) for tile in row.chunk(2, 3)])
        return self.head(self.pooled(tiles)).view(4, -1, 10).mean(0)


class BatchSecond(nn.Module):
    """Tokens first and the batch second, as torch's own transformers have it."""

    def __init__(self, classes=10):
        super().__init__()
        self.cut, self.wide, self.back, self.head = (
            nn.Conv2d(3, 24, 4, 4),
            nn.Linear(24, 40),
            nn.Linear(40, 24),
            nn.Linear(24, classes),
        )

    def forward(self, x):
        x = self.cut(x).flatten(2).permute(2, 0, 1)
        return self.head((x + self.back(self.wide(x).relu())).mean(0))


def hooked(classes=10):
    """A hook halves the map behind a layer, and another one halves the picture before the network."""
    network = Plain(classes)
    network.low[0].register_forward_hook(lambda module, given, result: F.max_pool2d(result, 2))
    network.register_forward_pre_hook(lambda module, given: (F.interpolate(given[0], scale_factor=2.0),))
    return network


def replaced(classes=10):
    """`forward` is set on the instance."""
    network = Plain(classes)
    network.forward = types.MethodType(lambda self, x: self.head(self.pooled(F.avg_pool2d(x, 2))), network)
    return network


def replaced_by_what_holds_it(classes=10):
    """The same by a function that holds the network: a copy would run the layers of the original."""
    network = Plain(classes)
    network.forward = lambda x: network.head(network.pooled(x))
    return network


class AsksWhatItIs(Plain):
    """Takes a tensor or a list of tensors, asks for sizes, types and gradients, and makes a tensor of sizes."""

    def forward(self, x, *, scale=1.0, **more):
        x = x if isinstance(x, torch.Tensor) else x[0]
        assert x.dim() == 4
        assert x.shape[1] == 3
        if x.shape[-1] % 4 or x.dtype == torch.uint8 or x.requires_grad:
            x = F.pad(x, (0, 3)).float()
        if x.size(2) >= 16:
            x = F.avg_pool2d(x, 2)
        return super().forward(scale * x + torch.zeros(x.size(0), 1, *x.shape[2:]))


class Gated(Plain):
    """Squeeze and excitation with `view`, as most people write it."""

    def __init__(self, classes=10):
        super().__init__(classes)
        self.down, self.up = nn.Linear(12, 6), nn.Linear(6, 12)

    def forward(self, x):
        x = self.low(x)
        n, c, _, _ = x.size()
        gate = self.up(self.down(F.adaptive_avg_pool2d(x, 1).view(n, c)).relu())
        return self.head(self.high(x * gate.sigmoid().view(n, c, 1, 1).expand_as(x)).mean((2, 3)))


class Halves(nn.Module):
    """Halves by `split`, `chunk` and `glu`, maxima, a comparison and a choice."""

    def __init__(self, classes=10):
        super().__init__()
        self.a, self.b, self.c, self.head = unit(3, 24), unit(12, 32), unit(16, 28), nn.Linear(14, classes)

    def forward(self, x):
        one, two = torch.split(self.a(x), self.a(x).size(1) // 2, dim=1)
        x = F.glu(self.b(torch.maximum(one, two)), dim=1)
        one, two = list(self.c(x).chunk(2, 1))
        return self.head(torch.where(one > 0, one, torch.zeros_like(two)).mean((2, 3)))


class Stacked(nn.Module):
    """Branches that are stacked and weighed, channels that become places and places that become channels."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem, self.ways = unit(3, 16), nn.ModuleList([unit(4, 10, 1), unit(4, 10, 1)])
        self.last, self.head = unit(40, 8), nn.Linear(8, classes)

    def forward(self, x):
        x = F.pixel_shuffle(self.stem(x), 2)
        x = torch.stack([way(x) for way in self.ways], 1)
        x = (x * x.mean((3, 4), keepdim=True).softmax(1)).sum(1).unsqueeze(-1).squeeze(-1)
        return self.head(self.last(F.pixel_unshuffle(x, 2)).mean((2, 3)))


class Sliced(nn.Module):
    """Halves by slices and by `tensor_split`, dimensions that move, maps that are turned round and repeated."""

    def __init__(self, classes=10):
        super().__init__()
        self.a, self.b, self.head = unit(3, 24), unit(12, 16), nn.Linear(8, classes)

    def forward(self, x):
        x = self.a(x)
        half = x.shape[1] // 2
        x = torch.roll(x[:, :half] * x[:, half:].sigmoid(), (1, 1), (2, 3))
        x = x + x.mean((2, 3), keepdim=True).repeat(1, 1, *x.shape[2:])
        one, two = self.b(x.movedim(1, -1).swapaxes(1, 2).permute(0, 3, 2, 1)).tensor_split(2, 1)
        return self.head((one + two).flatten(2).logsumexp(2))


class NamedTwice(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.encoder = self.low


class Same(nn.Conv2d):
    """Adds a default, and nothing to `forward`."""

    def __init__(self, before, after):
        super().__init__(before, after, 3, padding=1)


class OfSubclasses(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.low[0], self.high[0] = Same(3, 12), Same(12, 20)


class Lazily(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.high[0], self.head = nn.LazyConv2d(20, 3), nn.LazyLinear(classes)


class WithSteps(Plain):
    """Each convolution carries a number of its own, as quantisers attach it."""

    def __init__(self, classes=10):
        super().__init__(classes)
        for unit_ in (self.low, self.high):
            unit_[0].step = nn.Parameter(torch.tensor(0.5))


class PoolsFeatures(Plain):
    """A pool of one dimension over (N, C) halves the features."""

    def __init__(self, classes=10):
        super().__init__(classes)
        self.head = nn.Linear(10, classes)

    def forward(self, x):
        return self.head(F.avg_pool1d(self.pooled(x), 2))


class KeepsStill(Plain):
    """Its `train` returns nothing."""

    def train(self, mode=True):
        super().train(mode)
        self.low[1].eval()


class KeepsState(Plain):
    """Remembers its last features, in an attribute and in a dictionary."""

    def __init__(self, classes=10):
        super().__init__(classes)
        self.seen = {}

    def forward(self, x):
        self.last = self.pooled(x)
        self.seen["last"] = self.last
        return self.head(self.last)


class NamedAsAKeyword(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.add_module("class", nn.Conv2d(3, 3, 1))

    def forward(self, x):
        return super().forward(getattr(self, "class")(x))


class CompiledInside(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.high = torch.compile(self.high)


def wrapped(wrapper, classes=10):
    return wrapper(Plain(classes))


FOLLOWED = [
    InTiles, BatchSecond, hooked, AsksWhatItIs, Gated, Halves, Sliced, Stacked, NamedTwice, OfSubclasses, Lazily,
    WithSteps,    KeepsStill, KeepsState, NamedAsAKeyword, replaced, partial(wrapped, nn.DataParallel),
    partial(wrapped, torch.compile), CompiledInside,
    partial(wrapped, nn.SyncBatchNorm.convert_sync_batchnorm), partial(wrapped, nn.Module.half),
]  # fmt: skip


@pytest.mark.parametrize("make", FOLLOWED)
def test_followed_with_exact_counts(make):
    traced = trace(make, input_shape=SHAPE, classes=10)
    space = traced.space
    assert len(space.slots) >= 2
    assert {item.dimension for item in space.frozen if "tracer does not follow" in item.reason} <= {"head"}
    for widths in (space.base, space.narrowest, halves(space, 0), halves(space, 1)):
        network = traced.build(widths, seed=0)
        assert space.cost(widths)[:2] == counted_here(network)


@pytest.mark.parametrize("make", [NamedAsAKeyword, Gated, Halves, Sliced, Stacked, AsksWhatItIs, NamedTwice, hooked])
def test_written_as_one_python_file_they_compute_the_same(make, tmp_path):
    traced = trace(make, input_shape=SHAPE, classes=10)
    network = traced.build(halves(traced.space), seed=0)
    source, state = to_python(network, "net", SHAPE, "about")
    namespace = {}
    exec(compile(source, "model.py", "exec"), namespace)  # noqa: S102 - written a line above
    again = namespace["Model"]()
    again.load_state_dict(state)
    x = torch.randn(3, *SHAPE)
    network.train(mode=False)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), network(x), rtol=1e-4, atol=1e-5)


def test_in_inference_mode_a_network_is_read_as_ever():
    with torch.inference_mode():
        traced = trace(Plain, input_shape=SHAPE)
    assert not traced.template.head.weight.is_inference()
    assert traced.space == trace(Plain, input_shape=SHAPE).space


def counted_here(network):
    from prune_nas.nets.counting import counted as count

    network.train(mode=False)
    macs, _ = count(network, torch.zeros(1, *SHAPE))
    return macs, sum(value.numel() for value in network.parameters())


def test_the_oracle_and_our_counter_agree():
    network = Plain()
    assert counted_here(network) == counted(Plain(), SHAPE)


def test_what_is_read_is_the_network_and_not_what_it_inherits():
    plain = trace(Plain, input_shape=SHAPE).space
    quarter = trace(replaced, input_shape=SHAPE).space
    assert quarter.cost(quarter.base).macs == pytest.approx(plain.cost(plain.base).macs / 4, rel=0.02)


def test_channels_that_become_places_are_chosen_in_steps():
    space = trace(Stacked, input_shape=SHAPE).space
    assert {slot.name: slot.ceiling for slot in space.slots} == {"stem.0": 4, "ways.0.0": 10, "last.0": 8}
    (stem,) = (layer for layer in space.layers if layer.name == "stem.0")
    assert stem.outputs == (("stem.0", 4),)


def test_a_pool_over_features_freezes_them():
    space = trace(PoolsFeatures, input_shape=SHAPE).space
    assert [slot.name for slot in space.slots] == ["low.0"]
    assert any(item.dimension == "high.0" and "avg_pool1d" in item.reason for item in space.frozen)


class DecidesByWidth(Plain):
    def forward(self, x):
        x = self.low(x)
        return self.head(self.high(x if x.shape[1] > 8 else x * 2).mean((2, 3)))


def test_a_decision_that_depends_on_a_width_freezes_it():
    space = trace(DecidesByWidth, input_shape=SHAPE).space
    assert [slot.name for slot in space.slots] == ["high.0"]
    (low,) = (item for item in space.frozen if item.dimension == "low.0")
    assert low.reason.startswith("a decision of `forward` depends on it (test_in_the_wild.py:")


class Liar(Plain):
    """Pools more at some widths, which no reading of one pass can see."""

    def forward(self, x):
        x = self.low(x)
        if self.low[0].weight.shape[0] < 12:
            x = F.max_pool2d(x, 2)
        return self.head(self.high(x).mean((2, 3)))


def test_a_count_refutes_what_was_misread_and_freezes_it():
    space = trace(Liar, input_shape=SHAPE).space
    assert [slot.name for slot in space.slots] == ["high.0"]
    (low,) = (item for item in space.frozen if item.dimension == "low.0")
    assert "were counted, and the formula gives" in low.reason


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_counted(kind):
    class Recurrent(Plain):
        def __init__(self, classes=10):
            super().__init__(classes)
            self.over = kind(20 * 4, 10, batch_first=True)

        def forward(self, x):
            x = self.high(self.low(x))
            return self.over(x.permute(0, 3, 1, 2).flatten(2))[0][:, -1]

    space = trace(Recurrent, input_shape=SHAPE).space
    plain = trace(Plain, input_shape=SHAPE).space
    weights = sum(value.numel() for name, value in kind(80, 10).named_parameters() if "weight" in name)
    head = 20 * 10
    assert space.cost(space.base).macs == plain.cost(plain.base).macs - head + 4 * weights


class ByLot(Plain):
    def forward(self, x):
        return super().forward(x * random.choice([1.0, 2.0]))


class ByNumpy(Plain):
    def forward(self, x):
        return super().forward(x * float(np.random.rand()))


class ByItsOwn(Plain):
    """Draws from a generator of its own, whose state no global state shows."""

    def __init__(self, classes=10):
        super().__init__(classes)
        self.dice = np.random.default_rng(0)

    def forward(self, x):
        return super().forward(x * float(self.dice.random()))


class LooksAtItsType(Plain):
    def forward(self, x):
        return super().forward(F.avg_pool2d(x, 2) if type(x) is torch.Tensor else x)


class DropsAlways(Plain):
    def forward(self, x):
        return self.head(F.dropout(self.pooled(x)))


class HelpedInTraining(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.helper = nn.Linear(12, classes)

    def forward(self, x):
        x = self.low(x)
        helped = self.helper(x.mean((2, 3))) if self.training else 0
        return self.head(self.high(x).mean((2, 3))) + helped


@torch.jit.script
def doubled(x):
    return 2 * x


class Compiled(Plain):
    def forward(self, x):
        return super().forward(doubled(x))


class LooksAtValues(Plain):
    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


class HidesLayers(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.hidden = [nn.ReLU()]

    def forward(self, x):
        return super().forward(self.hidden[0](x))


class HoldsALock(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.guard = threading.Lock()


class HoldsAResult(Plain):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.gain = self.head.weight.exp()


class FitsItself(Plain):
    def train(self, images, labels):
        return images, labels


def on_meta(classes=10):
    with torch.device("meta"):
        return Plain(classes)


def with_hook(change, classes=10):
    network = Plain(classes)
    change(network.high[0])
    return network


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ByLot, r"draws random numbers \(Python\) in eval mode"),
        (ByNumpy, r"draws random numbers \(numpy\) in eval mode"),
        (DropsAlways, r"draws random numbers \(torch\) in eval mode"),
        (ByItsOwn, r"two passes .* give different outputs in eval mode"),
        (LooksAtItsType, r"was misread: .* were counted, .* such as `type\(x\) is Tensor`"),
        (partial(wrapped, torch.jit.script), "was compiled by torch.jit, and compiled code cannot be read"),
        (HelpedInTraining, "does not run in training in the layer helper, which only training uses"),
        (Compiled, r"doubled was compiled by torch\.jit\.script.*Leave out @torch\.jit\.script"),
        (LooksAtValues, r"a decision depends on the values of a tensor .*test_in_the_wild\.py"),
        (HidesLayers, r"a layer is not registered .*Use nn\.ModuleList"),
        (replaced_by_what_holds_it, "a copy would run the layers of the original. Define `forward` in a class"),
        (HoldsALock, "cannot be copied: guard is a lock"),
        (HoldsAResult, "cannot be copied: gain is a Tensor. It was computed from a parameter"),
        (FitsItself, r"FitsItself\.train does not set the mode .*Give that method another name"),
        (on_meta, r"on the meta device, so that low\.0\.weight has no values"),
        (partial(with_hook, weight_norm), r"weight_norm computes the weight of high\.0 .*remove_weight_norm"),
        (partial(with_hook, spectral_norm), r"spectral_norm computes the weight of high\.0 .*remove_spectral_norm"),
        (partial(with_hook, partial(prune.random_unstructured, name="weight", amount=0.5)),
         r"masks the weight of high\.0 .*prune\.remove"),
        (partial(with_hook, parametrizations.weight_norm), r"a parametrization computes the weight of high\.0"),
    ],
)  # fmt: skip
def test_refused_with_the_name_and_the_repair(make, said):
    with pytest.raises(UsageError, match=said):
        trace(make, input_shape=SHAPE, classes=10)


def test_half_precision_is_cast_and_said():
    traced = trace(partial(wrapped, nn.Module.half), input_shape=SHAPE, classes=10)
    assert {value.dtype for value in traced.build(seed=0).parameters()} == {torch.float32}
    assert "is in float16. It is trained from float32" in traced.notes[0]


def test_a_softmax_at_the_end_is_said():
    class Ends(Plain):
        def forward(self, x):
            return super().forward(x).softmax(1)

    assert "ends in a softmax: its outputs sum to 1" in trace(Ends, input_shape=SHAPE).notes[-1]
    assert trace(Plain, input_shape=SHAPE).notes == ()


def test_a_network_s_file_leaves_torch_as_it_was(tmp_path):
    (tmp_path / "rude.py").write_text(
        "import torch\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\n"
        "def net(classes=10):\n    torch.set_grad_enabled(False)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),\n"
        "        torch.nn.Linear(8, classes))\n"
    )
    traced = trace(f"{tmp_path}/rude.py:net", input_shape=SHAPE)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert all(value.dtype == torch.float32 for value in traced.build(seed=0).parameters())


def test_a_budget_that_frozen_layers_put_out_of_reach_names_them():
    class Heavy(Plain):
        def __init__(self, classes=10):
            super().__init__(classes)
            self.heavy = nn.LSTM(20, 100)
            self.head = nn.Linear(100, classes)

        def forward(self, x):
            return self.head(self.heavy(self.pooled(x).unsqueeze(0))[0][0])

    space = trace(Heavy, input_shape=SHAPE).space
    with pytest.raises(BudgetError, match=r"9\d % do not depend on a free width\. Frozen are high\.0 \(.*LSTM"):
        Budget.parse("params=0.05").limits(space)
