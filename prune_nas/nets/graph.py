"""The forward pass of a network as a list of operations with concrete shapes.

The Python code runs once, in eval mode, with stand-ins for tensors (`torch.fx`). Each stand-in holds what its operation
gives on zeros. So code may ask for a size, a type or a number of dimensions, and loop over pieces. Each answer is
noted: where it depends on a free width, `walk` freezes that width. The macs of each operation are counted as it runs,
by torch's own formulas. Branches that only training takes are not read here.
"""

from __future__ import annotations

import builtins
import inspect
import operator
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.fx.proxy import Attribute
from torch.nn.attention import SDPBackend, sdpa_kernel

from prune_nas.errors import UsageError
from prune_nas.nets.counting import Macs
from prune_nas.nets.layers import rule_of
from prune_nas.nets.nodes import BATCH, asked, shape, shapes

_TORCH = str(Path(torch.__file__).parent)
_MOST = 8  # dimensions of a tensor, and more
_MAKERS = (
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "linspace",
    "eye",
    "tensor",
    "rand",
    "randn",
    "randint",
    "randperm",
)
"""Functions of torch that make a tensor from sizes. They do not ask a stand-in among their arguments by themselves."""


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
        UsageError: the Python code cannot be traced, does not run on such inputs, or draws random numbers.
    """
    tracer = _Tracer(_names(network, name, len(shapes)), [torch.zeros(BATCH, *shape) for shape in shapes])
    spoken = ", ".join("x".join(map(str, shape)) for shape in shapes)
    before = _random_states()
    with _attributes_kept(network):
        try:
            with torch.no_grad(), slow_attention(), _taken_for_tensors(), tracer.counter:
                graph = tracer.trace(network)
        except Exception as error:
            if tracer.failed:
                raise UsageError(
                    f"{name} does not run on an input of shape {spoken} without the batch: {first_line(error)} "
                    f"({user_line(error)}). Give the input shape that the network was made for"
                ) from error
            raise UsageError(f"cannot trace {name}: {_untraceable(error, network)}") from error
        _drop_questions(graph)
        macs = sum(node.meta.get("macs", 0) for node in graph.nodes)
        root = _constants(network, graph)
    for kind, state in _random_states().items():
        if not _same(state, before[kind]):
            raise UsageError(
                f"{name} draws random numbers ({kind}) in eval mode, so that two passes differ. Draw them only in "
                "training (`if self.training:`), or take one path in `forward`"
            )
    return Graph(tuple(graph.nodes), macs, root)


def _names(network: nn.Module, name: str, given: int) -> list[str]:
    """The names of the given arguments of `forward`.

    Raises:
        UsageError: it takes fewer arguments, or demands more.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(network.forward).parameters.values()
    takes = [one for one in signature if one.kind in kinds]
    keywords = [one.name for one in signature if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    demanded = [*(one.name for one in takes if one.default is one.empty), *keywords]
    star = any(one.kind is one.VAR_POSITIONAL for one in signature)
    if len(demanded) > given or keywords or (len(takes) < given and not star):
        raise UsageError(
            f"{name} takes {len(demanded) or 'no'} input{'s' if len(demanded) != 1 else ''} "
            f"({', '.join(demanded) or 'none'}). Got the shapes of {given}: give one shape for each"
        )
    names = [one.name for one in takes[:given]]
    return [*names, *(f"input_{i}" for i in range(len(names), given))]


@contextmanager
def slow_attention() -> Iterator[None]:
    """Switch off the fused paths of attention, whose products the counter does not see on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _taken_for_tensors() -> Iterator[None]:
    """Let `isinstance` take a stand-in for what it holds.

    A stand-in that lies about its class would be unpacked as a tensor by torch's C++ code, which ends the process.
    """
    of_python = builtins.isinstance

    def of_values(one: Any, kinds: Any) -> bool:
        return of_python(one, kinds) or (type(one) is StandIn and of_python(one.value, kinds))

    builtins.isinstance = of_values
    try:
        yield
    finally:
        builtins.isinstance = of_python


@contextmanager
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """Give every module the attributes back that it had: a `forward` that keeps a result would keep a stand-in."""
    before = {one: dict(one.__dict__) for one in network.modules()}
    filled = [
        (value, value.copy()) for own in before.values() for value in own.values() if isinstance(value, (dict, list))
    ]
    try:
        yield
    finally:
        for module, attributes in before.items():
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for value, content in filled:  # buffers among them, and what a network keeps of earlier passes
            value.clear()
            value.update(content) if isinstance(value, dict) else value.extend(content)


def _constants(network: nn.Module, graph: fx.Graph) -> nn.Module:
    """A module of the network's modules that also keeps the tensors of which tracing made constants."""
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr" and "." not in str(node.target)}
    own = {name: getattr(network, name) for name in names}
    root = nn.Module()
    root.__dict__.update(network.__dict__)
    root._parameters, root._buffers = dict(network._parameters), dict(network._buffers)
    for name, value in own.items():
        if name not in root._parameters and name not in root._buffers:
            root.__dict__[name] = value
    return root


class StandIn(fx.Proxy):
    """Stands for a tensor, or for a number that was read from one, and holds what it is on zeros."""

    value: Any

    def __getattr__(self, name: str) -> Any:
        if "value" not in self.__dict__:
            raise AttributeError(name)
        found = getattr(self.value, name)
        if callable(found):
            return Attribute(self, name)
        if isinstance(found, (torch.Tensor, torch.Size)):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return found

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, dict):
            return iter(self.value)
        return (self[i] for i in range(len(self.value)))  # type: ignore[index]

    def __len__(self) -> int:
        self._ask()
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self._known())

    def __index__(self) -> int:
        return operator.index(self._known())

    def __int__(self) -> int:
        return int(self._known())

    def __float__(self) -> float:
        return float(self._known())

    def _known(self) -> Any:
        """A number or a truth that Python code asks for; the value of a tensor is none that holds for all images."""
        if isinstance(self.value, torch.Tensor):
            raise _DependsOnValuesError
        self._ask()
        return self.value

    def __contains__(self, item: Any) -> bool:
        self._ask()
        return item in self.value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def keys(self) -> Any:
        """Of a dictionary that a module gave."""
        return self.value.keys()

    def _ask(self) -> None:
        self.node.meta["asked"] = _line_outside() or self.node.name


class _DependsOnValuesError(Exception):
    """Python code asks for the value of a tensor."""


class _Tracer(fx.Tracer):
    """Runs every operation on zeros as it is met, and notes its shape, its macs and its line."""

    def __init__(self, names: Sequence[str], inputs: Sequence[torch.Tensor]) -> None:
        # No network can call torchvision's function before that is imported.
        shufflenet = sys.modules.get("torchvision.models.shufflenetv2")
        makers = tuple(getattr(torch, name) for name in _MAKERS)
        super().__init__(autowrap_functions=(*makers, *((shufflenet.channel_shuffle,) if shufflenet else ())))
        self._autowrap_search.append(torch)
        self.counter = Macs()
        self.failed = False
        """Whether an operation itself failed, and not the tracing."""
        self._names, self._inputs = list(names), list(inputs)
        self._running = False
        self._of_batch: set[fx.Node] = set()

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The network as it is called, hooks and a `forward` of the instance included, and a stand-in per input."""
        return _called, [self.root, *(self.create_proxy("placeholder", name, (), {}) for name in self._names)]

    def proxy(self, node: fx.Node) -> StandIn:
        return StandIn(node, self)

    def create_arg(self, a: Any) -> Any:
        if issubclass(type(a), fx.Proxy):
            return a.node
        return super().create_arg(a)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m is self.root or "forward" in m.__dict__:
            return False
        return rule_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A leaf is one node, between its hooks, which are read as code is."""
        if self._running:
            return forward(*args, **kwargs)
        if not self.is_leaf_module(m, self.path_of_module(m)):
            return super().call_module(m, forward, args, kwargs)
        for key, before in m._forward_pre_hooks.items():
            if key in m._forward_pre_hooks_with_kwargs:
                changed = before(m, args, kwargs)
                args, kwargs = changed if changed is not None else (args, kwargs)
            elif (given := before(m, args)) is not None:
                args = given if isinstance(given, tuple) else (given,)
        result = super().call_module(m, forward, args, kwargs)
        for key, after in m._forward_hooks.items():
            given = after(m, args, kwargs, result) if key in m._forward_hooks_with_kwargs else after(m, args, result)
            result = result if given is None else given
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        line = _line_outside()
        if line:
            node.meta["line"] = line
        if node.op == "get_attr" and isinstance(value := self._attribute(str(node.target)), torch.Tensor):
            node.meta["shape"] = tuple(value.shape)
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        stand_in: Any = super().create_proxy(kind, target, args, kwargs, *more, **named)
        stand_in.value = self._run(stand_in.node, _values(args), _values(kwargs))
        return stand_in

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What the operation gives; its shape and its macs are noted.

        The macs are those of one example: what does not depend on the batch, such as Swin v2's position bias, is
        computed once however many examples there are.
        """
        before, self._running = self.counter.total, True
        try:
            value = self._operation(node)(*args, **kwargs)
        except Exception:
            self.failed = True
            raise
        finally:
            self._running = False
        node.meta["macs"] = self.counter.total - before
        if self._depends_on_batch(node):
            self._of_batch.add(node)
            node.meta["macs"] //= BATCH
            node.meta["of_batch"] = True
        if isinstance(value, torch.Tensor):
            node.meta["shape"] = tuple(value.shape)
        elif isinstance(value, (tuple, list)) and value and all(isinstance(one, torch.Tensor) for one in value):
            node.meta["shapes"] = tuple(tuple(one.shape) for one in value)
        return value

    def _depends_on_batch(self, node: fx.Node) -> bool:
        """Whether an operation is done for each example. Height and width of an image do not depend on the batch."""
        if node.op == "placeholder":
            return True
        given = [one for one in node.all_input_nodes if one in self._of_batch]
        key: Any = node.args[1] if len(node.args) > 1 else None
        if given and node.target == "size" and isinstance(key, int):
            return key == 0
        if given and node.target is operator.getitem and shape(given[0]) is None and shapes(given[0]) is None:
            return 0 in range(_MOST)[key] if isinstance(key, slice) else key == 0
        return bool(given)

    def _attribute(self, path: str) -> Any:
        """A tensor of the network itself, where tracing would give a stand-in."""
        owner, _, name = path.rpartition(".")
        before, self._running = self._running, True
        try:
            return getattr(self.root.get_submodule(owner), name)
        finally:
            self._running = before

    def _operation(self, node: fx.Node) -> Callable[..., Any]:
        target: Any = node.target
        if node.op == "placeholder":
            return lambda: self._inputs.pop(0)
        if node.op == "get_attr":
            return lambda: self._attribute(target)
        if node.op == "call_method":
            return lambda of, *rest, **named: getattr(of, target)(*rest, **named)
        if node.op == "call_module":
            return self.root.get_submodule(target).forward
        return target  # type: ignore[no-any-return]


def _called(network: nn.Module, *inputs: Any) -> Any:
    return _symbolic_trace._orig_module_call(network, *inputs)


def _values(given: Any) -> Any:
    """Arguments with every stand-in replaced by what it holds."""
    kind = type(given)
    if issubclass(kind, Attribute):
        return getattr(_values(given.root), given.attr)
    if issubclass(kind, StandIn):
        return given.value
    if isinstance(given, dict):
        return {key: _values(value) for key, value in given.items()}
    if isinstance(given, slice):
        return slice(*map(_values, (given.start, given.stop, given.step)))
    if isinstance(given, (tuple, list)):
        values = list(map(_values, given))
        return kind(*values) if hasattr(given, "_fields") else values if kind is list else tuple(values)
    return given


def _drop_questions(graph: fx.Graph) -> None:
    """Leave out the numbers that nothing reads any more, such as a size that was only asked for."""
    for node in reversed(graph.nodes):
        gives = shape(node) is not None or shapes(node) is not None or node.target is operator.setitem
        if node.op in ("call_function", "call_method") and not gives and not node.users and asked(node) is None:
            graph.erase_node(node)


def _line_outside() -> str | None:
    """The innermost line outside torch and this file that runs now, as in `resnet.py:40`."""
    frame = inspect.currentframe()
    while frame and (frame.f_code.co_filename in (__file__,) or frame.f_code.co_filename.startswith(_TORCH)):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").startswith("prune_nas.nets."):
        return None
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _random_states() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "Python": random.getstate()}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(map(_same, one, other))
    return bool((one == other).all()) if isinstance(one, (np.ndarray, torch.Tensor)) else bool(one == other)


def _untraceable(error: Exception, network: nn.Module) -> str:
    """Why Python code cannot be traced, and the repair."""
    line, said = user_line(error), first_line(error)
    if isinstance(error, _DependsOnValuesError):
        return (
            f"a decision depends on the values of a tensor ({line}). The network would be another for each image. "
            "Take the decision out of `forward`, or write both sides with torch.where"
        )
    if "not installed as a submodule" in said and any("forward" in one.__dict__ for one in network.modules()):
        return (
            f"a `forward` that was set on an instance holds layers of the instance itself ({line}), so that a copy "
            "would run the layers of the original. Define `forward` in a class, or bind it with types.MethodType"
        )
    if "not installed as a submodule" in said:
        return (
            f"a layer is not registered ({line}): torch does not see layers in a plain list or dictionary, and would "
            "not train them. Use nn.ModuleList or nn.ModuleDict"
        )
    if scripted := _scripted(error):
        return (
            f"{scripted} was compiled by torch.jit.script ({line}), and compiled code cannot be read. Leave out "
            "@torch.jit.script"
        )
    return (
        f"{said} ({line}). Widths are read from one pass through `forward` with stand-ins for tensors: move code that "
        "depends on values into a module of torch.nn, or take it out of `forward`"
    )


def _scripted(error: BaseException) -> str:
    """The name of the compiled function that refused a stand-in; empty if there is none."""
    text = str(error)
    if "StandIn" not in text or "Expected a value of type" not in text:
        return ""
    return text.partition("(")[0].strip() or "a function"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def user_line(error: BaseException) -> str:
    """The innermost line of code outside torch and the tracer that an error passed through."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_TORCH) and frame.filename != __file__
    ]
    if not frames:
        return "within torch"
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
