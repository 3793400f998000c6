"""Cropping, flipping and normalising a whole batch at once, on whatever device it lies.

Every random number of an epoch is drawn at its start by a generator on the CPU, so the images of a run do not depend
on the device they are prepared on, and a GPU is never waited for within an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Augmentation:
    """A random crop out of the padded image, then, for every second image on average, a mirrored one."""

    padding: int = 4
    """Pixels on each side, as torchvision's `RandomCrop(32, padding=4)`."""
    flip: bool = True
    """Whether left and right may be exchanged; not so where it changes the meaning, as for digits."""
    reflect: bool = False
    """Whether the pixels on each side mirror the image; else they are zeros."""


@final
@dataclass(frozen=True)
class Normalisation:
    """`(x / 255 - mean) / std` a channel, with x from 0 to 255 and mean and std in units of [0, 1]."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def affine(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The same map as `bias + scale * x`.

        Returns:
            bias and scale, float32 of shape (height * width * 3,): repeated for every pixel, because a loop over
            three numbers cannot be vectorised and one over an image can.
        """
        scale = torch.tensor([1 / (255 * s) for s in self.std], dtype=torch.float32)
        bias = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], dtype=torch.float32)
        return bias.repeat(height * width).to(device), scale.repeat(height * width).to(device)


UNIT = Normalisation()  # to [0, 1] and no further


def plan_epoch(count: int, generator: torch.Generator | None, augmentation: Augmentation | None) -> Tensor:
    """Draw what an epoch needs of chance.

    Args:
        count: images in the set.
        generator: a generator on the CPU; None for the images as they come.
        augmentation: what is drawn for each image besides its turn.

    Returns:
        int64 of shape (1, count): the order; with an augmentation (4, count): order, top, left, flip, where top and
        left run from 0 to twice the padding and flip is 0 or 1.

    Raises:
        ValueError: an augmentation without a generator.
    """
    if generator is None:
        if augmentation is not None:
            raise ValueError("an augmentation needs a generator to draw from")
        return torch.arange(count)[None]
    order = torch.randperm(count, generator=generator)
    if augmentation is None:
        return order[None]
    corner = torch.randint(0, 2 * augmentation.padding + 1, (2, count), generator=generator)
    flip = torch.randint(0, 2, (1, count), generator=generator) * int(augmentation.flip)
    return torch.cat([order[None], corner, flip])


def crop_and_flip(pixels: Tensor, draws: Tensor, padding: int, *, reflect: bool = False) -> Tensor:
    """Pad each image, cut its window out of it and mirror the window where its flip is 1.

    One gather of whole pixels does all of it: a mirrored row is a row of descending indices, and so is the part of a
    window that lies outside a reflected image.

    Args:
        pixels: (B, H, W, C), of any type.
        draws: int64 (3, B): top, left and flip, on the same device.
        padding: pixels on each side, fewer than the image has.
        reflect: whether these mirror the image, its edge not repeated; else they are zeros.

    Returns:
        (B, H, W, C), contiguous.
    """
    batch, height, width, channels = pixels.shape
    if reflect:
        source, tall, wide, offset = pixels, height, width, padding
    else:
        source = torch.nn.functional.pad(pixels, (0, 0, padding, padding, padding, padding))
        tall, wide, offset = height + 2 * padding, width + 2 * padding, 0
    top, left, flip = draws[:, :, None]  # each (B, 1)
    first = left + flip * (width - 1)
    step = 1 - 2 * flip
    columns = _within(first + step * torch.arange(width, device=pixels.device) - offset, wide)  # (B, W)
    rows = _within(top + torch.arange(height, device=pixels.device) - offset, tall)
    image = torch.arange(batch, device=pixels.device)[:, None]
    chosen = ((image * tall + rows) * wide)[:, :, None] + columns[:, None, :]  # (B, H, W)
    return source.reshape(-1, channels).index_select(0, chosen.view(-1)).view(batch, height, width, channels)


def _within(places: Tensor, count: int) -> Tensor:
    """Places of a line of `count` pixels; those outside are mirrored at its ends."""
    return (count - 1) - ((count - 1) - places.abs()).abs()
