"""Apply the rules of layers and operations to a graph, in the order of execution."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from prune_nas.errors import UsageError
from prune_nas.nets import graph, nodes
from prune_nas.nets.channels import Part
from prune_nas.nets.layers import convolution, linear, rule_of
from prune_nas.nets.operations import (
    FUNCTIONS,
    METHODS,
    MODULES,
    NAMED_FUNCTIONS,
    PIECES,
    SIZE_RULES,
    VECTOR_RULES,
    is_vector,
    number,
)
from prune_nas.nets.reading import Call, Number, Pieces, Reading, Tensor

OUTPUT_REASON = "the network's output (classes)"

_PRODUCTS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply")
_PRODUCERS: tuple[Any, ...] = (convolution, linear)


def read(network: nn.Module, operations: graph.Graph, name: str, classes: int) -> Reading:
    """Everything the forward pass demands of the widths; what reaches an output is frozen last.

    Raises:
        UsageError: none of the network's outputs is a tensor of shape (N, classes).
    """
    reading = Reading(frozenset(name for name, _ in network.named_parameters()))
    values: dict[fx.Node, Tensor | Number | Pieces] = {}
    levels: dict[fx.Node, int] = {}
    for node in operations.nodes:
        if node.op == "output":
            _finish(node.args[0], values, reading, name, classes)
            _freeze_read_otherwise(reading)
            _freeze_held(network, reading)
            _place_gates(operations, reading)
            break
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        level = max((levels[one] for one in node.all_input_nodes), default=0)
        produces = module is not None and rule_of(module) in _PRODUCERS
        levels[node] = level + produces
        values[node] = _apply(_call(node, module, levels[node], values, reading))
    return reading


def _call(
    node: fx.Node,
    module: nn.Module | None,
    level: int,
    values: Mapping[fx.Node, Tensor | Number | Pieces],
    reading: Reading,
) -> Call:
    args: Any = fx.node.map_arg(node.args, lambda one: values[one])  # type: ignore[arg-type, return-value]
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda one: values[one])  # type: ignore[arg-type, return-value]
    where = f"{_operation(node, module)} at {nodes.place(node)}"
    return Call(node, args, kwargs, nodes.shape(node) or (), module, level, where, reading)


def _apply(call: Call) -> Tensor | Number | Pieces:
    """The result of one operation by its rule, or frozen where there is none."""
    node = call.node
    if nodes.shape(node) is not None:
        return _tensor(call)
    if node.target not in (getattr, "size", "dim"):
        _note_uses(call)
    found = PIECES.get(node.target, number)(call)
    line = nodes.asked(node)
    if line is not None and isinstance(found, Number) and found.variables:
        asked = tuple(Part(variable, 1) for variable in found.variables)
        call.reading.channels.freeze(asked, f"a decision of `forward` depends on it ({line})")
        return Number()
    return found


def _tensor(call: Call) -> Tensor:
    node = call.node
    if node.target is operator.getitem and isinstance(call.args[0], Pieces) and isinstance(call.args[1], int):
        return call.args[0].tensors[call.args[1]]
    if node.op in ("placeholder", "get_attr"):
        return Tensor(call.shape, parameter=str(node.target) if node.op == "get_attr" else None)
    if call.module is not None and (layer := rule_of(call.module)):
        _note_uses(call)
        return layer(call)
    rule = _rule(call)
    vector = rule in VECTOR_RULES and is_vector(call)
    if not vector:
        _note_uses(call)
    if not call.variables:
        return Tensor(call.shape, parameter=call.x.parameter if vector else None)
    if rule is None or (call.sizes and rule not in SIZE_RULES):
        return call.unknown()
    result: Tensor = rule(call)
    return result


def _rule(call: Call) -> Any:
    """What the node's function, method or module does to channels; None where that is unknown."""
    target: Any = call.node.target
    if call.module is not None:
        return MODULES.get(type(call.module))
    if call.node.op == "call_method":
        return METHODS.get(target)
    named = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    return FUNCTIONS.get(target) or NAMED_FUNCTIONS.get(named)


def _note_uses(call: Call) -> None:
    call.reading.uses.update(one.parameter for one in call.tensors if one.parameter)


def _finish(output: Any, values: Mapping[fx.Node, Any], reading: Reading, name: str, classes: int) -> None:
    given: list[fx.Node] = []
    fx.node.map_arg(output, given.append)
    found = [values[node] for node in given]
    tensors = [
        t for one in found for t in (one.tensors if isinstance(one, Pieces) else (one,)) if isinstance(t, Tensor)
    ]
    if not any(one.shape == (nodes.BATCH, classes) for one in tensors):
        got = ", ".join(str(one.shape[1:]) for one in tensors) or f"a {type(output).__name__}"
        other = next((one.shape[1] for one in tensors if len(one.shape) == 2), None)
        repair = (
            "prune-nas works on networks that give one vector of class scores per image"
            if other is None
            else f"for {other} classes add --classes {other}, or in Python classes={other}"
        )
        raise UsageError(f"{name} must give a tensor of shape ({classes},) per image. Got {got}: {repair}")
    for one in tensors:
        reading.channels.freeze(one.parts, OUTPUT_REASON)


def _freeze_read_otherwise(reading: Reading) -> None:
    """Freeze what a parameter that is read directly would resize, unless each of its uses follows the channels."""
    for parameter, count in reading.uses.items():
        owner = parameter if parameter in reading.records else parameter.rpartition(".")[0]
        if owner in reading.records and count != reading.carries[parameter]:
            record = reading.records[owner]
            reason = f"{parameter} is also read in a way that the tracer does not follow"
            reading.channels.freeze(record.inputs, reason)
            reading.channels.freeze(record.outputs, reason)


def _freeze_held(network: nn.Module, reading: Reading) -> None:
    """Freeze the widths of layers with a parameter that does not learn: at another width it would lose its values."""
    held = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    for record in reading.records.values():
        mine = next((name for name in held if record.name in (name, name.rpartition(".")[0])), None)
        if mine is not None:
            reason = f"{mine} does not learn (requires_grad=False), so it keeps its values and its width"
            reading.channels.freeze(record.inputs, reason)
            reading.channels.freeze(record.outputs, reason)


def _place_gates(operations: graph.Graph, reading: Reading) -> None:
    """Give the layers of a gate the place of the map that it scales.

    A squeeze-and-excitation works on a map of one place, which says nothing of where in the network it stands.
    """
    for node in operations.nodes:
        if node.target not in _PRODUCTS:
            continue
        factors = [one for one in node.all_input_nodes if nodes.shape(one) is not None]
        scaled = next((one for one in factors if _places(one) > 1), None)
        gates = [one for one in factors if _places(one) == 1]
        if scaled is None or not gates:
            continue
        shape = nodes.shape(scaled) or ()
        for layer in _behind_one_place(gates[0]):
            if (record := reading.records.get(layer)) is not None and len(shape) > 2:
                record.spatial = shape[2:]


def _places(node: fx.Node) -> int:
    """The places of a tensor (N, C, *sizes); a tensor (N, C) has one."""
    return math.prod((nodes.shape(node) or ())[2:])


def _behind_one_place(node: fx.Node) -> set[str]:
    """The modules that a tensor of one place went through since it was a larger map."""
    found: set[str] = set()
    left = [node]
    while left:
        one = left.pop()
        if nodes.shape(one) is None or _places(one) > 1 or one.op == "placeholder":
            continue
        if one.op == "call_module":
            found.add(str(one.target))
        left += one.all_input_nodes
    return found


def _operation(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))
