"""The forward pass of a network as a list of operations with concrete shapes.

`torch.fx` runs the Python code once with stand-ins for tensors; a second run on zeros gives the shapes, and the macs
of its operations by torch's own formulas. Both runs are in eval mode: branches taken only in training are not read.
"""

from __future__ import annotations

import inspect
import keyword
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from prune_nas.errors import UsageError
from prune_nas.nets.layers import rule_of

BATCH = 2  # with 1, a batch would look like a dimension that broadcasts

_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Graph:
    """Operations in the order of execution, and the macs at batch 1 that `FlopCounterMode` would count.

    `root` holds what the operations name: the network, and tensors that tracing made constants of.
    """

    nodes: tuple[fx.Node, ...]
    macs: int
    root: nn.Module


def read(network: nn.Module, name: str, shapes: Sequence[tuple[int, ...]]) -> Graph:
    """Trace `network` (in eval mode, on the CPU) for inputs of shapes (BATCH, *shape); further arguments keep defaults.

    Raises:
        UsageError: the Python code cannot be traced, or does not run on such inputs.
    """
    tracer = _Tracer()
    defaults = _defaults(network, name, len(shapes))
    try:
        graph = tracer.trace(network, defaults)
    except Exception as error:
        raise UsageError(
            f"cannot trace {name}: {first_line(error)} ({user_line(error)}). Widths are read from one pass through "
            "`forward` with stand-ins for tensors: move code that depends on values, or on lengths of tensors, into "
            "a module of torch.nn, or take it out of `forward`"
        ) from error
    try:
        module = fx.GraphModule(tracer.root, graph)
    except SyntaxError as error:
        names = [path for path, _ in network.named_modules() if any(map(keyword.iskeyword, path.split(".")))]
        raise UsageError(
            f"cannot trace {name}: torch.fx writes Python code, and {', '.join(names) or 'one of its modules'} is "
            "named as a keyword is. Rename it"
        ) from error
    counter = _Macs()
    interpreter = _Shapes(module, counter)
    try:
        with torch.no_grad(), _slow_attention(), counter:
            interpreter.run(*(torch.zeros(BATCH, *shape) for shape in shapes), *defaults.values())
    except Exception as error:
        spoken = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(
            f"{name} does not run on an input of shape {spoken} without the batch: {first_line(error)}. "
            "Give the input shape that the network was made for"
        ) from error
    return Graph(tuple(graph.nodes), interpreter.macs, module)


def _defaults(network: nn.Module, name: str, given: int) -> dict[str, Any]:
    """The arguments of `forward` beyond the given ones, at their defaults.

    Raises:
        UsageError: it takes fewer arguments, or demands more.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(network.forward).parameters.values()
    takes = [one for one in signature if one.kind in kinds]
    demanded = [one.name for one in takes if one.default is one.empty]
    if len(demanded) > given or (len(takes) < given and not any(one.kind is one.VAR_POSITIONAL for one in signature)):
        raise UsageError(
            f"{name} takes {len(demanded) or 'no'} input{'s' if len(demanded) != 1 else ''} "
            f"({', '.join(demanded) or 'none'}). Got the shapes of {given}: give one shape for each"
        )
    return {one.name: one.default for one in takes[given:]}


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
    """Switch off the fused paths of attention, whose products the counter does not see on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Tracer(fx.Tracer):
    """Notes the innermost line outside torch for each node; fx's own notes hold whole stacks and take seconds."""

    def __init__(self) -> None:
        # No network can call torchvision's function before that is imported.
        shufflenet = sys.modules.get("torchvision.models.shufflenetv2")
        super().__init__(autowrap_functions=(shufflenet.channel_shuffle,) if shufflenet else ())

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


class _Macs(TorchDispatchMode):
    """Adds up the macs of what runs, by the formulas of torch's `FlopCounterMode`.

    That class itself imports `torch._dynamo` on its first operation, which takes over a second.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result


class _Shapes(fx.Interpreter):
    """Notes the shape of each node's tensor; torch's own ShapeProp prints the traceback of an error to stderr.

    `macs` are those of one example: what does not depend on an input, such as Swin v2's position bias, is computed once
    however many examples there are.
    """

    def __init__(self, module: fx.GraphModule, counter: _Macs) -> None:
        super().__init__(module)
        self.macs = 0
        self._counter = counter
        self._of_batch: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.total
        result = super().run_node(n)
        spent = self._counter.total - before
        if n.op == "placeholder" or any(one in self._of_batch for one in n.all_input_nodes):
            self._of_batch.add(n)
            spent //= BATCH
        self.macs += spent
        if isinstance(result, torch.Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def user_line(error: BaseException) -> str:
    """The innermost line of code outside torch that an error passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_TORCH)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
