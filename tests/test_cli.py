import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from prune_nas.cli import app
from prune_nas.design.records import Expense, Final, TrialRow, read_table
from tests.search.tiny import LEARNT

FILES = {
    "run.json", "space.json", "scores.safetensors", "supernet.safetensors", "widths.csv", "rule.json", "study.journal",
    "trials.csv", "curves.csv", "finals.csv", "ledger.csv", "verdict.json", "best.json", "best.safetensors", "figures",
    "deploy.json", "deploy.safetensors", "report.html", "weights", "starts", "checkpoints", ".lock",
}  # fmt: skip


def test_a_run_directory_holds_what_the_guide_says(searched):
    assert {p.name for p in searched.iterdir()} == FILES
    page = open("prune_nas/guide/files.md").read()  # noqa: PTH123, SIM115
    assert all(f"`{name}" in page for name in FILES - {".lock"})


def test_the_best_net_is_rebuilt_as_the_guide_shows(searched, cli, monkeypatch):
    """The guide's first lines of Python, run; the accuracy on validation is the recorded one."""
    page = open("prune_nas/guide/python.md").read()  # noqa: PTH123, SIM115
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    scope = {}
    exec(block.replace("artifacts/runs/X", str(searched)), scope)  # noqa: S102
    spec, network = json.loads((searched / "deploy.json").read_text()), scope["network"]
    import torch

    from prune_nas.config import Config
    from prune_nas.search.rundir import read_json
    from prune_nas.search.setup import load_data
    from prune_nas.training.loop import Setting, accuracy
    from prune_nas.training.precision import Precision

    config = Config(**read_json(searched / "run.json")["config"])
    data = load_data(config)
    assert spec["preprocessing"]["mean"] == list(data.mean)
    setting = Setting(data, torch.device("cpu"), Precision("fp32"))
    assert accuracy(network, data.val, setting) == pytest.approx(spec["source"]["val_accuracy"])
    assert sum(p.numel() for p in network.parameters()) == spec["params"]


def test_the_ledger_adds_up(searched):
    """Forward and backward macs, written out again from the tables of the trainings themselves."""
    rows = read_table(searched / "ledger.csv", Expense)
    finals = read_table(searched / "finals.csv", Final)
    trials = read_table(searched / "trials.csv", TrialRow)
    phases = ("probe", "supernet", "study", "finals")
    spent = {phase: sum(r.train_macs for r in rows if r.phase == phase) for phase in phases}
    images, epochs = LEARNT["train-size"], LEARNT["epochs"]
    base = json.loads((searched / "space.json").read_text())
    assert spent["study"] == sum(3 * t.macs * images * t.epochs for t in trials if t.state == "COMPLETE")
    assert {t.epochs for t in trials if t.state == "COMPLETE"} == {1, epochs}  # two rungs
    distinct = {(f.candidate, f.seed, f.epochs, f.arm == "inherited"): 3 * f.macs * images * f.epochs for f in finals}
    assert spent["finals"] == sum(distinct.values())
    assert spent["supernet"] == 3 * inspect_macs(base) * images * LEARNT["supernet-epochs"]
    assert spent["probe"] == 3 * inspect_macs(base) * 32 * 60 * 2  # two optimizers, 60 steps of 32 images each


def inspect_macs(space):
    from prune_nas.design.space import Space

    read = Space.from_dict({k: v for k, v in space.items() if k != "schema"})
    return read.cost(read.widest).macs


def test_report_json_is_the_verdict(searched, cli):
    code, out, _ = cli("report", searched, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((searched / "verdict.json").read_text())


def test_inspect_json_has_the_documented_keys(cli):
    code, out, _ = cli("inspect", "--model", "vgg16", "--base-width", 0.5, "--budget", "macs=0.2", "--json")
    got = json.loads(out)
    assert code == 0
    assert {
        "model",
        "input_shape",
        "macs",
        "params",
        "slots",
        "frozen",
        "widths",
        "budget_macs",
        "budget_params",
    } <= set(got)
    assert set(got["slots"][0]) == {"name", "stage", "depth", "ceiling", "floor", "multiple", "groups", "layers"}
    assert (got["macs"], got["params"]) == (78744064, 3684842)
    assert (round(got["budget_macs"] / 1e6, 1), round(got["budget_params"] / 1e6, 3)) == (15.7, 0.732)


def test_inspect_says_what_is_frozen_and_why(cli):
    code, out, _ = cli("inspect", "--model", "resnet20")
    assert code == 0
    assert "frozen:" in out
    assert "stage1.block0.conv1" in out.replace("\n", "")


@pytest.mark.parametrize("text", ["3x32", "axbxc", "0x32x32"])
def test_inspect_refuses_shapes_that_are_none(cli, text):
    code, _, err = cli("inspect", "--model", "vgg11", "--input", text)
    assert code == 2
    assert any(hint in err for hint in ("3x32x32", "positive", "input of shape 3x32 "))


def test_train_a_spec_with_two_seeds(searched, cli, tmp_path):
    common = ["--train-size", 100, "--val-size", 50, "--epochs", 1, "--precision", "fp32", "--out", tmp_path, "--json"]
    code, out, err = cli("train", searched / "best.json", "--dataset", "digits", "--seeds", 2, *common)
    assert code == 0, err
    rows = json.loads(out)
    assert [row["seed"] for row in rows] == [0, 1]
    assert all((tmp_path / row["weights"]).exists() for row in rows)
    assert all(0 <= row["test_accuracy"] <= 1 for row in rows)
    code, out, err = cli("train", searched / "best.json", "--dataset", "digits", *common, "--recipe", "paper")
    assert code == 0, err
    assert json.loads(out)[0]["weights"] != rows[0]["weights"]  # another experiment, another file
    longer = [
        "--schedule",
        "scratch-b",
        "--train-size",
        60,
        "--val-size",
        20,
        "--epochs",
        2,
        "--out",
        tmp_path,
        "--json",
    ]
    code, out, err = cli("train", searched / "best.json", "--dataset", "digits", *longer)
    (row,) = json.loads(out)
    assert (row["optimizer"], row["batch"], row["lr"]) == ("sgd", 32, 0.05)  # as the run trained it
    spec = json.loads((searched / "best.json").read_text())
    base = inspect_macs(json.loads((searched / "space.json").read_text()))
    assert json.loads(out)[0]["epochs"] == 2 * base // spec["macs"]


def test_a_spec_is_trained_as_its_run_did_unless_something_else_is_asked_for(searched, cli, tmp_path):
    path = searched / "best.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "training": {**spec["training"], "schedule": "scratch-b", "epochs": 2}}))
    short = [
        "--dataset",
        "digits",
        "--train-size",
        60,
        "--val-size",
        20,
        "--out",
        tmp_path,
        "--precision",
        "fp32",
        "--json",
    ]
    base = inspect_macs(json.loads((searched / "space.json").read_text()))
    code, out, err = cli("train", path, *short)
    assert code == 0, err
    assert (json.loads(out)[0]["schedule"], json.loads(out)[0]["epochs"]) == ("scratch-b", 2 * base // spec["macs"])
    code, out, err = cli("train", path, *short, "--batch", 16, "--schedule", "scratch-e")
    assert code == 0, err
    assert (json.loads(out)[0]["epochs"], json.loads(out)[0]["lr"]) == (2, 0.025)  # less for a smaller batch
    code, _, err = cli("train", path, *short, "--optimizer", "auto", "--lr", 0.1)
    assert (code, "--lr belongs to one optimiser" in err) == (2, True)


WRONG = json.dumps({"schema": 1, "model": "vgg11", "input_shape": [3, 32, 32], "classes": "ten", "widths": {}})


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "lacks model"), ("[", "not JSON"), (None, "no spec"), (WRONG, "must be a whole number")],
)
def test_train_refuses_what_is_no_spec(cli, tmp_path, content, message):
    if content is not None:
        (tmp_path / "spec.json").write_text(content)
    code, _, err = cli("train", tmp_path / "spec.json", "--dataset", "digits")
    assert code in (1, 2)
    assert message in err


def test_a_table_of_widths_is_trained_by_transfer(cli, tmp_path):
    (tmp_path / "widths.csv").write_text("slot,width\nconv1_1,8\n")
    code, _, err = cli("train", tmp_path / "widths.csv", "--dataset", "digits")
    assert (code, f"prune-nas transfer {tmp_path}/widths.csv --evaluate" in " ".join(err.split())) == (2, True), err


def test_a_spec_with_a_misspelt_slot_names_the_nearest(searched, cli):
    spec = json.loads((searched / "best.json").read_text())
    spec["widths"]["conv1_l"] = spec["widths"].pop("conv1_1")
    (searched / "best.json").write_text(json.dumps(spec))
    code, _, err = cli("train", searched / "best.json", "--dataset", "digits")
    assert code == 2
    assert "Did you mean conv1_1" in err


def test_status_counts_what_is_done(searched, cli):
    code, out, _ = cli("status", searched, "--json")
    got = json.loads(out)
    assert code == 0
    assert got["phases"] == {"supernet": "done", "study": "done", "finals": "done"}
    assert got["finals"] == len(read_table(searched / "finals.csv", Final))
    assert got["running"] is False
    finalists = [row for row in read_table(searched / "trials.csv", TrialRow) if row.epochs == LEARNT["epochs"]]
    values = {w: [row.value for row in finalists if row.widths == w] for w in {row.widths for row in finalists}}
    best = got["best"]["macs=0.4"]
    assert best["value"] == pytest.approx(max(sum(each) / len(each) for each in values.values()))
    assert best["epochs"] == LEARNT["epochs"]
    assert got["latest"]["epoch"] == LEARNT["epochs"]
    last, more = cli("status", searched)[1].splitlines()[-2:]
    assert last.startswith("  The run is done. Under macs=0.4: ")
    assert f"Use {searched}/deploy.json" in last
    assert more == f"  Everything else: prune-nas report {searched}"


def test_status_names_no_best_network_while_the_best_one_guesses(searched, cli):
    record = json.loads((searched / "run.json").read_text())
    assert "  best under macs=0.4: " in cli("status", searched)[1]
    record["data"]["guessing"] = 0.99
    (searched / "run.json").write_text(json.dumps(record))
    out = cli("status", searched)[1]
    assert "  best under macs=0.4: nothing learnt yet (" in out
    assert "guessing gives 99.0 %)" in out


def test_status_knows_whether_a_command_works_on_the_run(searched, cli):
    record = json.loads((searched / "run.json").read_text())
    record["phases"]["finals"] = "running"
    (searched / "run.json").write_text(json.dumps(record))
    assert "The run is stopped. Repeat its command to continue." in cli("status", searched)[1]
    with FileLock(searched / ".lock"):
        assert "The run is in progress." in cli("status", searched)[1]


def test_status_watches_until_the_run_ends(searched, cli, monkeypatch):
    """It looks again while the lock is held, speaks again when something has changed, and ends when it is let go."""
    lock, waits = FileLock(searched / ".lock"), []
    lock.acquire()
    whole = (searched / "finals.csv").read_text().splitlines(keepends=True)
    (searched / "finals.csv").write_text("".join(whole[:2]))

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            (searched / "finals.csv").write_text("".join(whole))
            lock.release()

    monkeypatch.setattr(time, "sleep", sleep)
    code, out, _ = cli("status", searched, "--watch", "--every", 0.1, "--json")
    assert waits == [0.1] * 3
    assert code == 0
    looks = [json.loads(line) for line in out.splitlines()]
    assert (looks[0]["finals"], looks[0]["running"]) == (1, True)
    assert (looks[-1]["finals"], looks[-1]["running"]) == (len(whole) - 1, False)
    assert len(looks) <= 3


def test_plot_draws_one_kind_in_one_format(searched, cli, tmp_path):
    code, _, err = cli("plot", searched, "--kind", "widths", "--format", "pdf", "--out", tmp_path / "f")
    assert code == 0, err
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"widths-1.pdf", "widths-1.csv"}
    code, _, err = cli("plot", searched, "--kind", "width")
    assert code == 2
    assert "Did you mean widths" in err


@pytest.mark.parametrize("words", [["serch"], ["search", "--nope"], ["search", "--trials", "many"]])
def test_flags_that_do_not_exist(cli, words):
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_two_budgets_behind_one_flag_are_told_how(cli):
    code, _, err = cli("search", "-m", "vgg11", "-d", "digits", "-b", "macs=0.2", "params=0.1")
    assert code == 2
    assert err.startswith("prune-nas: Give every budget its -b: ")
    assert "-b macs=0.2,params=0.1" in err
    assert cli("search", "-m", "vgg11", "-d", "digits", "macs=0.2")[2] == err
    assert "Give every budget its -b" not in cli("search", "-m", "vgg11", "-b", "macs=0.2", "--nonsense")[2]


def test_the_version(cli):
    from prune_nas import __version__

    assert cli("--version")[:2] == (0, f"{__version__}\n")


def test_inspect_shows_one_budget(cli):
    code, _, err = cli("inspect", "-m", "vgg11", "-b", "macs=0.4", "-b", "params=0.2")
    assert (code, "-b macs=0.4,params=0.2" in err) == (2, True)


def test_a_misspelt_setting_in_the_environment_is_refused(cli, monkeypatch):
    monkeypatch.setenv("PRUNE_NAS_SEDS", "5")
    code, _, err = cli("search", "-m", "vgg11", "-d", "digits", "--preset", "smoke")
    assert code == 2
    assert "Did you mean PRUNE_NAS_SEEDS" in " ".join(err.split())


def test_kinds_take_commas_and_must_fit_the_run(searched, cli, tmp_path):
    code, out, err = cli("plot", searched, "-k", "ledger,widths", "-f", "svg,png", "--out", tmp_path)
    assert code == 0, err
    names = {"ledger.svg", "ledger.png", "widths-1.svg", "widths-1.png"}
    assert {line.rpartition("/")[2] for line in out.split()} == names
    code, _, err = cli("plot", searched, "-k", "methods", "--out", tmp_path)
    assert (code, "has no figure of methods. It has accuracy" in " ".join(err.split())) == (2, True)


def test_what_is_written_onto_a_file_is_refused(searched, cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = cli("export", searched / "best.json", "--out", tmp_path / "file")
    assert (code, "Name another place" in err, "Free some space" in err) == (2, True, False)


def test_a_transfer_keeps_to_a_file_of_settings(cli, tmp_path):
    (tmp_path / "own.toml").write_text("multiple = 16\n")
    asked = ["transfer", "taper", "-m", "vgg11", "-d", "digits", "--image-size", 16, "-b", "macs=0.4", "--json"]
    code, out, err = cli(*asked, "--space", tmp_path / "own.toml")
    assert code == 0, err
    assert all(width % 16 == 0 for width in json.loads(out)[0]["widths"].values())


def test_without_arguments_it_helps(cli):
    assert "search" in "".join(cli()[1:])


@pytest.mark.parametrize("command", ["plot", "report", "status"])
def test_what_is_not_a_run_is_refused(cli, tmp_path, command):
    code, _, err = cli(command, tmp_path)
    assert code == 2
    assert "run.json" in err


def test_the_list_of_networks_names_every_source(cli):
    code, out, _ = cli("models")
    assert code == 0
    first = [line.split()[0] for line in out.splitlines()]
    assert first[-3:] == ["torchvision:NAME", "timm:NAME", "FILE.py:NAME"]
    assert set(first[:-3]) == set(json.loads(cli("models", "--json")[1]))


@pytest.mark.parametrize("command", ["models", "datasets", "doctor"])
def test_lists(cli, command):
    code, out, _ = cli(command, "--json")
    assert code == 0
    assert json.loads(out)


def test_latency_is_reported(searched):
    latency = json.loads((searched / "verdict.json").read_text())[0]["latency"]
    assert {"base", "found"} <= set(latency)
    assert all(m["median_ms"] > 0 and math.isfinite(m["median_ms"]) for m in latency.values())


EXAMPLES = [c.epilog.removeprefix("Example: prune-nas ").split() for c in app.registered_commands]


@pytest.mark.parametrize(
    "example",
    [pytest.param(e, marks=pytest.mark.slow if e[0] in ("search", "compare") else ()) for e in EXAMPLES],
    ids=lambda e: e[0],
)
def test_every_helps_example_runs(example, searched, cli, monkeypatch, tmp_path):
    """As written, but on a small subset of the data: the environment shrinks what the flags leave open."""
    sizes = {
        "TRAIN_SIZE": 100,
        "VAL_SIZE": 50,
        "BASE_WIDTH": 0.125,
        "SUPERNET_EPOCHS": 1,
        "TRIAL_EPOCHS": 1,
        "EPOCHS": 1,
    }
    small = {**sizes, "TRIALS": 1, "FINALISTS": 1, "SEEDS": 1, "ARMS": "found,uniform", "PRECISION": "fp32"}
    for name, value in small.items():
        monkeypatch.setenv(f"PRUNE_NAS_{name}", str(value))
    if example[0] == "compare":
        monkeypatch.setenv("PRUNE_NAS_ARMS", "pruned,base")
    words = [word.replace("artifacts/runs/my-run", str(searched)) for word in example]
    run = ["--run", tmp_path / "run"]
    extra = {
        "search": run,
        "compare": [*run, "--scratch-b-cap", 1],
        "train": ["--train-size", 100, "--out", tmp_path],
        "worker": ["--storage", f"sqlite:///{tmp_path}/db"],  # where there may not be several
    }
    code, _, err = cli(*words, *extra.get(words[0], []))
    assert (code, "SQLite" in err) == ((2, True) if words[0] == "worker" else (0, False)), err


def test_precedence_is_flag_environment_file_preset(tmp_path):
    from prune_nas.config import resolve

    file = tmp_path / "c.toml"
    file.write_text('epochs = 5\ntrial-epochs = 5\nsupernet_epochs = 5\nbudget = "macs=0.3"\n')
    environment = {"PRUNE_NAS_EPOCHS": "6", "PRUNE_NAS_TRIAL_EPOCHS": "6", "PRUNE_NAS_DATA": "/data"}
    got = resolve({"model": "m", "dataset": "d", "preset": "smoke", "epochs": 7}, file=file, environment=environment)
    assert (got.epochs, got.trial_epochs, got.supernet_epochs, got.trials) == (7, 6, 5, 6)
    assert got.budget == ("macs=0.3",)
    assert str(got.data_dir) == "/data"


@pytest.mark.parametrize(
    ("text", "message"), [("epoch = 5", "Did you mean epochs"), ("epochs = ", "not TOML"), ("epochs = 'x'", "--epochs")]
)
def test_a_bad_file_says_what_is_wrong(tmp_path, text, message):
    from prune_nas.config import resolve
    from prune_nas.errors import UsageError

    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve({"model": "m", "dataset": "d"}, file=file, environment={})


def test_the_run_name_ignores_what_may_change():
    from prune_nas.config import resolve

    names = {
        resolve({"model": "vgg16", "dataset": "digits", **more}, environment={}).run_name
        for more in ({}, {"trials": 99}, {"arms": ("found",)}, {"device": "cpu"})
    }
    assert len(names) == 1
    other = resolve({"model": "vgg16", "dataset": "digits", "epochs": 3}, environment={}).run_name
    assert other not in names
    assert names.pop().startswith("vgg16-digits-")
    assert "/" not in resolve({"model": "a/b.py:f", "dataset": "folder:/x"}, environment={}).run_name


@pytest.mark.parametrize("form", ["svg", "png"])
def test_inspect_draws_the_space(tmp_path, cli, form):
    code, _, err = cli("inspect", "--model", "resnet20", "--figure", tmp_path / f"space.{form}")
    assert code == 0, err
    assert (tmp_path / f"space.{form}").stat().st_size > 3000
    code, _, err = cli("inspect", "--model", "resnet20", "--figure", tmp_path / "space.gif")
    assert code == 2
    assert "png" in err


def test_a_table_for_another_program_is_not_cut(cli):
    code, out, _ = cli("inspect", "-m", "mobilenetv2", "-b", "macs=0.5")
    assert code == 0
    assert "…" not in out
    assert "multiple" in out


def test_a_bare_number_is_explained(cli):
    code, _, err = cli("inspect", "-m", "vgg11", "-b", "macs=1.5")
    assert code == 4
    assert "a number above 1 without a unit is absolute: millions are written 1.5M" in " ".join(err.split())


@pytest.mark.parametrize("colour", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_output_for_files_and_without_colour_has_no_escapes(searched, colour):
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **colour}
    for words in (["report", searched], ["status", searched], ["inspect", "-m", "vgg11"]):
        command = [sys.executable, "-m", "prune_nas", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        colours = re.findall(r"\x1b\[[0-9;]*m", done.stdout + done.stderr)
        assert [c for c in colours if re.search(r"[;\[](3|4|9|10)[0-7]m", c)] == []
        if "FORCE_COLOR" not in colour:
            assert "\x1b" not in done.stdout + done.stderr
        if words[0] == "report":
            plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
            lines = [line for line in plain.splitlines() if str(searched) not in line]
            assert max(map(len, lines)) <= 80


def test_a_network_that_is_not_named_says_where_they_are_listed(cli):
    code, _, err = cli("search", "--dataset", "digits")
    assert code == 2
    assert "--model is missing. `prune-nas models` lists the networks" in err


def test_a_run_that_is_not_there_names_those_beside_it(cli, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text("{}")
    code, _, err = cli("status", tmp_path / "other")
    assert code == 2
    assert "Beside it lie one" in err


def test_a_transfer_keeps_to_file_and_environment_without_evaluating_too(cli, tmp_path, monkeypatch):
    (tmp_path / "own.toml").write_text('budget = ["params=0.1"]\nbase-width = 0.5\n')
    asked = ["transfer", "taper", "-m", "vgg11", "-d", "digits", "--image-size", 16]

    def got(*more):
        code, out, err = cli(*asked, *more, "--json")
        assert code == 0, err
        (target,) = json.loads(out)
        return target["budget"], max(target["widths"].values())

    whole, half = got("-b", "params=0.1"), got("--config", tmp_path / "own.toml")
    assert whole[0] == half[0] == "params=0.1"
    assert half[1] < whole[1]
    assert got("--config", tmp_path / "own.toml", "-b", "params=0.3")[0] == "params=0.3"
    monkeypatch.setenv("PRUNE_NAS_BUDGET", "params=0.1")
    assert got() == whole
    monkeypatch.setenv("PRUNE_NAS_BASE_WIDTH", "0.5")
    assert got() == half


@pytest.mark.parametrize(
    "flag", [["--epochs", 40], ["--seeds", 5], ["--dry-run"], ["--arms", "uniform"], ["--run", "r"]]
)
def test_what_is_about_trainings_needs_evaluate(cli, flag):
    code, _, err = cli("transfer", "taper", "-m", "vgg11", "-d", "digits", *flag)
    assert code == 2
    assert f"{flag[0]} needs --evaluate. Without it nothing is trained" in err


def test_settings_read_as_text_mean_what_flags_do(tmp_path):
    from prune_nas.config import resolve

    asked = {"model": "m", "dataset": "d", "prior": "taper"}
    flag = resolve({**asked, "trials": 0}, environment={})
    assert resolve(asked, environment={"PRUNE_NAS_TRIALS": "0"}).arms == flag.arms
    got = resolve(asked, environment={"PRUNE_NAS_DATA": "~/data", "PRUNE_NAS_SPACE": "~/own.toml"})
    assert (got.data_dir, got.space) == (Path.home() / "data", Path.home() / "own.toml")
