"""Budgets of single weights, end to end: pruned by magnitude, turned into a rule, transferred, trained from scratch."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from prune_nas.cli import run
from prune_nas.design.budget import Budget
from prune_nas.design.records import Curve, Expense, Final, read_table
from prune_nas.search.kernel_rules import kernel_rule
from prune_nas.training import loop
from tests.search.tiny import arguments

BUDGET = Budget.parse("weights=0.1")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "run"
    assert run(arguments(path, budget="weights=0.1", trials=0, train_size=800, epochs=4, supernet_epochs=6)) == 0
    return path


def test_magnitude_pruning_is_compared_from_scratch(sparse):
    rows = read_table(sparse / "finals.csv", Final)
    assert {row.arm for row in rows} == {"base", "pruned", "guided", "uniform", "inherited"}
    of = {row.arm: row for row in rows}
    # vgg11 at an eighth: 144,216 weights in convolutions, of which a tenth stays; the rest are norms and the head.
    assert of["base"].params - of["pruned"].params == 144_216 - 14_422
    assert of["pruned"].params == of["uniform"].params == of["guided"].params
    assert of["uniform"].macs < of["pruned"].macs < of["base"].macs
    assert of["inherited"].schedule == "rewind"
    (said,) = json.loads((sparse / "verdict.json").read_text())
    assert said["subject"] == "pruned"
    assert any("masked weights are multiplied all the same" in sentence for sentence in said["sentences"])
    assert (sparse / "figures" / "kernels.png").stat().st_size > 5_000
    supernet = [row for row in read_table(sparse / "ledger.csv", Expense) if row.phase == "supernet"]
    assert supernet[0].train_macs == 3 * of["base"].macs * 800 * 6


def test_what_was_trained_has_the_weights_that_were_asked_for(sparse):
    for row in read_table(sparse / "finals.csv", Final):
        if row.arm == "base":
            continue
        file = f"{row.candidate}-{row.epochs}-{row.seed}{'-inherited' if row.arm == 'inherited' else ''}.safetensors"
        state = load_file(sparse / "weights" / file)
        kept = sum(int((value != 0).sum()) for value in state.values() if value.ndim == 4)
        assert kept == 14_422, row
    best = json.loads((sparse / "best.json").read_text())
    assert best["source"]["arm"] == "pruned"
    assert best["params"] < 20_000


def test_drawn_masks_differ_from_seed_to_seed_and_pruned_ones_do_not(sparse):
    zeros = {}
    for row in read_table(sparse / "finals.csv", Final):
        if row.arm in ("pruned", "uniform"):
            state = load_file(sparse / "weights" / f"{row.candidate}-{row.epochs}-{row.seed}.safetensors")
            zeros[row.arm, row.seed] = [(v == 0).flatten().tolist() for v in state.values() if v.ndim == 4]
    assert zeros["pruned", 1000] == zeros["pruned", 1001]
    assert zeros["uniform", 1000] != zeros["uniform", 1001]


def test_the_same_command_finds_nothing_left_and_scratch_b_is_added(sparse, cli, monkeypatch):
    same = {"budget": "weights=0.1", "trials": 0, "train_size": 800, "epochs": 4, "supernet_epochs": 6}
    before = (sparse / "finals.csv").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "fit", None)
        code, _, err = cli(*arguments(sparse, **same))
    assert code == 0, err
    assert (sparse / "finals.csv").read_text() == before
    code, _, err = cli(*arguments(sparse, **same, schedules="scratch-b", arms="uniform", seeds=1, workers=1))
    assert code == 0, err
    (longer,) = [row for row in read_table(sparse / "finals.csv", Final) if row.schedule == "scratch-b"]
    base = next(row for row in read_table(sparse / "finals.csv", Final) if row.arm == "base")
    assert longer.epochs == 4 * base.macs // longer.macs


def test_a_rule_of_kernels_goes_to_another_network(sparse, cli, tmp_path):
    out = tmp_path / "k.png"
    code, said, err = cli("transfer", sparse, "-m", "vgg13", "-d", "digits", "-b", "weights=0.1", "--figure", out,
                          "--base-width", "0.125", "--image-size", "16")  # fmt: skip
    assert code == 0, err
    assert "weights=0.1 from" in said
    assert "conv5_2" in said
    assert out.stat().st_size > 5_000
    # A budget that the run never had prunes its supernet anew; a rule that it wrote down needs no supernet.
    assert kernel_rule(str(sparse), Budget.parse("weights=0.2")) != kernel_rule(str(sparse), BUDGET)
    assert kernel_rule(str(sparse / "rule.json"), BUDGET) == kernel_rule(str(sparse), BUDGET)
    target = tmp_path / "run"
    code, _, err = cli("transfer", sparse, "-m", "vgg13", "-d", "digits", "-b", "weights=0.1", "--evaluate",
                       "--run", target, "--preset", "smoke", "--base-width", "0.125", "--image-size", "16",
                       "--epochs", "2", "--arms", "transferred,uniform,base", "--seeds", "2", "--threads", "1",
                       "--train-size", "800")  # fmt: skip
    assert code == 0, err
    assert {row.arm for row in read_table(target / "finals.csv", Final)} == {"transferred", "uniform", "base"}
    assert not any(row.trial == "supernet" for row in read_table(target / "curves.csv", Curve))
    (kept,) = json.loads((target / "prior.json").read_text())
    assert (kept["kind"], kept["budget"]) == ("kernel-mean", "weights=0.1")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"budget": "weights=0.1"}, 2, "add --trials 0"),
        ({"budget": "weights=0.1,macs=0.5", "trials": 0}, 2, "stands alone"),
        ({"budget": "weights=5", "trials": 0}, 4, "less than one for each of 8 layers"),
        ({"budget": "weights=0.00001", "trials": 0}, 4, "less than one for each of 8 layers"),
        ({"budget": "weights=0.1", "trials": 0, "supernet_width": 2}, 2, "leave --supernet-width out"),
        ({"budget": "weights=0.1", "trials": 0, "prior": "vgg16-cifar10-macs"}, 2, "is a rule of widths (stage-mean)"),
        ({"budget": "weights=0.1", "trials": 0, "prior": "nowhere"}, 3, "there is no run, rule file or published rule"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(cli, tmp_path, changes, code, message):
    target = tmp_path / "run"
    got, _, err = cli(*arguments(target, **changes))
    assert got == code, err
    assert message in " ".join(err.split())
    assert not target.exists()


def test_a_run_of_widths_without_its_supernet_cannot_be_pruned_to_weights(searched, cli):
    (searched / "supernet.safetensors").unlink()
    code, _, err = cli("transfer", searched, "-m", "vgg13", "-d", "digits", "-b", "weights=0.1")
    assert code == 2
    assert "has no weights of a supernet" in " ".join(err.split())


def test_a_rule_of_kernels_is_none_of_widths(sparse, cli):
    code, _, err = cli("transfer", sparse / "rule.json", "-m", "vgg13", "-d", "digits", "-b", "params=0.1")
    assert code == 2
    assert "weights=" in " ".join(err.split())


def test_one_rule_of_several_runs(sparse, cli, tmp_path):
    out = tmp_path / "rule.json"
    code, said, err = cli("rules", "fit", sparse, sparse, "--source-budget", "weights=0.1", "-o", out)
    assert code == 0, err
    assert "spread 0.00 over 2 patterns" in said
    both = np.array(kernel_rule(str(out), BUDGET).ratios)
    assert both == pytest.approx(np.array(kernel_rule(str(sparse), BUDGET).ratios))
    code, said, err = cli("transfer", out, "-m", "vgg13", "-d", "digits", "-b", "weights=0.05")
    assert code == 0, err
