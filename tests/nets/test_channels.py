"""The union-find of widths, and its agreement with torch-pruning's groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prune_nas.design.parts import Segment
from prune_nas.nets.channels import Channels, Part
from prune_nas.nets.tracing import trace

from . import networks


def three():
    channels = Channels()
    return channels, *(channels.new(width, name) for width, name in ((8, "a"), (8, "b"), (16, "c")))


def test_union_joins_sources_in_order():
    channels, a, b, _ = three()
    channels.unify((b,), (a,), "add")
    assert channels.sources(b.variable) == ("a", "b")
    assert channels.reason(a.variable) is None


def test_parts_that_line_up_join_one_by_one():
    channels, a, b, c = three()
    d, e = channels.new(8, "d"), channels.new(24, "e")
    channels.unify((a, Part(None, 2), c), (d, Part(None, 1), Part(None, 1), c), "add")
    assert channels.root(a.variable) == channels.root(d.variable)
    f, g = channels.new(12, "f"), channels.new(12, "g")
    channels.unify((b, c), (f, g), "mul")
    assert channels.reason(f.variable) == "parts do not line up: b (8) + c (16) against f (12) + g (12), in mul"
    assert channels.reason(a.variable) is None
    assert channels.reason(e.variable) is None


def test_a_width_that_meets_several_in_a_row_is_their_row():
    channels, _, b, c = three()
    e, f = channels.new(24, "e"), channels.new(24, "f")
    channels.divide((e,), 4, "conv")
    channels.unify((e,), (b, c), "add")
    names = {channels.root(b.variable): "b", channels.root(c.variable): "c"}
    assert channels.extent((Part(e.variable, 2),), names) == (Segment("b", 2), Segment("c", 2))
    assert channels.sources(b.variable) == ("b", "e")
    assert channels.sources(c.variable) == ("c", "e")
    assert (channels.multiple(b.variable), channels.multiple(c.variable)) == (4, 4)
    channels.unify((e,), (f,), "add")  # what meets it later is the same row
    assert channels.extent((f,), names) == (Segment("b", 1), Segment("c", 1))
    assert channels.free((e,)) == channels.free((b, c))
    channels.freeze((f,), "why")
    assert channels.reason(c.variable) == "why"


def test_a_width_that_becomes_a_row_within_one_union():
    channels, a, b, _ = three()
    e = channels.new(16, "e")
    c, d = channels.new(8, "c"), channels.new(8, "d")
    channels.unify((e, e), (a, b, c, d), "add")
    assert channels.root(a.variable) == channels.root(c.variable)
    assert channels.root(b.variable) == channels.root(d.variable)
    assert channels.free((e,)) == channels.free((a, b))


def test_a_frozen_width_is_a_constant_to_others():
    channels, a, b, _ = three()
    channels.freeze((a,), "why")
    channels.unify((a,), (b,), "add")
    assert channels.reason(a.variable) == "why"
    assert "must equal fixed channels" in channels.reason(b.variable)


@pytest.mark.parametrize(("times", "groups", "multiple"), [(1, 4, 4), (2, 4, 2), (4, 4, 1), (3, 12, 4)])
def test_groups_divide(times, groups, multiple):
    channels, a, *_ = three()
    channels.divide((Part(a.variable, times), Part(None, groups)), groups, "conv")
    assert channels.multiple(a.variable) == multiple
    assert channels.reason(a.variable) is None


def test_a_width_that_groups_do_not_divide_is_frozen():
    channels, a, _, c = three()
    channels.divide((Part(None, 4), a, c), 6, "conv")
    for part in (a, c):
        assert (
            channels.reason(part.variable) == f"its {channels.size(part)} channels are not a multiple of 6 groups: conv"
        )
    channels, a, b, c = three()
    channels.divide((Part(None, 6), Part(a.variable, 3), Part(b.variable, 1), c, Part(None, 10)), 16, "conv")
    reasons = [channels.reason(part.variable) for part in (a, b, c)]
    assert reasons[2] is None
    assert all("not a multiple of 16 groups: conv" in reason for reason in reasons[:2])


@pytest.mark.parametrize("make", [networks.Residual, networks.Concat])
def test_slots_are_the_groups_of_torch_pruning(make):
    tp = pytest.importorskip("torch_pruning")
    network = make()
    space = trace(network, input_shape=(3, 8, 8)).space
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=torch.randn(1, 3, 8, 8))
    names = {module: name for name, module in network.named_modules()}
    theirs = set()
    for group in graph.get_all_groups(ignored_layers=[network.head.linear], root_module_types=[nn.Conv2d, nn.Linear]):
        out = {names.get(dep.target.module) for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)} - {
            None
        }
        theirs.add(frozenset(name for name in out if is_producer(network.get_submodule(name))))
    assert theirs == {frozenset(slot.layers) for slot in space.slots}


def is_producer(module):
    return isinstance(module, (nn.Conv2d, nn.Linear)) and getattr(module, "groups", 1) == 1
