"""A network and a folder that nobody here chose: what is searched is what was named, and every text says so."""

import csv
import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import prune_nas as pn
from prune_nas.config import resolve
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.search import settling, setup
from prune_nas.search.progress import View
from prune_nas.search.rundir import opened
from prune_nas.training.probe import Probe
from tests.search.tiny import arguments

NET = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.two, self.head = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x)).relu()).relu().mean((2, 3)))
"""
MACS = 16 * 3 * 9 * 12 * 16 + 16 * 16 * 9 * 6 * 8 + 16 * 3  # of Mine at 24x32 with three classes
COLOURS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}


@pytest.fixture
def photos(tmp_path):
    """36 training and 18 test pictures of two sizes, in three classes that differ in colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 36), ("test", 18)):
        for label, colour in COLOURS.items():
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count // 3):
                height, width = (30, 50) if number % 2 else (40, 44)
                pixels = np.clip(rng.normal(colour, 25, (height, width, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def asked(photos, run, **changes):
    own = {"model": f"{photos / 'net.py'}:Mine", "dataset": f"folder:{photos / 'photos'}", "base_width": None,
           "image_size": "24x32", "train_size": None, "val_size": None, "trials": 0, "seeds": 1, "epochs": 3,
           "supernet_epochs": 3, "arms": "pruned,uniform,base"}  # fmt: skip
    return arguments(run, **{**own, **changes})


def test_a_size_that_cannot_be_known_is_asked_for_with_the_sizes_that_were_found(cli, photos):
    for command in ("search", "inspect"):
        code, _, err = cli(command, "-m", f"{photos / 'net.py'}:Mine", "-d", f"folder:{photos / 'photos'}")
        assert code == 2
        assert {"30x50 (18 of 36)", "40x44 (18 of 36)"} == set(re.findall(r"\d+x\d+ \(\d+ of \d+\)", err))
        assert "--image-size 32" in err
        assert "--image-size 64x48" in err
    code, _, err = cli("inspect", "-m", f"{photos / 'net.py'}:Mine")
    assert (code, "--image-size 64" in err) == (2, True)


def together(text):
    """The text without the breaks and borders that a terminal of 80 columns puts into it."""
    return re.sub(r"[\s│]+", "", text)


def test_every_text_of_a_run_names_network_width_size_and_images(cli, photos):
    run = photos / "run"
    code, out, err = cli(*asked(photos, run, figures=True))
    assert code == 0, err
    network = f"{photos / 'net.py'}:Mine, full width, 24x32, {MACS / 1e3:.0f}k macs"
    subject = f"{network}; folder:{photos / 'photos'}, 27 training, 9 validation, 18 test images, 3 classes"
    assert err.splitlines()[0] == subject
    assert together(subject) in together(out)
    recorded = json.loads((run / "run.json").read_text())["subject"]
    assert (recorded["macs"], recorded["image_size"], recorded["test"]) == (MACS, "24x32", 18)
    assert f"{MACS / 1e3:.0f}k macs" in (run / "report.html").read_text()
    drawn = (run / "figures" / "widths-1.svg").read_text()
    assert "24x32" in re.sub(r"<[^>]+>", "", drawn) or "24x32" in drawn
    assert together(network) in together(cli("report", run)[1])
    assert together(network) in together(cli("status", run)[1])


def test_only_built_in_networks_are_narrowed(cli, photos):
    code, _, err = cli(*asked(photos, photos / "run"), "--dry-run")
    assert code == 0
    assert "full width" in err
    code, _, err = cli(*arguments(photos / "run", base_width=None), "--dry-run")
    assert code == 0
    assert "vgg11, 0.25 of its width" in err


def test_a_network_is_fed_as_it_was_trained_by_every_file_that_tells_how(cli, photos):
    run = photos / "run"
    assert cli(*asked(photos, run))[0] == 0
    spec = json.loads((run / "best.json").read_text())
    fed = spec["preprocessing"]
    assert fed["size"] == [24, 32]
    assert fed["class_names"] == list(COLOURS)
    code, out, err = cli("export", run / "best.json", "--format", "python,onnx", "--out", photos / "out",
                         "-m", f"{photos / 'net.py'}:Mine")  # fmt: skip
    assert code == 0, err
    for step in fed["steps"]:
        assert step.lower() in " ".join((out + err).split()).lower()

    data = pn.load_data(f"folder:{photos / 'photos'}", image_size="24x32", train_size=1000)
    test = data.open_test()
    ((ours, _),) = test.batches(len(test))
    written = importlib.util.spec_from_file_location("exported", photos / "out" / "model.py")
    module = importlib.util.module_from_spec(written)
    written.loader.exec_module(module)
    files = sorted((photos / "photos" / "test").rglob("*.png"), key=lambda path: (path.parent.name, path.name))
    theirs = torch.cat([module.preprocess(path) for path in files])
    assert list(COLOURS) == module.CLASSES
    mean, std = (torch.tensor(fed[name])[:, None, None] for name in ("mean", "std"))
    made, known = ({tuple(one.flatten().tolist()) for one in (255 * (x * std + mean)).round()} for x in (theirs, ours))
    assert made == known  # to the pixel

    import onnxruntime

    session = onnxruntime.InferenceSession(photos / "out" / "model.onnx")
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["preprocessing"]) == fed
    logits = session.run(None, {session.get_inputs()[0].name: theirs.numpy()})[0]
    with torch.inference_mode():
        expected = pn.load_net(run / "best.json", model=f"{photos / 'net.py'}:Mine")(theirs)
    assert torch.from_numpy(logits) == pytest.approx(expected, abs=1e-4)


def test_guessing_is_the_share_of_the_largest_class(cli, photos):
    for path in sorted((photos / "photos" / "train" / "red").glob("*.png"))[4:]:
        path.unlink()
    for path in sorted((photos / "photos" / "train" / "green").glob("*.png"))[6:]:
        path.unlink()
    run = photos / "run"
    assert cli(*asked(photos, run, epochs=1, supernet_epochs=1))[0] == 0
    record = json.loads((run / "run.json").read_text())
    with (run / "finals.csv").open() as file:
        assert list(csv.DictReader(file))
    assert record["data"]["guessing"] == pytest.approx(12 / 22, abs=0.1)


def settled(photos, tmp_path, monkeypatch, view=None, sgd=1.1, **changes):
    """The configuration of a run after it was settled; `probe` answers AdamW without training."""
    calls = []

    def probe(build, setting, recipe, *, seed, steps):
        calls.append(steps)
        return Probe("adamw", {"sgd": sgd, "adamw": 0.9}, steps)

    monkeypatch.setattr(settling, "probe", probe)
    config = resolve({"model": f"{photos / 'net.py'}:Mine", "dataset": f"folder:{photos / 'photos'}",
                      "image_size": "24x32", "preset": "smoke", "precision": "fp32", **changes})  # fmt: skip
    device, data, traced = setup.prepare(config)
    with opened(tmp_path / "run", config) as run:
        settling.ready(run, traced, data, device, view or View(quiet=True))
        return run.config, json.loads((tmp_path / "run" / "run.json").read_text()), calls


def test_a_small_folder_gets_the_steps_of_its_preset(photos, tmp_path, monkeypatch):
    config, record, _ = settled(photos, tmp_path, monkeypatch)  # 27 images are one batch of 32: one step an epoch
    assert (config.epochs, config.supernet_epochs, config.trial_epochs) == (240, 200, 60)
    assert record["settled"]["epochs"] == 240


def test_epochs_that_were_asked_for_are_kept_and_called_too_short(photos, tmp_path, monkeypatch, capsys):
    config, _, _ = settled(photos, tmp_path, monkeypatch, View(quiet=False), epochs=8)
    assert config.epochs == 8
    assert "--epochs 8 is 8 steps of 32 images. Most networks need 200 steps or more" in capsys.readouterr().err


def test_the_optimiser_is_tried_once_a_run(photos, tmp_path, monkeypatch):
    config, record, calls = settled(photos, tmp_path, monkeypatch)
    assert calls == [60]
    assert (config.optimizer, record["settled"]["optimizer"]) == ("adamw", "adamw")
    assert record["probe"]["losses"] == {"sgd": 1.1, "adamw": 0.9}
    assert record["probe"]["train_macs"] == 2 * 60 * 27 * 3 * MACS
    config, _, calls = settled(photos, tmp_path, monkeypatch)
    assert (config.optimizer, calls) == ("adamw", [])


def test_an_optimiser_that_diverges_is_written_down_as_that(photos, tmp_path, monkeypatch, capsys):
    config, record, _ = settled(photos, tmp_path, monkeypatch, View(quiet=False), sgd=float("inf"))
    assert config.optimizer == "adamw"
    assert record["probe"]["losses"] == {"sgd": None, "adamw": 0.9}
    assert "sgd diverged, adamw 0.900" in capsys.readouterr().err


def test_a_learning_rate_goes_with_a_named_optimiser():
    asked = {"model": "vgg11", "dataset": "digits", "lr": 0.05}
    assert resolve(asked).optimizer == "sgd"
    with pytest.raises(UsageError, match="--lr belongs to one optimiser: name it with --optimizer sgd"):
        resolve({**asked, "optimizer": "auto"})


def test_an_optimiser_that_was_asked_for_is_not_tried(photos, tmp_path, monkeypatch):
    config, record, calls = settled(photos, tmp_path, monkeypatch, optimizer="sgd")
    assert (config.optimizer, calls, record.get("probe")) == ("sgd", [], None)


def test_a_damaged_choice_is_said(photos, tmp_path, monkeypatch):
    settled(photos, tmp_path, monkeypatch)
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    record["settled"]["optimizer"] = "lion"
    path.write_text(json.dumps(record))
    with pytest.raises(PruneNasError, match=r"run\.json is damaged: its optimizer is 'lion'"):
        settled(photos, tmp_path, monkeypatch)


def test_a_network_without_norms_is_trained_without_a_penalty(photos, tmp_path, monkeypatch):
    (photos / "net.py").write_text(NET.replace("nn.BatchNorm2d(16)", "nn.Identity()"))
    config, _, _ = settled(photos, tmp_path, monkeypatch)
    assert config.penalty == "none"
