"""The pre-activation bottleneck ResNet-164 for 32x32 images (He et al., arXiv 1603.05027, as in Network Slimming).

54 blocks of three convolutions in three stages, each convolution behind its own BatchNorm and ReLU; a stage's first
block has a 1x1 convolution in its shortcut. 1.70M parameters and 248M macs at 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from prune_nas.nets.models.widths import scaled

WIDTHS = (16, 32, 64)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        other = inputs != outputs or stride > 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if other else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4 * width, H / stride, W / stride)."""
        out = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        out = self.conv3(F.relu(self.norm3(out)))
        total: Tensor = out + self.shortcut(x)
        return total


class PreResNet(nn.Module):
    """A stem, three stages of `blocks` bottlenecks each and one linear layer: 9 * blocks + 2 layers."""

    def __init__(self, blocks: int, classes: int, base_width: float) -> None:
        super().__init__()
        first, second, third = scaled(WIDTHS, base_width)
        self.conv = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.stage1 = _stage(blocks, first, first, stride=1)
        self.stage2 = _stage(blocks, EXPANSION * first, second, stride=2)
        self.stage3 = _stage(blocks, EXPANSION * second, third, stride=2)
        self.norm = nn.BatchNorm2d(EXPANSION * third)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(EXPANSION * third, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        x = self.stage3(self.stage2(self.stage1(self.conv(x))))
        logits: Tensor = self.classifier(self.pool(F.relu(self.norm(x))).flatten(1))
        return logits


def preresnet164(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Eighteen blocks a stage."""
    return PreResNet(18, classes, base_width)


def _stage(blocks: int, inputs: int, width: int, stride: int) -> nn.Sequential:
    first = {"block0": Bottleneck(inputs, width, stride)}
    later = {f"block{i}": Bottleneck(EXPANSION * width, width, 1) for i in range(1, blocks)}
    return nn.Sequential(OrderedDict(first | later))
