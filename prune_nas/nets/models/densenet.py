"""DenseNet-40 for 32x32 images, growth 12, without bottlenecks or compression (Huang et al., arXiv 1608.06993).

Three blocks of twelve layers; each layer reads everything before it in its block. 1.06M parameters and 283M macs at
10 classes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_nas.nets.models.widths import scaled

STEM, GROWTH, LAYERS = 24, 12, 12


class Dense(nn.Module):
    """One layer: norm, ReLU and a 3x3 convolution; its output is put behind its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, inputs + growth, H, W)."""
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Transition(nn.Module):
    """Between two blocks: norm, ReLU, a 1x1 convolution and a pool that halves the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, channels, H / 2, W / 2)."""
        out: Tensor = self.pool(self.conv(F.relu(self.norm(x))))
        return out


class DenseNet(nn.Module):
    """A stem, three dense blocks with transitions between them and one linear layer."""

    def __init__(self, layers: int, classes: int, base_width: float) -> None:
        super().__init__()
        stem, growth = scaled((STEM, GROWTH), base_width)
        ends = [stem + growth * layers * (block + 1) for block in range(3)]
        self.conv = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.block1 = _block(stem, growth, layers)
        self.transition1 = Transition(ends[0])
        self.block2 = _block(ends[0], growth, layers)
        self.transition2 = Transition(ends[1])
        self.block3 = _block(ends[1], growth, layers)
        self.norm = nn.BatchNorm2d(ends[2])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(ends[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        x = self.transition1(self.block1(self.conv(x)))
        x = self.block3(self.transition2(self.block2(x)))
        logits: Tensor = self.classifier(self.pool(F.relu(self.norm(x))).flatten(1))
        return logits


def densenet40(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Twelve layers a block, growth 12."""
    return DenseNet(LAYERS, classes, base_width)


def _block(inputs: int, growth: int, layers: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"layer{i}", Dense(inputs + i * growth, growth)) for i in range(layers)))
