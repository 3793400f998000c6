"""Small networks that the tests of tracing and building share, each with one construct in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.shufflenetv2 import channel_shuffle
from torchvision.ops import StochasticDepth


def cbr(inputs, outputs, **kwargs):
    """Convolution, norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **kwargs), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Head(nn.Module):
    """The end of every network here."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x):
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Residual(nn.Module):
    """Two identity blocks on one stream of 16 channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.a1, self.a2 = cbr(16, 12), nn.Conv2d(12, 16, 3, padding=1)
        self.an = nn.BatchNorm2d(16)
        self.b1, self.b2 = cbr(16, 8), nn.Conv2d(8, 16, 1)
        self.head = Head(16)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.an(self.a2(self.a1(x))))
        y = self.b2(self.b1(x))
        y += x
        return self.head(y)


class Concat(nn.Module):
    """A dense block: every convolution reads everything before it."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 8)
        self.norm = nn.BatchNorm2d(8)
        self.grow1 = cbr(8, 6)
        self.both = nn.BatchNorm2d(14)
        self.grow2 = cbr(14, 5)
        self.head = Head(19)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = self.both(torch.cat([x, self.grow1(x)], 1))
        return self.head(torch.cat((x, self.grow2(x)), dim=1))


class Depthwise(nn.Module):
    """A depthwise convolution with squeeze and excitation, and one that doubles the channels."""

    def __init__(self):
        super().__init__()
        self.expand = cbr(3, 12)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.twice = nn.Conv2d(12, 24, 3, groups=12, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.project = cbr(24, 10)
        self.head = Head(10)

    def forward(self, x):
        x = F.relu6(self.depth(self.expand(x)))
        x = x * torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(self.project(self.norm(self.twice(x))))


class Flat(nn.Module):
    """A 2x2 map flattened into linear layers, by `view`."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(cbr(3, 6), cbr(6, 7), nn.AdaptiveAvgPool2d(2))
        self.hidden = nn.Linear(28, 9)
        self.norm = nn.BatchNorm1d(9)
        self.out = nn.Linear(9, 10)

    def forward(self, x):
        x = self.body(x)
        x = x.view(x.size(0), -1)
        return self.out(F.relu(self.norm(self.hidden(x))))


class Grouped(nn.Module):
    """Groups of 4, GroupNorm of 3, PReLU, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 8)
        self.group = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(3, 12)
        self.slope = nn.PReLU(12)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.after = nn.InstanceNorm2d(6, affine=True)
        self.head = Head(6)

    def forward(self, x):
        return self.head(self.after(self.up(self.slope(self.norm(self.group(self.stem(x)))))))


class Tokens(nn.Module):
    """Channels last, LayerNorm and linear layers over tokens."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.out = nn.Linear(12, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.out(x.mean(1))


class Scaled(nn.Module):
    """ConvNeXt's ways: LayerNorm2d, a bare parameter with one number a channel, stochastic depth."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), LayerNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.1))
        self.shift = nn.Parameter(torch.full((1, 8, 1, 1), 0.2))
        self.drop = StochasticDepth(0.2, "row")
        self.head = Head(8)

    def forward(self, x):
        x = self.norm(self.stem(x))
        y = self.down(F.gelu(self.up(self.depth(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return self.head(x + self.drop(self.scale * y) + self.shift)


class Shuffled(nn.Module):
    """ShuffleNetV2's ways: two branches take turns; half of the channels passes a block by."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 6)
        self.left, self.right = cbr(6, 8), cbr(6, 8)
        self.norm = nn.BatchNorm2d(16)
        self.inner, self.outer = cbr(8, 5), cbr(5, 8)
        self.head = Head(16)

    def forward(self, x):
        x = self.stem(x)
        x = channel_shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)
        a, b = self.norm(x).chunk(2, dim=1)
        return self.head(channel_shuffle(torch.cat((a, self.outer(self.inner(b))), dim=1), 2))


class Gated(nn.Module):
    """A gated linear unit: one convolution gives the values and their gates; turns without a cut keep the order."""

    def __init__(self):
        super().__init__()
        self.stem, self.both, self.after = cbr(3, 6), cbr(6, 16), cbr(8, 7)
        self.left, self.right = cbr(7, 4), cbr(7, 4)
        self.turns = nn.ChannelShuffle(2)
        self.head = Head(8)

    def forward(self, x):
        values, gates = torch.chunk(self.both(self.stem(x)), 2, 1)
        x = self.after(values * gates.sigmoid())
        return self.head(self.turns(torch.cat([self.left(x), self.right(x)], 1)))


class OwnNorm(nn.Module):
    """Norms and scales written by hand: parameters that only get dimensions of size 1; a transposed convolution."""

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

        def forward(self, x):
            mean = x.mean(1, keepdim=True)
            x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), self.Norm(8)
        self.down, self.up = nn.Conv2d(8, 12, 2, stride=2), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.gamma = nn.Parameter(torch.full((8,), 0.5))
        self.head = Head(8)

    def forward(self, x):
        x = self.norm(self.stem(x))
        return self.head(x + self.gamma.view(1, -1, 1, 1) * self.up(F.gelu(self.down(x))))


class Joined(nn.Module):
    """Sums over concatenations: what is added has a part for each branch, grouped convolutions among them."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = cbr(3, 8), cbr(8, 6), cbr(8, 10)
        self.first, self.again = cbr(16, 16, groups=2), nn.Conv2d(16, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(3, 16, 1)
        self.head = Head(16)

    def forward(self, x):
        y = self.stem(x)
        y = torch.cat([self.left(y), self.right(y)], 1)
        y = y + self.first(y)
        return self.head(self.shortcut(x) + self.again(y) * y)


ALL = (Residual, Concat, Depthwise, Flat, Grouped, Tokens, Scaled, Shuffled, Gated, OwnNorm, Joined)
