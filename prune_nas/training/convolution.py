"""The gradient of a convolution's weights as a matrix product, for small images in bf16 on a CPU.

oneDNN's own kernel for it takes three to twelve times as long there as a copy of the patches and one product: of the
step of a VGG-16 that is a third (tests/benchmarks/convolution.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LARGEST = 64  # places of the output up to which the product is faster,
_FEWEST = 8192  # and pairs of input and output channels from which on it is


@contextlib.contextmanager
def quick_gradients(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """A block in which the network's plain convolutions compute their weights' gradients so, where that is faster.

    The network is what it was when the block ends; outside of bf16 autocast on a CPU nothing is done.
    """
    wanted = device.type == "cpu" and dtype == torch.bfloat16
    quick = [m for m in network.modules() if isinstance(m, nn.Conv2d) and _fits(m)] if wanted else []
    for module in quick:
        module._conv_forward = partial(_forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in quick:
            module.__dict__.pop("_conv_forward", None)


def _fits(module: nn.Conv2d) -> bool:
    """Whether it is a convolution of PyTorch's own, of one group, whose padding is zeros and in numbers."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
        and module.in_channels * module.out_channels >= _FEWEST
    )


def _forward(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `nn.Conv2d._conv_forward` does."""
    stride, padding = module.stride, module.padding
    assert isinstance(padding, tuple)  # noqa: S101 - for the type checker
    places = 1
    for size, kernel, step, edge in zip(x.shape[-2:], weight.shape[-2:], stride, padding, strict=True):
        places *= (size + 2 * edge - kernel) // step + 1
    low = torch.bfloat16
    plain = not (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == low and torch.is_grad_enabled()
    )
    if plain or places > _LARGEST or x.dim() != 4 or x.dtype == torch.float64:
        return F.conv2d(x, weight, bias, stride, padding)
    out: Tensor = _Convolution.apply(x.to(low), weight.to(low), bias if bias is None else bias.to(low), stride, padding)
    return out


class _Convolution(torch.autograd.Function):
    """A convolution with the gradient of its weights as a matrix product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = list(stride), list(padding)
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, weight.shape, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None, None


def weight_gradient(
    gradient: Tensor, x: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weights.

    Args:
        gradient: of its output, shape (N, out, H', W').
        x: its input, shape (N, in, H, W).
        shape: of its weights, (out, in, KH, KW).
        stride: vertical and horizontal.
        padding: vertical and horizontal.
    """
    outputs, inputs, high, wide = shape
    rows, columns = gradient.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    n, down, right, channel = padded.stride()
    patches = padded.as_strided(
        (len(x), rows, columns, high, wide, inputs),
        (n, down * stride[0], right * stride[1], down, right, channel),
    ).reshape(len(x) * rows * columns, high * wide * inputs)
    flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    return (flat.t() @ patches).view(outputs, high, wide, inputs).permute(0, 3, 1, 2)
