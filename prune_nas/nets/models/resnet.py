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

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Halve the feature map where the width grows."""
        super().__init__()
        self.grow = outputs - inputs
        stride = 2 if self.grow else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W), or to half of H and W where the width grows."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.grow:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow // 2, self.grow - self.grow // 2))
        return F.relu(out + x)


class ResNet(nn.Module):
    """A stem, three stages of `blocks` blocks each and one linear layer: 6 * blocks + 2 layers."""

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.stage1 = _stage(blocks, WIDTHS[0], WIDTHS[0])
        self.stage2 = _stage(blocks, WIDTHS[0], WIDTHS[1])
        self.stage3 = _stage(blocks, WIDTHS[1], WIDTHS[2])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        x = F.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def resnet20(classes: int = 10) -> nn.Module:
    """Three blocks a stage."""
    return ResNet(3, classes)


def resnet32(classes: int = 10) -> nn.Module:
    """Five blocks a stage."""
    return ResNet(5, classes)


def resnet56(classes: int = 10) -> nn.Module:
    """Nine blocks a stage."""
    return ResNet(9, classes)


def resnet110(classes: int = 10) -> nn.Module:
    """Eighteen blocks a stage."""
    return ResNet(18, classes)


def _stage(blocks: int, inputs: int, outputs: int) -> nn.Sequential:
    first = {"block0": Block(inputs, outputs)}
    return nn.Sequential(OrderedDict(first | {f"block{i}": Block(outputs, outputs) for i in range(1, blocks)}))
