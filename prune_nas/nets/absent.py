"""What stands where the layers of a residual branch were that is gone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Absent(nn.Module):
    """Gives zeros of the shape that a convolution or linear layer would give; at least one channel, to go on with."""

    def __init__(self, layer: Any, channels: int) -> None:
        """Take over the geometry of `layer`, which gives `channels`."""
        super().__init__()
        self.channels = max(channels, 1)
        self.convolves = hasattr(layer, "kernel_size")
        if self.convolves:
            self.sides = list(zip(layer.kernel_size, layer.stride, layer.dilation, _padded(layer), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, any, *sizes) to zeros of (N, channels, *sizes after the layer)."""
        if not self.convolves:
            return x.new_zeros((*x.shape[:-1], self.channels))
        sizes = [
            (x.shape[2 + i] + padded - dilation * (kernel - 1) - 1) // stride + 1
            for i, (kernel, stride, dilation, padded) in enumerate(self.sides)
        ]
        return x.new_zeros((x.shape[0], self.channels, *sizes))

    def extra_repr(self) -> str:
        """Its channels."""
        return str(self.channels)


def _padded(layer: Any) -> list[int]:
    """The pixels that a convolution adds to each side length, both ends together."""
    if layer.padding == "same":
        return [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    return [2 * padding for padding in layer.padding]
