"""Networks as other people write them, for measurements of what a search makes of a network that nobody here chose.

    prune-nas search -m tests/benchmarks/own.py:GroupNet -d folder:DIR --image-size 32 -b macs=0.5

`GroupNet` has GroupNorm, dense parts and attention pooling, and no BatchNorm. `ViT` is a small vision transformer.
`python -m tests.benchmarks.own IMAGES DIR [even|uneven]` writes a part of CIFAR-10 as PNG files: 300 training and 100
test images of each class, or five classes of 1,000 to 200 training images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn


class Dense(nn.Module):
    """Convolutions that each see everything before them."""

    def __init__(self, before: int, growth: int, parts: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before + i * growth, growth, 3, padding=1), nn.GroupNorm(4, growth), nn.SiLU())
            for i in range(parts)
        )

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = torch.cat([x, part(x)], 1)
        return x


class Pool(nn.Module):
    """Every place votes how much it counts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = self.score(x).flatten(2).softmax(2)
        return (x.flatten(2) * share).sum(2)


class GroupNet(nn.Module):
    """4.8M macs and 0.115M params at 32x32."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.GroupNorm(4, 16), nn.SiLU())
        self.one = Dense(16, 8, 3)
        self.down = nn.Sequential(nn.Conv2d(40, 32, 3, 2, 1), nn.GroupNorm(4, 32), nn.SiLU())
        self.two = Dense(32, 16, 3)
        self.last = nn.Sequential(nn.Conv2d(80, 96, 3, 2, 1), nn.GroupNorm(8, 96), nn.SiLU())
        self.pool = Pool(96)
        self.head = nn.Sequential(nn.Linear(96, 64), nn.SiLU(), nn.Linear(64, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.two(self.down(self.one(self.stem(x)))))
        return self.head(self.pool(x))


class Block(nn.Module):
    """Attention, then two linear layers, each behind a norm and beside the stream."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """4.5M macs and 0.063M params at 32x32."""

    def __init__(self, num_classes: int = 10, dim: int = 48, depth: int = 2, patch: int = 4, size: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, 4, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


COUNTS = {"even": dict.fromkeys(range(10), (300, 100)),
          "uneven": {0: (1000, 200), 3: (700, 140), 5: (450, 90), 8: (300, 60), 9: (200, 40)}}  # fmt: skip
"""Which images to write: label -> training and test images."""


def write_folder(images: Path, folder: Path, counts: dict[int, tuple[int, int]]) -> None:
    """A part of CIFAR-10 as a folder of pictures."""
    from prune_nas.training.data import load

    data = load("cifar10", data_dir=images, train_size=20_000, val_size=100, download=False)
    for split, every, which in (("train", data.train, 0), ("test", data.open_test(), 1)):
        for label, numbers in counts.items():
            place = folder / split / data.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            chosen = (every.labels == label).nonzero().flatten()[: numbers[which]]
            for number, pixels in enumerate(every.subset(chosen).pixels.permute(0, 2, 3, 1)):
                Image.fromarray(pixels.contiguous().numpy()).save(place / f"{number:04d}.png")


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]), COUNTS[(*sys.argv[3:], "even")[0]])
