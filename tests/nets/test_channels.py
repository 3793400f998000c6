"""The union-find of widths, and its agreement with torch-pruning's groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
    channels.unify((b, c), (e,), "mul")
    assert channels.reason(e.variable) == "parts do not line up: b (8) + c (16) against e (24), in mul"
    assert channels.reason(a.variable) is None


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
