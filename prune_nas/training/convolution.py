"""Convolutions that PyTorch computes slowly or wrongly on a CPU, done in another way while a network trains.

**Narrow ones with a stride.** For a 1x1 convolution of stride 2 with 2 to 7 input channels in channels_last, PyTorch
2.14.1 corrupts the heap as it computes the gradient of the weights. The process dies by signal 6 or 11, or hangs (seen
on AMD EPYC). The places that the stride leaves out are cut out of the input first, so that the stride becomes 1.

**Those over small images**, in bf16, are matrix products.

oneDNN's own kernels for them take up to twelve times as long as a copy of the patches and one product: with AMX most of
a convolution of 512 channels over 4x4 pixels is spent on rearranging its weights, and the gradient of the weights is
slow on any CPU. With AMX the whole convolution is done so, without it the gradient of the weights alone
(tests/benchmarks/convolution.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_NARROW = 8  # input channels from which on PyTorch computes the gradient of a 1x1 convolution with a stride rightly
_FEWEST = 8192  # pairs of input and output channels from which on,
_SMALL = 16  # and places of the output up to which a product is faster,
_LARGEST = 64  # and with AMX one for the gradient of the weights


@contextlib.contextmanager
def quick_convolutions(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """A block in which a CPU computes some of the network's convolutions in another way.

    Those over small images, or their gradients, are matrix products in bf16. The input of narrow ones with a stride is
    cut first. The network is what it was when the block ends.
    """
    on_cpu = device.type == "cpu"
    narrow = [m for m in network.modules() if isinstance(m, nn.Conv2d) and _is_narrow(m)] if on_cpu else []
    for module in narrow:
        module._conv_forward = partial(_cut_forward, module)  # type: ignore[method-assign]
    wanted = on_cpu and dtype == torch.bfloat16
    quick = [m for m in network.modules() if isinstance(m, nn.Conv2d) and _fits(m)] if wanted else []
    for module in quick:
        module._conv_forward = partial(_forward, module, has_amx())  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in (*narrow, *quick):
            module.__dict__.pop("_conv_forward", None)


def _is_narrow(module: nn.Conv2d) -> bool:
    """Whether it is a 1x1 convolution with a stride, without padding, of fewer inputs than PyTorch computes rightly."""
    return (
        type(module).forward is nn.Conv2d.forward
        and module.in_channels < _NARROW
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding in ((0, 0), "valid")
        and "_conv_forward" not in module.__dict__
    )


def _cut_forward(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `nn.Conv2d._conv_forward` does, at the places alone that the stride leaves."""
    down, across = module.stride
    return F.conv2d(x[..., ::down, ::across], weight, bias, groups=module.groups)


def has_amx() -> bool:
    """Whether oneDNN multiplies bf16 matrices in tiles here: the CPU can, and nobody forbade it."""
    highest = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    if highest not in ("DEFAULT", "ALL") and "AMX" not in highest:
        return False
    if hasattr(torch.cpu, "get_capabilities"):  # not in PyTorch 2.9
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return bool(torch.cpu._is_amx_tile_supported())


def _fits(module: nn.Conv2d) -> bool:
    """Whether it is a convolution of PyTorch's own, of one group, whose padding is zeros and in numbers."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
        and module.in_channels * module.out_channels >= _FEWEST
        and "_conv_forward" not in module.__dict__  # not within such a block already
    )


def _forward(module: nn.Conv2d, amx: bool, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `nn.Conv2d._conv_forward` does."""
    stride, padding = module.stride, module.padding
    assert isinstance(padding, tuple)  # noqa: S101 - for the type checker
    places = 1
    for size, kernel, step, edge in zip(x.shape[-2:], weight.shape[-2:], stride, padding, strict=True):
        places *= max((size + 2 * edge - kernel) // step + 1, 0)
    low = torch.bfloat16
    plain = not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == low)
    if plain or not 0 < places <= (_LARGEST if amx else _SMALL) or x.dim() != 4 or x.dtype == torch.float64:
        return F.conv2d(x, weight, bias, stride, padding)
    throughout = amx and places <= _SMALL
    small = bias if bias is None else bias.to(low)
    out: Tensor = _Convolution.apply(x.to(low), weight.to(low), small, stride, padding, throughout)
    return out


class _Convolution(torch.autograd.Function):
    """A convolution whose weights' gradient is a matrix product, and all of it where that is said."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, throughout: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.throughout = stride, padding, throughout
        return convolved(x, weight, bias, stride, padding) if throughout else F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            if ctx.throughout and ctx.stride == (1, 1):
                of_input = input_gradient(gradient, weight, ctx.padding)
            else:
                of_input = torch.ops.aten.convolution_backward(
                    gradient, x, weight, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, [True, False, False]
                )[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, weight.shape, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None, None, None


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """What `F.conv2d` gives, of shape (N, out, H', W').

    Args:
        x: shape (N, in, H, W).
        weight: shape (out, in, KH, KW).
        bias: shape (out,), or none.
        stride: vertical and horizontal.
        padding: vertical and horizontal.
    """
    patches, (rows, columns) = _patches(x, weight.shape[2:], stride, padding)
    flat = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    return F.linear(patches, flat, bias).view(len(x), rows, columns, len(weight)).permute(0, 3, 1, 2)


def input_gradient(gradient: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """The gradient of the input of a convolution of stride 1, of shape (N, in, H, W).

    Args:
        gradient: of its output, shape (N, out, H', W').
        weight: its weights, shape (out, in, KH, KW).
        padding: of the input, vertical and horizontal.
    """
    reach = (weight.shape[2] - 1 - padding[0], weight.shape[3] - 1 - padding[1])  # where negative, pad takes away
    patches, (rows, columns) = _patches(gradient, weight.shape[2:], (1, 1), reach)
    mirrored = torch.cat([tap for row in weight.unbind(2)[::-1] for tap in row.unbind(2)[::-1]])
    return (patches @ mirrored).view(len(gradient), rows, columns, weight.shape[1]).permute(0, 3, 1, 2)


def weight_gradient(
    gradient: Tensor, x: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weights, of their shape.

    Args:
        gradient: of its output, shape (N, out, H', W').
        x: its input, shape (N, in, H, W).
        shape: of its weights, (out, in, KH, KW).
        stride: vertical and horizontal.
        padding: vertical and horizontal.
    """
    outputs, inputs, high, wide = shape
    patches, _ = _patches(x, shape[2:], stride, padding)
    flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    return (flat.t() @ patches).view(outputs, high, wide, inputs).permute(0, 3, 1, 2)


def _patches(
    x: Tensor, kernel: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """What the kernel sees at each place, shape (N * H' * W', KH * KW * C), and (H', W')."""
    count, channels = x.shape[:2]
    high, wide = kernel
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    rows = (padded.shape[1] - high) // stride[0] + 1
    columns = (padded.shape[2] - wide) // stride[1] + 1
    n, down, right, channel = padded.stride()
    seen = padded.as_strided(
        (count, rows, columns, high, wide, channels),
        (n, down * stride[0], right * stride[1], down, right, channel),
    )
    return seen.reshape(count * rows * columns, high * wide * channels), (rows, columns)
