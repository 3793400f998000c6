from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from prune_nas.errors import MissingError, UsageError
from prune_nas.training.data import Images, cifar, load
from prune_nas.training.data.unpickle import UnsafePickleError, read_pickle

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (240, 3072), dtype=np.uint8)
LABELS = np.arange(240) % 10


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def published(monkeypatch) -> dict[str, bytes]:
    """Six small batches, with the published checksums changed to theirs."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {
        name: pickle.dumps({"data": PIXELS[i::6], "labels": LABELS[i::6].tolist()}, protocol=2)
        for i, name in enumerate(names)
    }
    train = {name: md5(files[name]) for name in names[:5]}
    expect(monkeypatch, files={"train": train, "test": {"test_batch": md5(files["test_batch"])}})
    return files


def expect(monkeypatch, **changes) -> None:
    """Change what is known of CIFAR-10 as it was published."""
    monkeypatch.setitem(cifar.KINDS, "cifar10", dataclasses.replace(cifar.KINDS["cifar10"], **changes))


@pytest.mark.parametrize(("name", "torchvisions"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_what_was_published_is_what_torchvision_says(name, torchvisions):
    kind = cifar.KINDS[name]
    assert (kind.folder, kind.archive, kind.archive_md5, kind.urls[0]) == (
        torchvisions.base_folder, torchvisions.filename, torchvisions.tgz_md5, torchvisions.url,
    )  # fmt: skip
    assert kind.files == {"train": dict(torchvisions.train_list), "test": dict(torchvisions.test_list)}


@pytest.fixture
def batches(published, tmp_path) -> Path:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in published.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def archive(published, tmp_path, monkeypatch) -> Path:
    path = tmp_path / "data" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in published.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    expect(monkeypatch, archive_md5=md5(path.read_bytes()))
    return path


def check(data) -> None:
    assert isinstance(data.train, Images)
    assert (len(data.train), len(data.val)) == (180, 20)
    test = data.open_test()
    assert test.pixels.numpy().reshape(-1, 3072).tolist() == PIXELS[5::6].tolist()
    assert test.labels.tolist() == LABELS[5::6].tolist()
    wanted = {(row.tobytes(), int(label)) for row, label in zip(PIXELS, LABELS, strict=True)}
    for part in (data.train, data.val):
        rows = part.pixels.contiguous().numpy().reshape(-1, 3072)
        assert {(row.tobytes(), int(label)) for row, label in zip(rows, part.labels, strict=True)} <= wanted
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.classes[0] == "airplane"


def test_extracted_batches(batches):
    check(load("cifar10", data_dir=batches.parent, download=False))


def test_archive(archive):
    check(load("cifar10", data_dir=archive.parent, download=False))


def test_the_folder_may_come_from_the_environment(batches, monkeypatch):
    monkeypatch.setenv("PRUNE_NAS_DATA", str(batches.parent))
    check(load("cifar10", download=False))


def test_the_cache_serves_the_second_load(archive, monkeypatch):
    first = load("cifar10", data_dir=archive.parent)
    monkeypatch.setattr("prune_nas.training.data.cifar.md5_of", None)
    assert load("cifar10", data_dir=archive.parent).fingerprint == first.fingerprint


def test_a_download_is_kept_in_the_data_folder(archive, tmp_path, monkeypatch):
    def copy(urls, target, checksum, *, progress):
        assert urls[0].endswith("cifar-10-python.tar.gz")
        assert checksum == md5(archive.read_bytes())
        target.write_bytes(archive.read_bytes())

    monkeypatch.setattr(cifar, "fetch", copy)
    check(load("cifar10", data_dir=tmp_path / "new"))
    assert (tmp_path / "new" / archive.name).exists()


def test_a_folder_that_cannot_be_written_is_only_read(batches, cache):
    before = sorted(batches.parent.rglob("*"))
    batches.parent.chmod(0o555)
    try:
        check(load("cifar10", data_dir=batches.parent))
    finally:
        batches.parent.chmod(0o755)
    assert sorted(batches.parent.rglob("*")) == before
    assert len(list((cache / "decoded").iterdir())) == 2


def test_a_damaged_batch_is_named_with_the_repair(batches):
    path = batches / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MissingError, match=r"data_batch_3 is damaged: its md5 .* Remove .* downloaded anew"):
        load("cifar10", data_dir=batches.parent)


def test_a_missing_batch_is_named(batches):
    (batches / "data_batch_2").unlink()
    with pytest.raises(MissingError, match="data_batch_2 is missing"):
        load("cifar10", data_dir=batches.parent)


def test_the_test_batch_is_not_read_before_it_is_asked_for(batches):
    (batches / "test_batch").write_bytes(b"")
    data = load("cifar10", data_dir=batches.parent)
    with pytest.raises(MissingError, match="test_batch is damaged"):
        data.open_test()


def test_a_damaged_archive_is_named(archive):
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(MissingError, match=r"python.tar.gz is damaged: its md5"):
        load("cifar10", data_dir=archive.parent)


@pytest.mark.parametrize("labels", [[0] * 39, [10] * 40, [-1] * 40])
def test_labels_that_do_not_fit_the_images(batches, monkeypatch, labels):
    content = pickle.dumps({"data": PIXELS[:40], "labels": labels}, protocol=2)
    (batches / "data_batch_1").write_bytes(content)
    files = cifar.KINDS["cifar10"].files
    expect(monkeypatch, files={**files, "train": {"data_batch_1": md5(content)}})
    with pytest.raises(MissingError, match="one label from 0 to 9"):
        load("cifar10", data_dir=batches.parent)


@pytest.mark.parametrize("options", [{"download": False}, {}])
def test_without_data_or_network_both_ways_are_named(tmp_path, options):
    with pytest.raises(MissingError) as caught:
        load("cifar10", data_dir=tmp_path / "none", **options)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    for part in (str(tmp_path / "none"), "cifar-10-python.tar.gz", "cifar10/{train,test}/<class>/*.png", "--data-dir"):
        assert part in message
    assert ("zenodo" in message) == (not options)


def test_class_folders(make_folder, tmp_path):
    classes = dict.fromkeys(cifar._CLASSES["cifar10"].split(), 4)
    make_folder(tmp_path / "data" / "cifar10", train=classes, test=classes)
    data = load("cifar10", data_dir=tmp_path / "data")
    assert (data.name, len(data.train), len(data.val), len(data.open_test())) == ("cifar10", 30, 10, 40)
    assert data.mean == (0.4914, 0.4822, 0.4465)


def test_class_folders_of_another_set(make_folder, tmp_path):
    make_folder(tmp_path / "cifar10", train={"a": 2, "b": 2}, test={"a": 1, "b": 1})
    with pytest.raises(UsageError, match="must hold 10 class folders per split"):
        load("cifar10", data_dir=tmp_path)


def test_the_class_names_are_all_there_and_in_order():
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        classes = cifar._CLASSES[name].split()
        assert len(classes) == count
        assert classes == sorted(classes)


def test_another_image_size(batches):
    data = load("cifar10", data_dir=batches.parent, image_size=16)
    assert data.train.pixels.shape == (180, 3, 16, 16)
    assert data.augmentation.padding == 2


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "value",
    [Malicious(os.system, "touch owned"), Malicious(eval, "1"), Malicious(getattr, "text", "upper"), Path(), np.load],
)
@pytest.mark.parametrize("protocol", range(6))
def test_the_reader_refuses_everything_but_arrays(value, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafePickleError, match="not allowed"):
        read_pickle(pickle.dumps({"data": value}, protocol=protocol))
    assert not (tmp_path / "owned").exists()


def test_the_reader_refuses_codecs_that_are_imports():
    with pytest.raises(UnsafePickleError, match="codec"):
        read_pickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2])[:-1]])
def test_a_damaged_pickle_is_an_error_of_ours(content):
    with pytest.raises(UnsafePickleError, match="damaged"):
        read_pickle(content)


def test_a_pickle_of_python_2_as_cifar_is_published():
    row = bytes(range(256)) * 12
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T\x00\x0c\x00\x00" + row + b"tbU\x06labels]K\x03au."
    )
    batch = read_pickle(content)
    assert batch["labels"] == [3]
    assert batch["data"].tobytes() == row
