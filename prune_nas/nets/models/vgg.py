"""VGG for small images, as in "Rethinking the Value of Network Pruning" (arXiv 1810.05270) and its code.

Five stages with a max-pool between them, BatchNorm after every convolution, no convolution bias, one linear
layer behind the average of the last feature map. 32x32 inputs give stages of 32, 16, 8, 4 and 2 pixels.
VGG-19 has 20.04M parameters and 398.1M macs at 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from prune_nas.nets.models.widths import scaled

WIDTHS = (64, 128, 256, 512, 512)


def vgg11(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Eight convolutions: 1, 1, 2, 2 and 2 a stage."""
    return _vgg((1, 1, 2, 2, 2), classes, base_width)


def vgg13(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Ten convolutions: two a stage."""
    return _vgg((2, 2, 2, 2, 2), classes, base_width)


def vgg16(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Thirteen convolutions: 2, 2, 3, 3 and 3 a stage."""
    return _vgg((2, 2, 3, 3, 3), classes, base_width)


def vgg19(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Sixteen convolutions: 2, 2, 4, 4 and 4 a stage."""
    return _vgg((2, 2, 4, 4, 4), classes, base_width)


def _vgg(convolutions: Sequence[int], classes: int, base_width: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for stage, (count, width) in enumerate(zip(convolutions, scaled(WIDTHS, base_width), strict=True), start=1):
        if stage > 1:
            layers[f"pool{stage - 1}"] = nn.MaxPool2d(2)
        for i in range(1, count + 1):
            layers[f"conv{stage}_{i}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{stage}_{i}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}_{i}"] = nn.ReLU(inplace=True)
            channels = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)
