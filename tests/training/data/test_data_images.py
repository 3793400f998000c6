from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.training.data import Augmentation, FolderImages, Images, Normalisation
from prune_nas.training.data.augment import crop_and_flip, plan_epoch
from prune_nas.training.data.folder import open_folder

NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def some_images(count: int = 50, size: int = 8) -> Images:
    pixels = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return Images(pixels, torch.arange(count), NORMALISATION)


def epoch(images, seed=None, **options):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = list(images.batches(16, generator=generator, **options))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_and_flip_is_torchvisions_one_image_at_a_time(shape, padding):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, *shape), dtype=torch.uint8, generator=generator)
    corners = torch.randint(0, 2 * padding + 1, (2, 40), generator=generator)
    draws = torch.cat([corners, torch.randint(0, 2, (1, 40), generator=generator)])
    got = crop_and_flip(pixels.permute(0, 2, 3, 1), draws, padding).permute(0, 3, 1, 2)
    for image, result, (top, left, flip) in zip(pixels, got, draws.T.tolist(), strict=True):
        padded = functional.pad(image, [padding] * 4)
        wanted = functional.crop(padded, top, left, *shape)
        assert result.equal(functional.horizontal_flip(wanted) if flip else wanted)


@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 3), (6, 9, 5)])
def test_a_reflected_crop_is_torchvisions(height, width, padding):
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (40, 3, height, width), dtype=torch.uint8, generator=generator)
    corner = torch.randint(0, 2 * padding + 1, (2, 40), generator=generator)
    draws = torch.cat([corner, torch.randint(0, 2, (1, 40), generator=generator)])
    got = crop_and_flip(pixels.permute(0, 2, 3, 1), draws, padding, reflect=True).permute(0, 3, 1, 2)
    for image, result, (top, left, flip) in zip(pixels, got, draws.T.tolist(), strict=True):
        padded = functional.pad(image, [padding] * 4, padding_mode="reflect")
        wanted = functional.crop(padded, top, left, height, width)
        assert result.equal(functional.horizontal_flip(wanted) if flip else wanted)


def test_the_draws_cover_every_corner_and_both_sides():
    plan = plan_epoch(4000, torch.Generator().manual_seed(0), Augmentation(padding=2))
    assert sorted(plan[0].tolist()) == list(range(4000))
    assert {(t, x) for t, x in plan[1:3].T.tolist()} == {(t, x) for t in range(5) for x in range(5)}
    assert 0.45 < plan[3].float().mean() < 0.55
    assert not plan_epoch(4000, torch.Generator().manual_seed(0), Augmentation(flip=False))[3].any()


def test_an_augmentation_needs_a_generator():
    with pytest.raises(ValueError, match="generator"):
        some_images().batches(16, augmentation=Augmentation())


def test_in_order_and_normalised_without_a_generator():
    images = some_images()
    x, y = epoch(images)
    assert y.equal(images.labels)
    wanted = functional.normalize(images.pixels.float() / 255, NORMALISATION.mean, NORMALISATION.std)
    torch.testing.assert_close(x, wanted)


def test_batches_are_float32_channels_last():
    x, y = next(iter(some_images().batches(16)))
    assert x.dtype == torch.float32
    assert x.shape == (16, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.dtype == torch.int64


def test_padding_is_black_before_it_is_normalised():
    white = Images(torch.full((64, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(64).long(), NORMALISATION)
    x, _ = epoch(white, seed=0, augmentation=Augmentation(padding=4))
    black = torch.tensor([-2.0, -2.0, -2.0])
    lowest = x.amin(dim=(0, 2, 3))
    torch.testing.assert_close(lowest, black)


@pytest.mark.parametrize("augmentation", [None, Augmentation(padding=1)])
def test_an_epoch_is_its_seeds_and_holds_every_image_once(augmentation):
    images = some_images()
    x, y = epoch(images, seed=3, augmentation=augmentation)
    again, same = epoch(images, seed=3, augmentation=augmentation)
    other = epoch(images, seed=4, augmentation=augmentation)[1]
    assert x.equal(again)
    assert y.equal(same)
    assert not y.equal(other)
    assert sorted(y.tolist()) == list(range(50))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    epoch(some_images(), seed=0, augmentation=Augmentation())
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("count", "batches"), [(50, 3), (48, 3), (10, 1)])
def test_drop_last_leaves_out_the_rest_but_never_everything(count, batches):
    sizes = [len(y) for _, y in some_images(count).batches(16, drop_last=True)]
    assert sizes == [min(16, count)] * batches


def test_subset_keeps_order_and_normalisation():
    images = some_images().subset(torch.tensor([7, 3]))
    assert images.labels.tolist() == [7, 3]
    assert images.pixels.equal(some_images().pixels[[7, 3]])
    assert images.normalisation == NORMALISATION
    assert len(images) == 2


def test_files_give_the_same_batches_as_memory(make_folder, monkeypatch):
    root = make_folder(train={"a": 20, "b": 17}, test={"a": 1, "b": 1}, size=8)
    memory = open_folder(root, name="x").read("train", Size(8, 8))
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 0)
    files = open_folder(root, name="x").read("train", Size(8, 8))
    assert isinstance(files, FolderImages)
    assert isinstance(memory, Images)
    before = torch.get_rng_state()
    for seed, options in ((None, {}), (5, {"augmentation": Augmentation(padding=1), "drop_last": True})):
        for one, other in zip(epoch(memory, seed, **options), epoch(files, seed, **options), strict=True):
            assert one.equal(other)
    assert torch.get_rng_state().equal(before)
    assert files.to("cpu").subset(torch.tensor([36, 0])).labels.tolist() == [1, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_in_one_line(make_folder, monkeypatch, workers):
    root = make_folder(train={"a": 20, "b": 17}, test={"a": 1, "b": 1}, size=8)
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 0)
    files = dataclasses.replace(open_folder(root, name="x").read("train", Size(8, 8)), workers=workers)
    path = root / "train" / "b" / "004.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UsageError) as caught:
        epoch(files)
    assert str(caught.value).startswith(f"{path} is not an image that can be read (")
    assert str(caught.value).endswith("). Replace or remove it")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_prepares_the_same_images():
    images = some_images()
    here = epoch(images, seed=0, augmentation=Augmentation(padding=1))
    there = epoch(images.to("cuda"), seed=0, augmentation=Augmentation(padding=1), device="cuda")
    torch.testing.assert_close(here[0], there[0].cpu())
    assert np.array_equal(here[1], there[1].cpu())
