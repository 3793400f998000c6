"""A network of your own, as `--model search_spaces/example.py:Example`: residual, concatenation, depthwise and gate.

Nothing in it knows of widths that are searched. Sizes are taken from tensors, never written out in `forward`.
"""

import torch
from torch import nn


def conv(inputs, outputs, kernel=3, stride=1, groups=1):
    """Convolution, BatchNorm, ReLU."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Gate(nn.Module):
    """Squeeze and excitation: a factor for each channel."""

    def __init__(self, width):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x):
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Residual(nn.Module):
    """An inverted bottleneck around a depthwise convolution, with a gate, added to what came in."""

    def __init__(self, width):
        super().__init__()
        wide = 2 * width
        self.body = nn.Sequential(conv(width, wide, 1), conv(wide, wide, groups=wide), Gate(wide))
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return x + self.project(self.body(x))


class Branches(nn.Module):
    """Two branches beside each other, concatenated."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.fine, self.coarse = conv(inputs, outputs // 2, 1), conv(inputs, outputs // 2)

    def forward(self, x):
        return torch.cat([self.fine(x), self.coarse(x)], dim=1)


class Example(nn.Module):
    """Three stages for small images."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = conv(3, 32)
        self.one = Residual(32)
        self.down = conv(32, 64, stride=2)
        self.two = nn.Sequential(Branches(64, 64), Residual(64))
        self.last = conv(64, 128, stride=2)
        self.head = nn.Linear(128, classes)

    def forward(self, x):
        x = self.two(self.down(self.one(self.stem(x))))
        return self.head(self.last(x).mean((2, 3)))
