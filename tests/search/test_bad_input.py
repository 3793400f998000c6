import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import prune_nas as pn
from prune_nas.design.records import TrialRow, read_table
from prune_nas.training import loop
from tests.search.tiny import SETTINGS, arguments


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"model": "vg16"}, 2, "Did you mean vgg16"),
        ({"dataset": "digit"}, 2, "Did you mean digits"),
        ({"budget": "macs=0"}, 2, "above 0"),
        ({"budget": "macs=-0.5"}, 2, "above 0"),
        ({"budget": "macs"}, 2, "cannot read budget"),
        ({"budget": "macs=0.0001"}, 4, "the smallest vgg11 possible"),
        ({"preset": "tiny"}, 2, "there is no preset"),
        ({"recipe": "slow"}, 2, "there is no recipe"),
        ({"penalty": "l2"}, 2, "there is no penalty"),
        ({"arms": "found,unifrom"}, 2, "Did you mean uniform"),
        ({"schedules": "scratch-c"}, 2, "scratch-e"),
        ({"sampler": "grid"}, 2, "--sampler"),
        ({"seeds": 0}, 2, "--seeds"),
        ({"trials": -1}, 2, "--trials"),
        ({"seed": 99999999999999}, 2, "--seed"),
        ({"no_such_flag": 1}, 2, "no-such-flag"),
        ({"epochs": -1}, 2, "--epochs"),
        ({"base-width": 0}, 2, "--base-width"),
        ({"base-width": 1e9}, 1, "Take a smaller --base-width"),
        ({"lr": "inf"}, 2, "--lr"),
        ({"lr": "nan"}, 2, "--lr"),
        ({"timeout": "inf"}, 2, "--timeout"),
        ({"budget": "macs=1e400"}, 2, "must be a finite number"),
        ({"train-size": 0}, 2, "--train-size"),
        ({"device": "gpu"}, 2, "there is no device"),
        ({"dataset": "folder:/nowhere"}, 2, "/nowhere"),
    ],
)
def test_one_message_with_the_repair_and_the_right_code(tmp_path, cli, changes, code, message):
    run = tmp_path / "run"
    got, out, err = cli(*arguments(run, **changes))
    assert (got, out) == (code, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not run.exists()


def test_cuda_without_cuda(tmp_path, cli, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code, _, err = cli(*arguments(tmp_path / "run", device="cuda"))
    assert code == 3
    assert "0 CUDA devices. Use --device cpu" in err


def test_a_data_set_that_is_not_there_and_no_network(tmp_path, cli, monkeypatch):
    def unplugged(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unplugged)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, err = cli(*arguments(tmp_path / "run", dataset="cifar10", data_dir=tmp_path))
    assert code == 3
    assert str(tmp_path) in err
    assert "cifar-10-python.tar.gz" in err


def images(root, classes, *, count=12, spoil=False):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                Image.fromarray((rng.random((16, 16, 3)) * 120 + 100 * i).astype("uint8")).save(folder / f"{n}.png")
    if spoil:
        (root / "train" / classes[0] / "3.png").write_bytes(b"not a picture")


@pytest.mark.parametrize(("classes", "spoil", "message"), [(("cat",), False, "class"), (("cat", "dog"), True, "3.png")])
def test_class_folders_that_cannot_be_used(tmp_path, cli, classes, spoil, message):
    images(tmp_path / "set", classes, spoil=spoil)
    code, _, err = cli(*arguments(tmp_path / "run", dataset=f"folder:{tmp_path / 'set'}", train_size=None, val_size=4))
    assert code == 2
    assert message in err


def test_a_class_folder_is_searched_to_its_report(tmp_path, cli):
    images(tmp_path / "set", ("<b>cat</b>", "dog"))
    changes = {"dataset": f"folder:{tmp_path / 'set'}", "train_size": 16, "val_size": 6, "batch": 4}
    code, out, err = cli(*arguments(tmp_path / "run", trials=1, seeds=1, arms="found,uniform", **changes))
    assert code == 0, err
    assert "report.html" in out
    assert "<b>cat" not in (tmp_path / "run" / "report.html").read_text()


def test_a_directory_that_is_not_a_run_is_left_alone(tmp_path, cli):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = cli(*arguments(tmp_path))
    assert code == 2
    assert "thesis.tex" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_directory_that_was_half_made_is_begun_anew(tmp_path, cli):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    (run / ".run.json.x1y2").write_text('{"schema')
    assert cli(*arguments(run, trials=1, seeds=1, arms="found"))[0] == 0


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ('{"schema": 1, "conf', 1, "damaged"),
        ('{"schema": 99, "version": "9.9"}', 2, "9.9"),
        ("[]", 2, "something else"),
    ],
)
def test_a_damaged_or_newer_run_is_refused_unchanged(tmp_path, cli, content, code, message):
    (tmp_path / "run.json").write_text(content)
    got, _, err = cli(*arguments(tmp_path))
    assert got == code
    assert message in err
    assert (tmp_path / "run.json").read_text() == content


def test_a_run_in_use_is_not_touched(tmp_path, cli):
    with FileLock(tmp_path / ".lock"):
        code, _, err = cli(*arguments(tmp_path))
    assert code == 1
    assert "in use by another process" in err


def test_a_full_disk_is_one_message_and_the_run_goes_on_later(tmp_path, cli, monkeypatch):
    run, real = tmp_path / "run", loop.write_bytes

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(loop, "write_bytes", full)
    code, _, err = cli(*arguments(run, trials=1, seeds=1, arms="found"))
    assert code == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
    monkeypatch.setattr(loop, "write_bytes", real)
    assert cli(*arguments(run, trials=1, seeds=1, arms="found"))[0] == 0


def test_trials_that_diverge_are_recorded_and_the_search_goes_on(tmp_path, cli, monkeypatch):
    real, seen = loop._epoch, []

    def unlucky(network, setting, recipe, *rest):
        seen.append(recipe.epochs)
        return float("nan") if len(seen) == 5 else real(network, setting, recipe, *rest)  # three epochs of supernet

    monkeypatch.setattr(loop, "_epoch", unlucky)
    code, _, err = cli(*arguments(tmp_path / "run", seeds=1, arms="found"))
    assert code == 0, err
    assert "diverged" in err
    short = [row for row in read_table(tmp_path / "run" / "trials.csv", TrialRow) if row.epochs == 1]
    assert [row.state for row in short].count("FAIL") == 1
    assert len(short) == 4


def test_a_search_whose_uniform_finalists_fail_says_that_found_was_not_held_against_it(tmp_path, cli, monkeypatch):
    traced = pn.trace("vgg11", input_shape=(3, 16, 16), classes=10, base_width=SETTINGS["base-width"])
    even = traced.space.cost(pn.uniform(traced, "macs=0.4")).params
    real = loop._epoch

    def unlucky(network, setting, recipe, *rest):
        failing = recipe.epochs == SETTINGS["epochs"] and sum(p.numel() for p in network.parameters()) == even
        return float("nan") if failing else real(network, setting, recipe, *rest)

    monkeypatch.setattr(loop, "_epoch", unlucky)
    code, _, err = cli(*arguments(tmp_path / "run", trials=2, seeds=1, arms="found"))
    assert code == 0, err
    assert "finalists macs=0.4: uniform scaling failed, so the found network was not compared with it" in err


def test_a_study_whose_every_trial_fails_says_so(tmp_path, cli):
    code, _, err = cli(*arguments(tmp_path / "run", lr=1e30, penalty="none", strength=0, supernet_epochs=1))
    assert code == 1
    assert "diverged" in err


@pytest.mark.parametrize("cleaning", ["clean", "failing"])
def test_interrupting_leaves_with_130_and_a_word_on_what_to_do(tmp_path, cli, monkeypatch, cleaning):
    def interrupt(*_):
        try:
            raise KeyboardInterrupt
        finally:
            if cleaning == "failing":
                raise RuntimeError("a lock was not held")

    monkeypatch.setattr(loop, "_epoch", interrupt)
    code, _, err = cli(*arguments(tmp_path / "run"))
    assert code == 130
    assert "Repeat the command to continue" in err


@pytest.mark.parametrize(
    ("command", "code"), [(["--help"], 0), (["plot"], 1), (["report"], 0), (["status"], 0), (["search", "--help"], 0)]
)
def test_what_reads_only_starts_without_torch(tmp_path, command, code):
    config = {"model": "m", "dataset": "d", "budget": ["macs=0.4"], "trials": 1}
    phases = {"supernet": "running", "study": "waiting", "finals": "waiting"}
    record = {"schema": 1, "version": "0.1.0", "config": config, "phases": phases}
    (tmp_path / "run.json").write_text(json.dumps(record))
    arguments = command if "--help" in command else [*command, str(tmp_path)]
    program = (
        f"import sys\nfrom prune_nas.cli import run\ncode = run({arguments!r})\n"
        "print(code, sorted({'torch', 'optuna', 'torchvision'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == f"{code} []", done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--epochs", "0"), "--epochs must be at least 1. Got 0"),
        (("--config", "EPOCHS"), "--epochs must be a whole number. Got 'many'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(cli, tmp_path, flags, said):
    (tmp_path / "own.toml").write_text('epochs = "many"')
    flags = [str(tmp_path / "own.toml") if flag == "EPOCHS" else flag for flag in flags]
    code, _, err = cli("search", "-m", "vgg11", "-d", "digits", "--run", tmp_path / "run", *flags)
    assert code == 2
    assert said in err
