"""The CIFAR ResNets of He et al. (arXiv 1512.03385, section 4.2) with parameter-free "option A" shortcuts.

A shortcut that crosses stages takes every second pixel and pads the new channels with zeros, half on each side.
The gradient flows through it. The padding fixes the widths of the residual streams, so each block's first
convolution is what can be narrowed: the choice of "Pruning Filters for Efficient ConvNets" too.
ResNet-56 has 0.853M parameters and 125.5M macs at 10 classes, ResNet-110 has 1.728M parameters.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from prune_nas.nets.models.widths import scaled

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.grow, self.stride = outputs - inputs, stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grow // 2, self.grow - self.grow // 2))
        return F.relu(out + x)


class ResNet(nn.Module):
    """A stem, three stages of `blocks` blocks each and one linear layer: 6 * blocks + 2 layers."""

    def __init__(self, blocks: int, classes: int, base_width: float) -> None:
        super().__init__()
        first, second, third = scaled(WIDTHS, base_width)
        self.conv = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.stage1 = _stage(blocks, first, first, stride=1)
        self.stage2 = _stage(blocks, first, second, stride=2)
        self.stage3 = _stage(blocks, second, third, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        x = F.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def resnet20(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Three blocks a stage."""
    return ResNet(3, classes, base_width)


def resnet32(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Five blocks a stage."""
    return ResNet(5, classes, base_width)


def resnet56(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Nine blocks a stage."""
    return ResNet(9, classes, base_width)


def resnet110(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Eighteen blocks a stage."""
    return ResNet(18, classes, base_width)


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = {"block0": Block(inputs, outputs, stride)}
    return nn.Sequential(OrderedDict(first | {f"block{i}": Block(outputs, outputs) for i in range(1, blocks)}))
