"""Files and arrays of pixels -> square RGB images of one size, one byte a channel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from prune_nas.errors import UsageError


def decode(path: str, size: int) -> NDArray[np.uint8]:
    """Read an image, scale its short side to `size` and cut out the centre.

    Returns:
        (size, size, 3), RGB.

    Raises:
        UsageError: the file is not an image that can be read.
    """
    try:
        with Image.open(path) as file:
            file.draft("RGB", (size, size))  # lets a JPEG be decoded at a fraction of its size; others ignore it
            return square(file, size)
    # Pillow answers damaged files with errors of many kinds, SyntaxError and struct.error among them.
    except Exception as error:
        raise UsageError(f"{path} is not an image that can be read ({error}); replace or remove it") from error


def square(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """A picture with its short side scaled to `size` and its centre cut out: (size, size, 3), RGB."""
    return np.array(_centre(_eight_bits(picture).convert("RGB"), size), dtype=np.uint8)


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale square images bilinearly, averaging over what a smaller image leaves out.

    Args:
        pixels: (N, H, W, C).
        size: the new height and width.

    Returns:
        (N, size, size, C); the array itself where nothing changes.
    """
    if pixels.shape[1:3] == (size, size):
        return pixels
    nchw = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(nchw, (size, size), mode="bilinear", antialias=True)
    result: NDArray[np.uint8] = np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())
    return result


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The picture, from 0..65535 to 0..255 if it has 16 bits: `convert` would clip it."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray(np.rint(np.asarray(picture).clip(0, 65535) / 257).astype(np.uint8))


def _centre(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    if (width, height) == (size, size):
        return picture
    short = min(width, height)
    scaled = (max(size, round(width * size / short)), max(size, round(height * size / short)))
    picture = picture.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return picture.crop((left, top, left + size, top + size))
