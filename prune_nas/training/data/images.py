"""Labelled images as the training loop meets them: batches of normalised floats on the device."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self, TypeAlias, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.training.data.augment import UNIT, Augmentation, Normalisation, crop_and_flip, plan_epoch
from prune_nas.training.data.decode import decode

Batches: TypeAlias = Iterator[tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True, eq=False)
class Images:
    """A set that lies in memory, on one device, one byte a channel."""

    pixels: Tensor = field(repr=False)
    """uint8 (N, C, H, W); best in channels_last memory format, the order in which batches are gathered."""
    labels: Tensor = field(repr=False)
    """int64 (N,)."""
    normalisation: Normalisation = UNIT

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Self:
        """The same set on a device; nothing is copied if it is there already."""
        pixels = self.pixels.to(device, memory_format=torch.channels_last)
        return dataclasses.replace(self, pixels=pixels, labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> Self:
        """The images at int64 `indices`, in their order."""
        indices = indices.to(self.labels.device)
        return dataclasses.replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> Batches:
        """One epoch; all its random numbers are drawn by this call.

        Args:
            batch_size: images a batch.
            device: where the batches are to lie; call `to` once before many epochs on another device.
            generator: a generator on the CPU that shuffles and augments; None for the images in order.
            augmentation: crops and flips; needs a generator.
            drop_last: leave out a last batch that is not full, unless it is the only one.
            share: (i, n) for the images i, i + n, i + 2n and so on of each batch, as one of n processes takes them.

        Returns:
            An iterator over images, float32 (B, C, H, W) in channels_last memory format, and labels, int64 (B,).

        Raises:
            ValueError: an augmentation without a generator.
        """
        plan = plan_epoch(len(self), generator, augmentation)
        return self.to(device)._gather(_pieces(plan.to(device), batch_size, drop_last, share), augmentation)

    def _gather(self, pieces: Iterator[Tensor], augmentation: Augmentation | None) -> Batches:
        pixels = self.pixels.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C): a view if the format is channels_last
        finish = _Finish(self.normalisation, augmentation, pixels.shape[1], pixels.shape[2], pixels.device)
        for draws in pieces:
            yield finish(pixels.index_select(0, draws[0]), draws[1:]), self.labels.index_select(0, draws[0])


@final
@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded images in a file that is mapped into memory: the system reads what a batch needs."""

    pixels: Tensor
    """uint8 (M, H, W, C)."""
    rows: Tensor
    """int64 (N,): where each image of the set is among them."""

    def subset(self, indices: Tensor) -> Self:
        """Those of some images."""
        return dataclasses.replace(self, rows=self.rows[indices])

    def take(self, indices: Tensor) -> Tensor:
        """uint8 (B, H, W, C)."""
        return self.pixels[self.rows[indices]]


@final
@dataclass(frozen=True, eq=False)
class FolderImages:
    """A set too large for memory: files that worker processes decode again in every epoch."""

    root: str
    """The set's folder: where it lies does not count for the fingerprint, places within it do."""
    paths: tuple[str, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    """int64 (N,), on the CPU."""
    size: Size
    normalisation: Normalisation = UNIT
    decoded: Decoded | None = field(default=None, repr=False)
    """The pixels, where they were asked to be decoded once: then nothing is decoded in an epoch."""
    workers: int = min(8, os.cpu_count() or 1)

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> Self:
        """The set itself: its batches go to the device one by one."""
        del device
        return self

    def subset(self, indices: Tensor) -> Self:
        """The images at int64 `indices`, in their order."""
        indices = indices.to(self.labels.device)
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in indices.tolist()),
            labels=self.labels[indices],
            decoded=None if self.decoded is None else self.decoded.subset(indices),
        )

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> Batches:
        """As `Images.batches`, image for image and draw for draw.

        Raises:
            ValueError: an augmentation without a generator.
            UsageError: while iterating, if a file is not an image that can be read.
        """
        plan = plan_epoch(len(self), generator, augmentation)
        pieces = list(_pieces(plan, batch_size, drop_last, share))
        return self._read(pieces, torch.device(device), augmentation)

    def _read(self, pieces: Sequence[Tensor], device: torch.device, augmentation: Augmentation | None) -> Batches:
        finish = _Finish(self.normalisation, augmentation, *self.size, device)
        if self.decoded is not None:
            batches: Iterable[Tensor | UsageError] = (self.decoded.take(piece[0]) for piece in pieces)
        else:
            batches = self._decode(pieces)
        labels = self.labels.to(device)
        for pixels, piece in zip(batches, pieces, strict=True):
            if isinstance(pixels, UsageError):
                raise pixels
            draws = piece.to(device)
            yield finish(pixels.to(device), draws[1:]), labels.index_select(0, draws[0])

    def _decode(self, pieces: Sequence[Tensor]) -> Iterable[Tensor | UsageError]:
        return DataLoader(
            _Decoding(self.paths, self.size),
            batch_sampler=[piece[0].tolist() for piece in pieces],
            num_workers=self.workers,
            collate_fn=partial(_together, size=self.size),
            generator=torch.Generator(),  # its own: a loader without one draws from the global generator
        )


ImageSet: TypeAlias = Images | FolderImages


@final
class _Decoding(Dataset[Tensor | UsageError]):
    """uint8 (height, width, 3) for each path, or what is wrong with it.

    An error raised in a worker would come back with the worker's traceback in its message.
    """

    def __init__(self, paths: Sequence[str], size: Size) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | UsageError:
        try:
            return torch.from_numpy(decode(self.paths[index], self.size))
        except UsageError as error:
            return error


def _together(decoded: list[Tensor | UsageError], size: Size) -> Tensor | UsageError:
    """A batch, or the first error in it; a process of a team may have no image of a small one."""
    if not decoded:
        return torch.empty(0, *size, 3, dtype=torch.uint8)
    for one in decoded:
        if isinstance(one, UsageError):
            return one
    batch: Tensor = default_collate(decoded)
    return batch


@final
class _Finish:
    """uint8 (B, H, W, C) and draws (3, B), or (0, B) without an augmentation -> normalised (B, C, H, W)."""

    def __init__(
        self,
        normalisation: Normalisation,
        augmentation: Augmentation | None,
        height: int,
        width: int,
        device: torch.device,
    ) -> None:
        self.augmentation = augmentation
        self.bias, self.scale = normalisation.affine(height, width, device)

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        if self.augmentation is not None:
            own = self.augmentation
            pixels = crop_and_flip(pixels, draws, own.padding, reflect=own.reflect)
        flat = pixels.flatten(1).float()
        return torch.addcmul(self.bias, flat, self.scale).view(pixels.shape).permute(0, 3, 1, 2)


def _pieces(plan: Tensor, batch_size: int, drop_last: bool, share: tuple[int, int]) -> Iterator[Tensor]:
    """The columns of `plan`, `batch_size` at a time, and of those every n-th where another n - 1 take the rest."""
    count = plan.shape[1]
    end = count - count % batch_size if drop_last and count >= batch_size else count
    first, every = share
    return (plan[:, start : start + batch_size][:, first::every] for start in range(0, end, batch_size))
