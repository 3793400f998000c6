"""A network as one readable Python file that imports torch alone, with its weights in safetensors beside it.

The file is written from the traced forward pass: each layer stands in the constructor as in the network that it came
from, and `forward` names every step. Names that Python does not take, as the numbers in `nn.Sequential`, are changed.
"""

from __future__ import annotations

import copy
import json
import operator
import re
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.shufflenetv2 import channel_shuffle
from torchvision.ops import stochastic_depth

from prune_nas.design.preprocessing import Preprocessing
from prune_nas.errors import UsageError
from prune_nas.nets import graph, nodes
from prune_nas.nets.form import set_mode

_HELPERS = {
    LayerNorm2d: '''

class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
''',
}
_SYMBOLS = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.pow: "**",
    operator.floordiv: "//", operator.mod: "%", operator.matmul: "@", operator.iadd: "+", operator.isub: "-",
    operator.imul: "*", operator.itruediv: "/", operator.eq: "==", operator.ne: "!=", operator.lt: "<",
    operator.gt: ">", operator.le: "<=", operator.ge: ">=",
}  # fmt: skip

# What torch assumes anyway, in constructors and functions alike: left out, since it would hide what is particular.
_DEFAULTS = re.compile(
    r", (?:eps=1e-05|momentum=0\.1|affine=True|elementwise_affine=True|track_running_stats=True|bias=True|"
    r"stride=\(1(?:, 1)*,?\)|inplace=False|mode='constant'|value=None)(?=[,)]|$)"
)


def to_python(
    network: nn.Module, name: str, input_shape: tuple[int, ...], about: str, preprocessing: Preprocessing | None = None
) -> tuple[str, dict[str, Tensor]]:
    """The source of `model.py`, and the state that it loads.

    Args:
        network: as built; its eval-mode forward pass is written down.
        name: of the network, for messages.
        input_shape: of one example.
        about: what the file's docstring says of it; one line.
        preprocessing: how an image must be fed to it; then the file has a function that does so.

    Returns:
        Source, and parameter name in that source -> tensor.

    Raises:
        UsageError: the network has a step that cannot be written with torch alone; it is named.
    """
    traced = graph.read(set_mode(copy.deepcopy(network).cpu(), training=False), name, [input_shape])
    root = traced.root
    calls = {str(node.target) for node in traced.nodes if node.op == "call_module"}
    tensors = {str(node.target) for node in traced.nodes if node.op == "get_attr"}
    constructor, helpers = _constructor(root, sorted(calls | tensors, key=_order(root)), tensors)
    steps = _forward(traced.nodes)
    state = {_renamed(key): value for key, value in root.state_dict().items() if _is_used(key, calls, tensors)}
    quoted = about.replace("\\", "").replace('"""', "'")
    source = _FILE.format(
        about=quoted,
        helpers="".join(_HELPERS[kind] for kind in helpers),
        constructor="\n".join(f"        {line}" for line in constructor),
        forward="\n".join(f"        {line}" for line in steps),
        shape=", ".join(map(str, input_shape)),
        preprocess="" if preprocessing is None else _preprocess(preprocessing),
        feed="as `preprocess` makes them" if preprocessing else "normalised",
    )
    return source, state


def _preprocess(given: Preprocessing) -> str:
    """The source of the class names and of the function that makes an input of an image file."""
    steps = "\n".join(f"    {i}. {step[:1].upper()}{step[1:]}." for i, step in enumerate(given.steps, start=1))
    return _PREPROCESS.format(
        classes=json.dumps(list(given.classes), ensure_ascii=True), height=given.size.height, width=given.size.width,
        mean=list(given.mean), std=list(given.std), steps=steps,
    )  # fmt: skip


_PREPROCESS = '''
CLASSES = {classes}


def preprocess(path):
    """An image file as the network wants it (needs Pillow and numpy).

{steps}
    """
    import numpy as np
    from PIL import Image

    height, width = {height}, {width}
    with Image.open(path) as file:
        file.draft("RGB", (width, height))
        if file.mode == "I" or file.mode.startswith("I;16"):  # 16 bits, which convert would clip
            file = Image.fromarray(np.rint(np.asarray(file).clip(0, 65535) / 257).astype(np.uint8))
        picture = file.convert("RGB")
    tall, wide = height / picture.height, width / picture.width
    size = (
        width if wide >= tall else max(int(picture.width * height / picture.height), width),
        height if tall >= wide else max(int(picture.height * width / picture.width), height),
    )
    if picture.size != (width, height):
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    pixels = np.array(picture.crop((left, top, left + width, top + height)))
    x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor({mean}), torch.tensor({std})
    return ((x - mean[:, None, None]) / std[:, None, None]).unsqueeze(0)

'''


_FILE = '''"""{about}

Images come in as (N, {shape}), {feed}; logits go out. Load the weights with:

    from safetensors.torch import load_file
    model = Model()
    model.load_state_dict(load_file("model.safetensors"))
    model.eval()
"""

import torch
import torch.nn.functional as F
from torch import nn
{preprocess}{helpers}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
{constructor}

    def forward(self, x):
{forward}
'''


def _order(root: nn.Module) -> Callable[[str], int]:
    places = {name: i for i, (name, _) in enumerate(root.named_modules())}
    return lambda path: places.get(path, places.get(path.rpartition(".")[0], 0))


def _constructor(root: nn.Module, paths: list[str], tensors: set[str]) -> tuple[list[str], list[type[nn.Module]]]:
    lines, made, helpers = [], {""}, []
    for path in paths:
        for parent in _parents(path):
            if parent not in made:
                made.add(parent)
                lines.append(f"self.{_renamed(parent)} = nn.Module()")
        if path in tensors:
            lines.append(_tensor(root, path))
            continue
        module = root.get_submodule(path)
        made.add(path)
        if type(module) in _HELPERS and type(module) not in helpers:
            helpers.append(type(module))
        lines.append(f"self.{_renamed(path)} = {_made(module, path)}")
    return lines, helpers


def _tensor(root: nn.Module, path: str) -> str:
    owner, _, own = path.rpartition(".")
    value = getattr(root.get_submodule(owner), own)
    empty = f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    if isinstance(value, nn.Parameter):
        return f"self.{_renamed(path)} = nn.Parameter({empty})"
    place = f"self.{_renamed(owner)}" if owner else "self"
    return f"{place}.register_buffer({_renamed(own)!r}, {empty})"


def _made(module: nn.Module, path: str) -> str:
    """The expression that makes a module like `module`."""
    kind = type(module)
    if isinstance(module, nn.MultiheadAttention):
        return (
            f"nn.MultiheadAttention({module.embed_dim}, {module.num_heads}, dropout={module.dropout}, "
            f"bias={module.in_proj_bias is not None}, batch_first={module.batch_first})"
        )
    text = repr(module)
    if "\n" in text or (kind not in _HELPERS and getattr(nn, kind.__name__, None) is not kind):
        raise UsageError(
            f"{path} is a {kind.__module__}.{kind.__qualname__}, which a file that imports torch alone cannot make. "
            "Export it as onnx or pt2"
        )
    text = re.sub(r"padding_mode=(\w+)", r"padding_mode='\1'", text)
    if not isinstance(module, _InstanceNorm):  # its defaults are not those of the other norms
        text = _DEFAULTS.sub("", text)
    text = text.replace("in_features=", "").replace("out_features=", "")
    return text if kind in _HELPERS else f"nn.{text}"


def _forward(nodes: tuple[fx.Node, ...]) -> list[str]:
    """A line a step; a value is called `x` for as long as only the next step reads it."""
    names: dict[fx.Node, str] = {}
    lines = []
    for i, node in enumerate(nodes):
        if node.op == "placeholder":
            names[node] = "x"
        elif node.op == "get_attr":
            names[node] = f"self.{_renamed(str(node.target))}"
        elif node.op == "output":
            lines.append(f"return {_spoken(node.args[0], names)}")
        else:
            expression = _step(node, names)
            follower = nodes[i + 1] if i + 1 < len(nodes) else None
            busy = any(names.get(one) == "x" and _read_later(one, nodes[i + 1 :]) for one in names)
            passing = len(node.users) == 1 and follower in node.users and not busy
            names[node] = "x" if passing else _free_name(node)
            lines.append(f"{names[node]} = {expression}")
    return lines


def _read_later(node: fx.Node, rest: tuple[fx.Node, ...]) -> bool:
    return any(later in node.users for later in rest)


def _free_name(node: fx.Node) -> str:
    return f"{node.name}_" if node.name in ("x", "self", "torch", "nn", "F") else node.name


def _step(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    args = [_spoken(arg, names) for arg in node.args]
    keywords = [f"{key}={_spoken(value, names)}" for key, value in node.kwargs.items()]
    keywords = [one for one in keywords if not _DEFAULTS.fullmatch(f", {one}")]
    if node.op == "call_module":
        return f"self.{_renamed(str(node.target))}({', '.join(args + keywords)})"
    if node.op == "call_method":
        return f"{args[0]}.{node.target}({', '.join(args[1:] + keywords)})"
    written = _SPECIAL.get(node.target)
    if written is not None:
        return written(node, args, names)
    return f"{_function(node)}({', '.join(args + keywords)})"


def _function(node: fx.Node) -> str:
    target: Any = node.target
    name = str(getattr(target, "__name__", target))
    for place, short in ((F, "F"), (torch, "torch")):
        if getattr(place, name, None) is target:
            return f"{short}.{name}"
    raise UsageError(
        f"the step {nodes.place(node)} calls {name}, which a file that imports torch alone cannot name. "
        "Export it as onnx or pt2"
    )


Written = Callable[[fx.Node, list[str], Mapping[fx.Node, str]], str]


def _infix(symbol: str) -> Written:
    return lambda node, args, names: f"{args[0]} {symbol} {args[1]}"


_SPECIAL: Mapping[Any, Written] = {
    **{function: _infix(symbol) for function, symbol in _SYMBOLS.items()},
    operator.neg: lambda node, args, names: f"-{args[0]}",
    operator.getitem: lambda node, args, names: f"{args[0]}[{_key(node.args[1], names)}]",
    operator.setitem: lambda node, args, names: f"{args[0]}.__setitem__({args[1]}, {args[2]})",
    getattr: lambda node, args, names: f"{args[0]}.{node.args[1]}",
    stochastic_depth: lambda node, args, names: args[0],  # in eval mode every path is taken
    channel_shuffle: lambda node, args, names: f"F.channel_shuffle({', '.join(args)})",
}


def _spoken(value: Any, names: Mapping[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return names[value]
    if isinstance(value, tuple) and type(value) is tuple:
        inner = ", ".join(_spoken(one, names) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return f"[{', '.join(_spoken(one, names) for one in value)}]"
    if isinstance(value, torch.Size):
        return repr(tuple(value))
    if isinstance(value, slice):
        return f"slice({_spoken(value.start, names)}, {_spoken(value.stop, names)}, {_spoken(value.step, names)})"
    return "..." if value is Ellipsis else repr(value)


def _key(key: Any, names: Mapping[fx.Node, str]) -> str:
    keys = key if isinstance(key, tuple) else (key,)
    return ", ".join(_slice(one, names) if isinstance(one, slice) else _spoken(one, names) for one in keys)


def _slice(key: slice, names: Mapping[fx.Node, str]) -> str:
    start, stop, step = ("" if end is None else _spoken(end, names) for end in (key.start, key.stop, key.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _renamed(path: str) -> str:
    return ".".join(map(_identifier, path.split(".")))


def _identifier(name: str) -> str:
    """A name that Python takes: `0` becomes `layer0`, RegNet's `block1-0` becomes `block1_0`."""
    return re.sub(r"\W", "_", f"layer{name}" if name[:1].isdigit() else f"{name}_" if iskeyword(name) else name)


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _is_used(key: str, calls: set[str], tensors: set[str]) -> bool:
    return key in tensors or any(parent in calls for parent in _parents(key))
