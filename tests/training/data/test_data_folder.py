from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prune_nas.design.preprocessing import Preprocessing
from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError
from prune_nas.nets.export.python import _preprocess
from prune_nas.training.data import FolderImages, Images, load
from prune_nas.training.data.cache import fingerprint
from prune_nas.training.data.decode import decode, fitted, resize

TWO = {"cat": 20, "dog": 10}


def decoded(cache_home: Path) -> list[Path]:
    return sorted((cache_home / "decoded").glob("*.safetensors"))


def test_validation_is_cut_from_train_when_there_is_only_a_test_set(make_folder):
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.open_test())) == (27, 3, 30)
    assert data.val.labels.bincount().tolist() == [2, 1]
    assert data.input_shape == (3, 32, 32)
    assert "tensor" not in repr(data)


def test_val_alone_is_the_test_set_and_that_is_said(make_folder):
    data = load(f"folder:{make_folder(train=TWO, val={'cat': 4, 'dog': 3})}")
    assert (len(data.train), len(data.val), len(data.open_test()), data.tests) == (27, 3, 7, 7)
    assert "the images of val/ serve as the test set" in data.notes[0]


def test_three_folders_are_three_splits(make_folder):
    root = make_folder(train=TWO, val={"cat": 4, "dog": 3}, test={"cat": 1, "dog": 1})
    data = load(f"folder:{root}")
    assert (len(data.train), len(data.val), len(data.open_test())) == (30, 7, 2)
    fewer = load(f"folder:{root}", train_size=9, val_size=4)
    assert fewer.train.labels.bincount().tolist() == [6, 3]
    assert len(fewer.val) == 4


def test_mean_and_std_are_those_of_the_training_images(make_folder):
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}")
    assert isinstance(data.train, Images)
    values = data.train.pixels.double() / 255
    np.testing.assert_allclose(data.mean, values.mean(dim=(0, 2, 3)))
    np.testing.assert_allclose(data.std, values.std(dim=(0, 2, 3), correction=0))
    x, _ = next(data.train.batches(27))
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.open_test().normalisation, data.train.normalisation)


def test_black_images_stay_finite(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                Image.new("L", (8, 8)).save(tmp_path / split / name / f"{index}.png")
    x, _ = next(load(f"folder:{tmp_path}", image_size=8, val_size=2).train.batches(4))
    assert x.isfinite().all()


def test_the_test_images_are_not_read_before_they_are_asked_for(make_folder):
    root = make_folder(train=TWO, test=TWO)
    broken = root / "test" / "cat" / "000.png"
    broken.write_bytes(b"not an image")
    data = load(f"folder:{root}")
    with pytest.raises(UsageError, match="not an image") as caught:
        data.open_test()
    assert str(broken) in str(caught.value)


def test_splits_survive_a_trip_to_another_process(make_folder):
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}")
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert copy.open_test().pixels.equal(data.open_test().pixels)


def test_the_fingerprint_follows_pixels_and_the_split_but_not_the_place(make_folder, tmp_path):
    one, two = (make_folder(tmp_path / name, train=TWO, test=TWO) for name in ("one", "two"))
    first, second = load(f"folder:{one}"), load(f"folder:{two}")
    assert first.fingerprint == second.fingerprint
    assert len(bytes.fromhex(first.fingerprint)) == 8
    assert load(f"folder:{one}", seed=1).fingerprint != first.fingerprint
    Image.new("RGB", (32, 32)).save(two / "train" / "cat" / "000.png")
    assert load(f"folder:{two}").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "there is no folder"),
        ({"test": TWO}, "must hold train/"),
        ({"train": TWO}, "must hold test/ or val/"),
        ({"train": {"cat": 3}, "test": {"cat": 3}}, "at least two class folders. Got 1"),
        ({"train": TWO, "test": {"cat": 2}}, r"test/dog is missing"),
        ({"train": TWO, "test": {**TWO, "emu": 1}}, r"test/emu has no counterpart"),
        ({"train": {"cat": 2, "dog": 0}, "test": TWO}, r"train/dog holds no image"),
    ],
)
def test_folders_that_are_laid_out_wrongly(make_folder, splits, message):
    with pytest.raises(UsageError, match=message):
        load(f"folder:{make_folder(**splits)}")


def test_a_truncated_image_is_named(make_folder):
    root = make_folder(train=TWO, test=TWO)
    path = root / "train" / "dog" / "004.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError) as caught:
        load(f"folder:{root}")
    assert str(path) in str(caught.value)


def test_other_files_and_hidden_folders_are_passed_over(make_folder):
    root = make_folder(train=TWO, test=TWO)
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "notes.txt").write_text("x")
    (root / "train" / "cat" / "._000.png").write_bytes(b"x")
    (root / "train" / "cat" / "readme.txt").write_text("x")
    assert len(load(f"folder:{root}").train) == 27


def test_decode_scales_the_short_side_and_cuts_the_centre(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(str(tmp_path / "wide.png"), Size(20, 20)) == 200).all()
    small = decode(str(tmp_path / "wide.png"), Size(10, 10))
    assert small.shape == (10, 10, 3)
    assert (small[:, 2:-2] == 200).all()
    Image.new("L", (5, 9), 77).save(tmp_path / "grey.jpg")
    assert np.abs(decode(str(tmp_path / "grey.jpg"), Size(8, 8)).astype(int) - 77).max() <= 2


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"grey.{kind}"
    Image.fromarray(values).save(path)
    pixels = decode(str(path), Size(256, 256))
    assert (pixels == np.rint(values / 257).astype(np.uint8)[:, :, None]).all()


@pytest.mark.parametrize(("height", "width"), [(20, 60), (61, 33), (50, 50), (17, 90)])
@pytest.mark.parametrize("side", [16, 24])
def test_a_square_is_what_torchvision_makes_of_a_picture(tmp_path, height, width, side):
    from torchvision.transforms import v2

    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))
    picture.save(tmp_path / "noise.png")
    steps = v2.Compose([v2.Resize(side, v2.InterpolationMode.BILINEAR), v2.CenterCrop(side)])
    assert (decode(str(tmp_path / "noise.png"), Size(side, side)) == np.asarray(steps(picture))).all()


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_an_exported_file_reads_sixteen_bits_as_training_does(tmp_path, kind):
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / f"grey.{kind}")
    fed = Preprocessing(Size(32, 48), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), ("a", "b"))
    module = {"torch": torch}
    exec(_preprocess(fed), module)  # noqa: S102 - it is what an exported file would run
    ours = decode(str(tmp_path / f"grey.{kind}"), Size(32, 48))
    theirs = module["preprocess"](tmp_path / f"grey.{kind}")
    assert torch.equal((255 * theirs[0]).round().permute(1, 2, 0).to(torch.uint8), torch.from_numpy(ours))


@pytest.mark.parametrize("size", [Size(24, 32), Size(32, 24), Size(48, 16)])
def test_arrays_of_pixels_are_brought_to_a_size_as_files_are(size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    made = resize(pixels, size)
    assert made.shape == (3, *size, 3)
    for one, known in zip(made, pixels, strict=True):
        assert np.abs(one.astype(int) - fitted(Image.fromarray(known), size)).max() <= 1


def test_an_image_need_not_be_square(make_folder, tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(str(tmp_path / "wide.png"), Size(20, 60)) == 200).all()
    assert decode(str(tmp_path / "wide.png"), Size(64, 48)).shape == (64, 48, 3)
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}", image_size="16x24")
    assert data.input_shape == (3, 16, 24)
    x, _ = next(data.train.batches(5, generator=torch.Generator(), augmentation=data.augmentation))
    assert x.shape == (5, 3, 16, 24)


def test_pictures_of_several_sizes_need_a_size(make_folder):
    root = make_folder(train=TWO, test=TWO)
    assert load(f"folder:{root}").input_shape == (3, 32, 32)
    Image.new("RGB", (40, 64)).save(root / "train" / "cat" / "000.png")
    with pytest.raises(UsageError, match=r"32x32 \(29 of 30\), 64x40 \(1 of 30\)"):
        load(f"folder:{root}")


def test_the_second_load_reads_the_cache(make_folder, cache, monkeypatch):
    root = make_folder(train=TWO, test=TWO)
    first = load(f"folder:{root}")
    assert len(decoded(cache)) == 1
    monkeypatch.setattr("prune_nas.training.data.folder.decode", None)
    assert load(f"folder:{root}").fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_cache_is_rebuilt(make_folder, cache, damage):
    root = make_folder(train=TWO, test=TWO)
    first = load(f"folder:{root}")
    (path,) = decoded(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert load(f"folder:{root}").fingerprint == first.fingerprint
    assert len(path.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_done_without(make_folder, cache):
    cache.write_text("a file where the folder should be")
    assert len(load(f"folder:{make_folder(train=TWO, test=TWO)}").train) == 27


def test_the_cache_fingerprint_follows_size_and_time(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"a")
    first = fingerprint([file])
    file.write_bytes(b"ab")
    assert fingerprint([file]) != first


def test_a_set_too_large_for_memory_stays_on_the_disk(make_folder, monkeypatch):
    root = make_folder(train=TWO, test=TWO)
    in_memory = load(f"folder:{root}")
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 0)
    data = load(f"folder:{root}")
    assert isinstance(data.train, FolderImages)
    assert data.mean == in_memory.mean
    assert data.val.labels.equal(in_memory.val.labels)
    assert data.fingerprint != in_memory.fingerprint


def test_a_set_on_the_disk_may_be_moved(make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 0)
    root = make_folder(train=TWO, val=TWO, test=TWO)
    first = load(f"folder:{root}").fingerprint
    moved = root.rename(tmp_path / "moved")
    assert load(f"folder:{moved}").fingerprint == first
    monkeypatch.chdir(tmp_path)
    assert load("folder:moved").fingerprint == first
    (moved / "train" / "cat" / "000.png").rename(moved / "train" / "cat" / "zzz.png")
    assert load(f"folder:{moved}").fingerprint != first


def test_a_large_folder_is_decoded_once_when_asked(make_folder, cache, monkeypatch):
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 100)
    root = make_folder(train=TWO, test=TWO)
    each = load(f"folder:{root}", image_size=16)
    once = load(f"folder:{root}", image_size=16, cache_images=True)
    assert once.fingerprint == each.fingerprint
    assert len(once.open_test()) == 30

    def forbidden(*args, **kwargs):
        raise AssertionError("decoded again")

    def batches(data):
        return list(data.train.batches(5, generator=torch.Generator().manual_seed(3), augmentation=data.augmentation))

    before = batches(each)
    monkeypatch.setattr("prune_nas.training.data.images.decode", forbidden)
    monkeypatch.setattr("prune_nas.training.data.cache.decode", forbidden)
    again = load(f"folder:{root}", image_size=16, cache_images=True)
    for (x, y), (x1, y1), (x2, y2) in zip(before, batches(once), batches(again), strict=True):
        assert torch.equal(x, x1)
        assert torch.equal(x, x2)
        assert torch.equal(y, y1)
        assert torch.equal(y, y2)
    assert len(again.open_test()) == 30


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", bytes(3000)])
def test_a_damaged_file_of_decoded_images_is_made_anew(make_folder, cache, monkeypatch, damage):
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 100)
    root = make_folder(train=TWO, test=TWO)
    first = load(f"folder:{root}", image_size=16, cache_images=True)
    (kept,) = (cache / "decoded").glob("*.npy")
    size = kept.stat().st_size
    kept.unlink()  # the first set still maps it
    kept.write_bytes(damage)
    second = load(f"folder:{root}", image_size=16, cache_images=True)
    assert kept.stat().st_size == size
    assert torch.equal(next(first.train.batches(9))[0], next(second.train.batches(9))[0])
    assert [path.name for path in (cache / "decoded").glob(".*")] == []


def test_the_shares_of_several_processes_are_the_whole_batch(make_folder, monkeypatch):
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 100)
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}", image_size=16)

    def batches(share):
        generator = torch.Generator().manual_seed(3)
        return data.train.batches(5, generator=generator, augmentation=data.augmentation, share=share)

    for (x, y), (x0, y0), (x1, y1) in zip(batches((0, 1)), batches((0, 2)), batches((1, 2)), strict=True):
        assert torch.equal(x[0::2], x0)
        assert torch.equal(x[1::2], x1)
        assert torch.equal(y[0::2], y0)
        assert torch.equal(y[1::2], y1)


def test_a_process_may_have_no_image_of_the_last_batch(make_folder, monkeypatch):
    monkeypatch.setattr("prune_nas.training.data.folder.MEMORY_LIMIT", 100)
    data = load(f"folder:{make_folder(train=TWO, test=TWO)}", image_size=16)
    size = len(data.train) - 1  # one image is left for the last batch
    *_, (x, y) = data.train.batches(size, share=(1, 2))
    assert x.shape == (0, 3, 16, 16)
    assert y.shape == (0,)
