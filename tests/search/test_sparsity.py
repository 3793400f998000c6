"""Budgets of single weights, end to end: pruned by magnitude, turned into a rule, transferred, trained from scratch."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from prune_nas.cli import run
from prune_nas.design.arms import training_of
from prune_nas.design.budget import Budget
from prune_nas.design.records import Curve, Expense, Final, read_table
from prune_nas.nets.specs import load
from prune_nas.search.finals import weights_of
from prune_nas.search.kernel_rules import read_kernel_prior
from prune_nas.training import loop
from tests.search.tiny import arguments

BUDGET = Budget.parse("weights=0.1")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "run"
    assert (
        run(arguments(path, figures=True, budget="weights=0.1", trials=0, train_size=800, epochs=4, supernet_epochs=6))
        == 0
    )
    return path


def kernel_rule(source, budget):
    return read_kernel_prior(source, budget).rule


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
    assert any("Masked weights are still multiplied" in sentence for sentence in said["sentences"])
    assert (sparse / "figures" / "kernels.png").stat().st_size > 5_000
    supernet = [row for row in read_table(sparse / "ledger.csv", Expense) if row.phase == "supernet"]
    assert supernet[0].train_macs == 3 * of["base"].macs * 800 * 6


def test_what_was_trained_has_the_weights_that_were_asked_for(sparse):
    for row in read_table(sparse / "finals.csv", Final):
        if row.arm == "base":
            continue
        state = load_file(sparse / "weights" / weights_of(training_of(row)))
        kept = sum(int((value != 0).sum()) for value in state.values() if value.ndim == 4)
        assert kept == 14_422, row
    best = json.loads((sparse / "best.json").read_text())
    assert best["source"]["arm"] == "pruned"
    assert best["weights"] == {"kept": 14_422, "of": 144_216}
    dense = next(row for row in read_table(sparse / "finals.csv", Final) if row.arm == "base")
    assert (best["macs"], best["params"]) == (dense.macs, dense.params)  # what the spec rebuilds
    network = load(sparse / "best.json")
    convolutions = [p for p in network.parameters() if p.ndim == 4]
    assert sum(int((p != 0).sum()) for p in convolutions) == 14_422


def test_a_net_with_masked_weights_is_not_trained_without_its_mask(sparse, cli):
    code, _, err = cli("train", sparse / "best.json", "-d", "digits")
    assert (code, "masked weights" in err) == (2, True), err


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
        ({"budget": "weights=0.1"}, 2, "Add --trials 0"),
        ({"budget": "weights=0.1,macs=0.5", "trials": 0}, 2, "cannot be combined"),
        ({"budget": "weights=5", "trials": 0}, 4, "less than one for each of 8 layers"),
        ({"budget": "weights=0.00001", "trials": 0}, 4, "less than one for each of 8 layers"),
        ({"budget": "weights=0.1", "trials": 0, "supernet_width": 2}, 2, "Leave --supernet-width out"),
        ({"budget": "weights=0.1", "trials": 0, "prior": "vgg16-cifar10-macs"}, 2, "is a rule of widths (stage-mean)"),
        ({"budget": "weights=0.1", "trials": 0, "prior": "nowhere"}, 2, "there is no run, rule file or published rule"),
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


def test_an_absolute_budget_is_the_same_share_of_the_source(sparse, cli):
    """The source has 144,216 such weights, the target 2.35 million at this width: a tenth of each teaches the same."""
    asked = ["-m", "vgg13", "-d", "digits", "--base-width", "0.5", "--image-size", "16", "--json"]
    code, out, err = cli("transfer", sparse, *asked, "-b", "weights=0.1")
    assert code == 0, err
    share = json.loads(out)[0]
    total = sum(of for _, of in share["kept"].values())
    code, out, err = cli("transfer", sparse, *asked, "-b", f"weights={round(total / 10) / 1e6:.6f}M")
    assert code == 0, err
    number = json.loads(out)[0]
    own, same = (np.array(one["rule"]["parameters"]["ratios"]) for one in (number, share))
    assert own == pytest.approx(same, abs=1e-3)
    assert sum(kept for kept, _ in number["kept"].values()) == round(total / 10)
    # One rule for all budgets, on request.
    code, out, _ = cli("transfer", sparse, *asked, "-b", "weights=0.3", "--source-budget", "weights=0.1")
    assert json.loads(out)[0]["rule"]["parameters"] == share["rule"]["parameters"]


def test_a_source_never_has_its_code_run(sparse, cli, tmp_path):
    """Only its numbers are read: what a run says its network's code is does not matter."""
    copy = shutil.copytree(sparse, tmp_path / "copy")
    evil = tmp_path / "evil.py"
    evil.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    record = json.loads((copy / "run.json").read_text())
    record["config"]["model"] = f"{evil}:net"
    (copy / "run.json").write_text(json.dumps(record))
    (copy / "rule.json").unlink()
    code, _, err = cli("transfer", copy, "-m", "vgg13", "-d", "digits", "-b", "weights=0.2")
    assert code == 0, err
    assert not (tmp_path / "ran").exists()


def test_a_run_published_without_weights_goes_on_without_its_supernet(sparse, cli, tmp_path):
    copy = shutil.copytree(sparse, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    same = {"budget": "weights=0.1", "trials": 0, "train_size": 800, "epochs": 4, "supernet_epochs": 6}
    code, _, err = cli(*arguments(copy, **same, arms="guided,uniform", seeds=3))
    assert code == 0, err
    assert not (copy / "supernet.safetensors").exists()
    rows = read_table(copy / "finals.csv", Final)
    assert {row.arm for row in rows if row.seed == 1002} == {"guided", "uniform"}
    # Arms that this call did not ask for are still there, and may be deployed.
    (said,) = json.loads((copy / "verdict.json").read_text())
    assert {c["right"].partition(" ")[0] for c in said["comparisons"]} >= {"guided", "inherited"}
    assert said["deploy"]["arm"] in {row.arm for row in rows}


@pytest.mark.slow
def test_two_budgets_on_two_workers_are_those_on_one(cli, tmp_path):
    same = {"budget": None, "trials": 0, "arms": "pruned,uniform", "seeds": 1, "epochs": 1, "supernet_epochs": 1}
    two = ["--budget", "weights=0.2", "--budget", "weights=0.05"]
    got = []
    for workers in (1, 2):
        path = tmp_path / str(workers)
        code, _, err = cli(*arguments(path, **same, workers=workers, threads=workers), *two)
        assert code == 0, err
        rows = read_table(path / "finals.csv", Final)
        got.append(sorted((row.budget, row.arm, row.candidate, row.seed, row.val_accuracy) for row in rows))
    assert got[0] == got[1]
    assert len(got[0]) == 4


@pytest.mark.parametrize("option", [["--rule", "depth-curve"], ["--source-model", "vgg11"], ["--out", "x.csv"],
                                    ["--selection", "threshold"]])  # fmt: skip
def test_options_about_widths_are_refused(sparse, cli, option):
    code, _, err = cli("transfer", sparse, "-m", "vgg13", "-d", "digits", "-b", "weights=0.1", *option)
    assert code == 2
    assert f"{option[0]} is about widths" in " ".join(err.split())


def test_sources_of_the_other_sort_are_named(sparse, searched, cli, tmp_path):
    target = ["-m", "vgg13", "-d", "digits"]
    code, _, err = cli("transfer", sparse, *target, "-b", "params=0.1")
    assert (code, "pruned single weights" in err) == (2, True), err
    code, _, err = cli("transfer", searched, *target, "-b", "weights=0.1", "-b", "macs=0.4")
    assert (code, "cannot share a run" in " ".join(err.split())) == (2, True), err
    table = tmp_path / "w.csv"
    table.write_text("slot,width\nconv1_1,30\n")
    code, _, err = cli("transfer", table, *target, "-b", "weights=0.1")
    assert (code, "is a table of widths" in err) == (2, True), err
    code, _, err = cli("transfer", tmp_path, *target, "-b", "weights=0.1")
    assert (code, "is not a run directory" in err) == (2, True), err


def test_a_rule_that_is_flat_or_of_other_stages_is_said_to_be(cli, tmp_path):
    path = tmp_path / "even.json"
    path.write_text(json.dumps({"schema": 1, "kind": "kernel-mean", "parameters": {"ratios": [[0.5] * 9] * 5}}))
    code, out, err = cli("transfer", path, "-m", "resnet20", "-d", "digits", "-b", "weights=0.1")
    assert code == 0, err
    said = " ".join(out.split())
    assert "undecided against uniform scaling" in said
    assert "the values of the rule's stages 1, 3, 5" in said


def test_layers_that_lose_all_their_weights_are_named(cli, tmp_path):
    run = tmp_path / "run"
    longer = {"train_size": 800, "epochs": 4, "supernet_epochs": 4}  # a base that learns: else no verdict is given
    code, _, err = cli(
        *arguments(run, budget="weights=0.0005", trials=0, seeds=1, arms="pruned,uniform,base", **longer)
    )
    assert code == 0, err
    (said,) = json.loads((run / "verdict.json").read_text())
    assert any("The largest weights leave no weight in" in sentence for sentence in said["sentences"])
