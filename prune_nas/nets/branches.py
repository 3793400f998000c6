"""Residual branches: what a network can do without, since the addition behind it passes its other side on."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping

import torch
from torch import fx, nn

from prune_nas.design.parts import Branch
from prune_nas.design.space import Space
from prune_nas.nets.graph import Graph
from prune_nas.nets.nodes import shape

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_KINDS = ("conv", "depthwise", "linear", "norm", "prelu")
_LAST = ("conv", "norm")


def branches(graph: Graph, network: nn.Module, space: Space) -> tuple[Branch, ...]:
    """The residual branches of a traced network, in the order of execution.

    Of the two sides of an addition one is a branch if nothing else reads what is computed on it alone, if it has slots
    of its own, and if a layer with a weight gives its output. Where both sides are such, neither could go without the
    other being all that is left, so that there is none. Of nested branches only the innermost count.
    """
    kinds = {layer.name: layer.kind for layer in space.layers}
    before, calls = _before(graph), _calls(graph)
    found: list[Branch] = []
    taken: set[str] = set()
    for node in graph.nodes:
        if node.target not in _ADDITIONS or len(node.all_input_nodes) != 2:
            continue
        left, right = node.all_input_nodes
        if shape(left) is None or shape(left) != shape(right):
            continue
        sides = [
            branch
            for side, other in ((left, right), (right, left))
            if (branch := _branch(graph, network, space, kinds, calls, before[side] & ~before[other], side, node))
            and not taken & set(branch.slots)
        ]
        if len(sides) == 1:
            taken |= set(sides[0].slots)
            found += sides
    return tuple(found)


def _before(graph: Graph) -> dict[fx.Node, int]:
    """Of every node, as the bits of a number, the nodes that it depends on, itself among them."""
    found: dict[fx.Node, int] = {}
    for i, node in enumerate(graph.nodes):
        found[node] = 1 << i
        for one in node.all_input_nodes:
            found[node] |= found[one]
    return found


def _calls(graph: Graph) -> dict[str, int]:
    """How often each module is called."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    return calls


def _branch(
    graph: Graph,
    network: nn.Module,
    space: Space,
    kinds: Mapping[str, str],
    calls: Mapping[str, int],
    members: int,
    last: fx.Node,
    addition: fx.Node,
) -> Branch | None:
    """The branch that the nodes `members` make, if they make one."""
    nodes = [node for i, node in enumerate(graph.nodes) if members >> i & 1]
    own = {addition, *nodes}
    if not all(user in own for node in nodes for user in node.users):
        return None
    called = list(_modules(nodes))
    layers = [path for path in called if path in kinds]
    weighty = [path for path in called if next(network.get_submodule(path).parameters(), None) is not None]
    if (
        any(node.op in ("get_attr", "placeholder") for node in nodes)
        or any(kinds.get(path) not in _KINDS for path in weighty)
        or any(calls[path] > 1 for path in layers)
        or str(last.target) not in weighty
        or kinds[str(last.target)] not in _LAST
        or any(getattr(network.get_submodule(path), "transposed", False) for path in layers)
    ):
        return None
    slots = tuple(slot.name for slot in space.slots if not slot.shuffled and set(slot.layers) <= set(layers))
    if not slots:
        return None
    name = os.path.commonprefix([f"{path}." for path in layers]).rpartition(".")[0] or layers[-1]
    return Branch(name, slots, tuple(layers), str(last.target))


def _modules(nodes: list[fx.Node]) -> Iterator[str]:
    return (str(node.target) for node in nodes if node.op == "call_module")
