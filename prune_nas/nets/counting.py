"""Macs of what runs, by the formulas of torch's `FlopCounterMode`, and of what those formulas leave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Macs(TorchDispatchMode):
    """Adds up the macs of the operations that run within.

    `FlopCounterMode` itself imports `torch._dynamo` on its first operation, which takes over a second.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and count it."""
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result) // 2
        elif (own := _MORE.get(str(func._overloadpacket))) is not None:
            self.total += own(args, result)
        return result


def _trilinear(args: Any, result: Any) -> int:
    """`nn.Bilinear`: each output sums over all pairs of inputs, at every place."""
    weight: Tensor = args[1]
    return weight.numel() * int(result.numel() // result.shape[-1])


def _rnn(args: Any, result: Any) -> int:
    """An LSTM that oneDNN runs: every step multiplies by all weights of its layer and direction."""
    inputs: Tensor = args[0]
    steps, batch = inputs.shape[0], inputs.shape[1]
    return sum(int(weight.numel()) for weight in args[1:3]) * int(steps) * int(batch)


def _deformed(args: Any, result: Any) -> int:
    """A deformable convolution: as a convolution of its weight's shape."""
    weight: Tensor = args[1]
    places = result.numel() // result.shape[1]
    return weight.numel() * int(places)


_MORE: dict[str, Callable[[Any, Any], int]] = {
    "aten._trilinear": _trilinear,
    "aten.mkldnn_rnn_layer": _rnn,
    "torchvision.deform_conv2d": _deformed,
}


def counted(network: nn.Module, *inputs: Tensor) -> tuple[int, Any]:
    """The macs of one pass of a network, and what it gives.

    Args:
        network: in the mode that it is to be counted in.
        inputs: of the pass.
    """
    with torch.no_grad(), Macs() as counter:
        result = network(*inputs)
    return counter.total, result
