"""Files and arrays of pixels -> RGB images of one size, one byte per channel.

For a square size the result is that of torchvision's `Resize(size)` and `CenterCrop(size)` on a Pillow image: first the
picture is scaled, then it is cut. `nets.export` repeats these steps for whoever feeds an exported file.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError


def decode(path: str, size: Size) -> NDArray[np.uint8]:
    """Read an image, scale it until it covers `size`, and cut out the centre.

    Returns:
        (height, width, 3), RGB.

    Raises:
        UsageError: the file is not an image that can be read.
    """
    try:
        with Image.open(path) as file:
            file.draft("RGB", (size.width, size.height))  # lets a JPEG be decoded at a fraction of its size
            return fitted(file, size)
    # Pillow answers damaged files with errors of many kinds, SyntaxError and struct.error among them.
    except Exception as error:
        raise UsageError(f"{path} is not an image that can be read ({error}). Replace or remove it") from error


def fitted(picture: Image.Image, size: Size) -> NDArray[np.uint8]:
    """A picture, scaled until it covers `size`, and its centre cut out: (height, width, 3), RGB."""
    return np.array(_centre(_eight_bits(picture).convert("RGB"), size), dtype=np.uint8)


def resize(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Scale images bilinearly until they cover a size, averaging over what a smaller image leaves out; cut the centre.

    Args:
        pixels: (N, H, W, C).
        size: the new height and width.

    Returns:
        (N, height, width, C); the array itself where nothing changes.
    """
    if pixels.shape[1:3] == size:
        return pixels
    covering, top, left = _covering(Size(*pixels.shape[1:3]), size)
    nchw = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(nchw, tuple(covering), mode="bilinear", antialias=True)
    cut = scaled[:, :, top : top + size.height, left : left + size.width]
    result: NDArray[np.uint8] = np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())
    return result


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The picture, from 0..65535 to 0..255 if it has 16 bits: `convert` would clip it."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray(np.rint(np.asarray(picture).clip(0, 65535) / 257).astype(np.uint8))


def _centre(picture: Image.Image, size: Size) -> Image.Image:
    own = Size(picture.height, picture.width)
    if own == size:
        return picture
    covering, top, left = _covering(own, size)
    picture = picture.resize((covering.width, covering.height), Image.Resampling.BILINEAR)
    return picture.crop((left, top, left + size.width, top + size.height))


def _covering(own: Size, size: Size) -> tuple[Size, int, int]:
    """The size to which a picture is scaled so that it covers another one, and where that is cut from it: top, left."""
    (height, width), factor = own, max(size.height / own.height, size.width / own.width)
    # As torchvision's Resize: the side that decides is exact, the other is rounded down.
    tall = size.height if factor == size.height / height else max(int(height * size.width / width), size.height)
    wide = size.width if factor == size.width / width else max(int(width * size.height / height), size.width)
    # As its CenterCrop.
    return Size(tall, wide), round((tall - size.height) / 2), round((wide - size.width) / 2)
