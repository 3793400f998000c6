"""MobileNetV2 for 32x32 images: inverted residuals with depthwise convolutions (Sandler et al., arXiv 1801.04381).

The published table, but for the strides of the stem and the second row, which are 1 so that a 32x32 image keeps its
places: the last map is 4x4. 2.24M parameters and 88M macs at 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from prune_nas.nets.models.widths import scaled

STEM, LAST = 32, 1280
ROWS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and stride of each row of table 2."""


class Inverted(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3 and a 1x1 that narrows, beside a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        widen = {"expand": _unit(inputs, width, 1)} if expansion > 1 else {}
        self.body = nn.Sequential(
            OrderedDict(
                **widen,
                depth=_unit(width, width, 3, stride=stride, groups=width),
                project=nn.Conv2d(width, outputs, 1, bias=False),
                norm=nn.BatchNorm2d(outputs),
            )
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """A stem, the rows of inverted residuals, a last 1x1 convolution and one linear layer."""

    def __init__(self, classes: int, base_width: float) -> None:
        super().__init__()
        stem, last, *channels = scaled((STEM, LAST, *(row[1] for row in ROWS)), base_width)
        self.stem = _unit(3, stem, 3)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = stem
        for number, ((expansion, _, repeats, stride), outputs) in enumerate(zip(ROWS, channels, strict=True), start=1):
            for i in range(repeats):
                blocks[f"row{number}_{i}"] = Inverted(inputs, outputs, expansion, stride if i == 0 else 1)
                inputs = outputs
        self.rows = nn.Sequential(blocks)
        self.last = _unit(inputs, last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.pool(self.last(self.rows(self.stem(x)))).flatten(1))
        return logits


def mobilenetv2(classes: int = 10, *, base_width: float = 1.0) -> nn.Module:
    """Width multiplier 1 unless `base_width` says otherwise."""
    return MobileNetV2(classes, base_width)


def _unit(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU6()))
