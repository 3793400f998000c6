import json

import pytest

from prune_nas.errors import PruneNasError, UsageError
from prune_nas.report.run_data import RunData


def test_every_file_is_read(run_path, fake_vgg):
    run = RunData(run_path)
    assert run.space == fake_vgg
    assert run.budgets == ("macs=0.2", "macs=0.4,params=0.2")
    assert len(run.finals) == 3 * (1 + 2 * (6 + 2 + 3))
    assert len(run.results) == 1 + 2 * 10
    assert len(run.trials) == 24
    assert len(run.widths) == 26
    assert run.scores["conv1_1"].shape == (32,)
    assert len(run.verdicts) == len(run.rules) == 2
    assert run.best["model"] == "vgg16"


def test_an_arm_without_widths_is_not_a_number(run_path):
    frame = RunData(run_path).widths
    assert frame["random"].isna().all()
    assert frame["base"].tolist()[:3] == [32, 32, 64]


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        RunData(tmp_path)


def test_an_unknown_schema_names_the_version_that_wrote_it(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"schema": 7, "version": "3.1.4"}))
    with pytest.raises(UsageError, match=r"schema 1. Got 7, written by prune-nas 3\.1\.4"):
        RunData(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_run_file_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json"):
        RunData(tmp_path)


@pytest.mark.parametrize(
    ("name", "attribute", "text"),
    [
        ("space.json", "space", "{}"),
        ("scores.safetensors", "scores", "no tensors"),
        ("widths.csv", "widths", "slot,stage\na,0\n"),
        ("finals.csv", "finals", "budget\nmacs=0.2\n"),
        ("verdict.json", "verdicts", "{}"),
    ],
)
def test_a_broken_file_is_named(tmp_path, write_fake_run, name, attribute, text):
    path = write_fake_run(tmp_path / "run")
    (path / name).write_text(text)
    with pytest.raises(PruneNasError, match=name):
        getattr(RunData(path), attribute)


def test_missing_files_read_as_empty(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1, "version": "0.1.0"}')
    run = RunData(tmp_path)
    assert run.space is None
    assert run.best is None
    assert run.widths.empty
    tables = run.scores, run.trials, run.curves, run.finals, run.ledger, run.verdicts, run.rules
    assert not any(tables)
    assert run.budgets == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"\xbb\xff" * 500,
        lambda content: content + b'"macs=0.2",conv9',
        lambda content: content.replace(b"64", b"9" * 400),
        lambda content: b"[" * 100_000,
    ],
    ids=["empty", "bytes", "torn", "digits", "nested"],
)
def test_widths_that_are_none_are_an_error_with_their_name(tmp_path, write_fake_run, damage):
    path = write_fake_run(tmp_path / "run") / "widths.csv"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PruneNasError, match=r"widths.csv.* Delete the file and repeat the search"):
        _ = RunData(path.parent).widths
