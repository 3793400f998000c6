"""The forward pass of a network as a list of operations with concrete shapes.

`torch.fx` runs the Python code once with stand-ins for tensors; a second run on zeros gives the shapes, and the macs
that torch's own counter sees. Both runs are in eval mode: branches taken only in training are not read.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.shufflenetv2 import channel_shuffle

from prune_nas.errors import UsageError
from prune_nas.nets.layers import rule_of

BATCH = 2  # with 1, a batch would look like a dimension that broadcasts

_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Graph:
    """Operations in the order of execution, and the macs that `FlopCounterMode` counted at batch 1.

    `root` holds what the operations name: the network, and tensors that tracing made constants of.
    """

    nodes: tuple[fx.Node, ...]
    macs: int
    root: nn.Module


def read(network: nn.Module, name: str, input_shape: tuple[int, ...]) -> Graph:
    """Trace `network` (in eval mode, on the CPU) for one input of shape (BATCH, *input_shape).

    Raises:
        UsageError: the Python code cannot be traced, or does not run on such an input.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:
        raise UsageError(
            f"cannot trace {name}: {_first_line(error)} ({_user_line(error)}). Widths are read from one pass through "
            "`forward` with stand-ins for tensors: move code that depends on values, or on lengths of tensors, into "
            "a module of torch.nn, or take it out of `forward`"
        ) from error
    module = fx.GraphModule(tracer.root, graph)
    shapes = _Shapes(module)
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), _slow_attention(), counter:
            shapes.run(torch.zeros(BATCH, *input_shape))
    except Exception as error:
        shape = "x".join(map(str, input_shape))
        raise UsageError(
            f"{name} does not run on an input of shape {shape} without the batch: {_first_line(error)}; "
            "give the input shape that the network was made for"
        ) from error
    return Graph(tuple(graph.nodes), counter.get_total_flops() // (2 * BATCH), module)


def shape(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of the tensor that `node` gives, None if it gives anything but one tensor."""
    found: tuple[int, ...] | None = node.meta.get("shape")
    return found


def place(node: fx.Node) -> str:
    """The node's name and, where it was written outside torch, its source line, as in `add_3 (resnet.py:40)`."""
    line = node.meta.get("line")
    return f"{node.name} ({line})" if line else node.name


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Switch off the fused path of nn.MultiheadAttention, whose linear layers the counter does not see."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Tracer(fx.Tracer):
    """Notes the innermost line outside torch for each node; fx's own notes hold whole stacks and take seconds."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(channel_shuffle,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return rule_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        frame = inspect.currentframe()
        while frame and (frame.f_code is self.create_node.__code__ or frame.f_code.co_filename.startswith(_TORCH)):
            frame = frame.f_back
        if frame and frame.f_code.co_filename != __file__:
            node.meta["line"] = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        return node


class _Shapes(fx.Interpreter):
    """Notes the shape of each node's tensor; torch's own ShapeProp prints the traceback of an error to stderr."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _user_line(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_TORCH)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
