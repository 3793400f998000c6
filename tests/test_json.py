"""What commands print with --json, against the schemas that `prune-nas schemas` publishes."""

import json

import pytest
from jsonschema import Draft202012Validator

from tests.search.tiny import resuming

RESULTS = "artifacts/results"
PRINTS = [
    ("listing", ["models"]),
    ("listing", ["datasets"]),
    ("doctor", ["doctor"]),
    ("rules", ["rules"]),
    ("inspect", ["inspect", "-m", "resnet20", "-b", "macs=0.5"]),
    ("inspect", ["inspect", "-m", "densenet40"]),
    ("status", ["status", f"{RESULTS}/vgg16-cifar10-laptop"]),
    ("status", ["status", f"{RESULTS}/paper-compare/vgg16-cifar10"]),
    ("plan", ["compare", "-m", "vgg16", "-d", "cifar10", "--cases", "slimming=0.7,magnitude=0.9", "--dry-run"]),
    ("transfer", ["transfer", "vgg16-cifar10-macs", "-m", "vgg19", "-d", "digits", "-b", "params=0.1"]),
    ("transfer", ["transfer", "vgg16-cifar10-weights", "-m", "vgg11", "-d", "digits", "-b", "weights=0.1"]),
]


@pytest.fixture(scope="module")
def schemas():
    from importlib.resources import files

    whole = json.loads(files("prune_nas.cli").joinpath("schemas.json").read_text())
    Draft202012Validator.check_schema(whole)
    return whole["$defs"]


def check(schemas, name, text):
    Draft202012Validator(schemas[name]).validate(json.loads(text))


@pytest.mark.parametrize(("name", "words"), PRINTS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_what_reads_only(schemas, cli, name, words):
    code, out, err = cli(*words, "--json")
    assert code == 0, err
    check(schemas, name, out)


def test_what_a_run_prints(schemas, cli, searched, tmp_path):
    short = ["--train-size", 100, "--val-size", 50, "--epochs", 1, "--precision", "fp32", "--out", tmp_path]
    for name, words in (
        ("verdicts", ["report", searched]),
        ("search-plan", [*resuming(searched, arms="found,uniform,inherited", seeds=3), "--dry-run"]),
        ("status", ["status", searched]),
        ("export", ["export", searched / "best.json", "-f", "state,python", "--out", tmp_path / "exported"]),
        ("rule", ["rules", "fit", searched, "-o", tmp_path / "rule.json"]),
        ("train", ["train", searched / "best.json", "-d", "digits", *short]),
    ):
        code, out, err = cli(*words, "--json")
        assert code == 0, err
        check(schemas, name, out)


@pytest.mark.parametrize(
    "run", ["vgg16-cifar10-laptop", "paper-compare/resnet20-cifar10", "vgg16-to-vgg19-weights-cifar10"]
)
def test_published_verdicts(schemas, run):
    with open(f"{RESULTS}/{run}/verdict.json", encoding="utf-8") as file:  # noqa: PTH123
        check(schemas, "verdicts", file.read())


def test_the_command_prints_them(cli, schemas):
    code, out, _ = cli("schemas")
    assert code == 0
    assert json.loads(out)["$defs"] == schemas
    code, out, _ = cli("schemas", "status")
    assert json.loads(out) == schemas["status"]
    code, _, err = cli("schemas", "stauts")
    assert code == 2
    assert "Did you mean status" in err


def test_a_schema_refuses_what_is_wrong(schemas, cli, searched):
    got = json.loads(cli("status", searched, "--json")[1])
    validator = Draft202012Validator(schemas["status"])
    for wrong in ({**got, "more": 1}, {k: v for k, v in got.items() if k != "best"}, {**got, "schema": 2}):
        assert not validator.is_valid(wrong)
