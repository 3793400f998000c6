"""What stands where the layers of a residual branch were that is gone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Absent(nn.Module):
    """Gives zeros of the shape that a convolution, a linear layer, a norm or a PReLU would give."""

    def __init__(self, layer: Any, channels: int) -> None:
        """Stand for `layer`.

        Args:
            layer: of the traced network.
            channels: that it gives at the network's widths; where there are none, as many as it gave when traced, so
                that whatever takes them apart still can.
        """
        super().__init__()
        self.convolves, self.projects = hasattr(layer, "kernel_size"), hasattr(layer, "in_features")
        if self.convolves:
            self.channels = channels or layer.out_channels
            self.sides = list(zip(layer.kernel_size, layer.stride, layer.dilation, _padded(layer), strict=True))
        elif self.projects:
            self.channels = channels or layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, any, *sizes) to zeros of (N, channels, *sizes after the layer); a norm's input to zeros like it."""
        if self.convolves:
            sizes = [
                (x.shape[2 + i] + padded - dilation * (kernel - 1) - 1) // stride + 1
                for i, (kernel, stride, dilation, padded) in enumerate(self.sides)
            ]
            return x.new_zeros((x.shape[0], self.channels, *sizes))
        if self.projects:
            return x.new_zeros((*x.shape[:-1], self.channels))
        return torch.zeros_like(x)


def _padded(layer: Any) -> list[int]:
    """The pixels that a convolution adds to each side length, both ends together."""
    if layer.padding == "same":
        return [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    return [2 * padding for padding in layer.padding]
