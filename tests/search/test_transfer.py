"""Rules that leave their network: transferred without training, as a prior of a search, and evaluated."""

import csv
import json

import pytest

from prune_nas.design.records import Curve, Expense, Final, TrialRow, read_table
from prune_nas.nets.tracing import trace
from prune_nas.training import loop
from tests.search.tiny import arguments


@pytest.fixture
def rule(tmp_path):
    path = tmp_path / "rule.json"
    data = {"schema": 1, "kind": "stage-mean", "parameters": {"ratios": [0.8, 0.9, 0.5, 0.2, 0.1]}, "spent": 10**9}
    path.write_text(json.dumps(data))
    return path


def test_transfer_gives_widths_and_trains_nothing(searched, cli, monkeypatch):
    monkeypatch.setattr(loop, "fit", None)
    figure, table = searched / "t.png", searched / "t.csv"
    code, out, err = cli("transfer", searched, "-m", "vgg19", "-d", "cifar100", "-b", "params=0.1", "--figure", figure,
                         "--out", table)  # fmt: skip
    assert code == 0, err
    assert "conv5_4" in out
    assert figure.stat().st_size > 10_000
    code, out, _ = cli("transfer", searched, "-m", "vgg19", "-d", "cifar100", "-b", "params=0.1", "--json")
    (got,) = json.loads(out)
    assert {"rule", "model", "budget", "widths", "macs", "params"} <= set(got)
    base = trace("vgg19", classes=100).space
    assert got["params"] <= 0.1 * base.cost(base.base).params
    # The table that was written is a source again: its stage means are the widths, up to the step that fills a slot.
    code, out, err = cli("transfer", table, "-m", "vgg19", "-d", "cifar100", "-b", "params=0.1", "--json")
    assert code == 0, err
    again = json.loads(out)[0]["widths"]
    assert max(abs(again[slot] - width) for slot, width in got["widths"].items()) <= 1


def test_a_run_gives_each_budget_the_rule_that_its_scores_give_under_it(searched, cli):
    asked = ["-m", "vgg19", "-d", "cifar100", "--json", "-b", "params=0.1", "-b", "macs=0.3"]
    code, out, err = cli("transfer", searched, *asked)
    assert code == 0, err
    scarce, fast = (target["rule"]["parameters"]["ratios"] for target in json.loads(out))
    (supernet,) = [row for row in read_table(searched / "ledger.csv", Expense) if row.phase == "supernet"]
    assert json.loads(out)[0]["rule"]["spent"] == supernet.train_macs > 0
    # Few parameters cost late channels, few multiplications early ones.
    assert scarce[0] / scarce[-1] > fast[0] / fast[-1]
    # A budget in numbers is the same share of the target's base.
    base = trace("vgg19", classes=100).space
    number = 0.1 * base.cost(base.base).params
    code, out, _ = cli("transfer", searched, "-m", "vgg19", "-d", "cifar100", "--json", "-b", f"params={number / 1e6}M")
    assert json.loads(out)[0]["rule"]["parameters"]["ratios"] == scarce
    # One budget for all on request, also one that the run never had.
    code, out, _ = cli("transfer", searched, *asked, "--source-budget", "params=0.1")
    assert [target["rule"]["parameters"]["ratios"] for target in json.loads(out)] == [scarce, scarce]
    # Another selection chooses other channels.
    code, out, _ = cli("transfer", searched, *asked, "--selection", "threshold")
    assert json.loads(out)[1]["rule"]["parameters"]["ratios"] != fast


def test_a_run_without_scores_lends_only_what_it_wrote_down(searched, cli):
    (searched / "scores.safetensors").unlink()
    code, _, err = cli("transfer", searched, "-m", "vgg13", "-d", "digits", "-b", "params=0.1")
    assert code == 2
    assert "can only lend the widths of its own budgets: macs=0.4" in " ".join(err.split())
    code, _, err = cli(
        "transfer", searched, "-m", "vgg13", "-d", "digits", "-b", "params=0.1", "--source-budget", "macs=0.4"
    )
    assert code == 0, err


def test_stages_that_differ_in_number_are_said(rule, cli):
    code, out, err = cli("transfer", rule, "-m", "resnet20", "-d", "digits", "-b", "params=0.5")
    assert code == 0, err
    assert "has 3. Its stages take the values of the rule's stages 1, 3, 5" in " ".join(out.split())


def test_a_search_from_a_prior_trains_no_supernet(rule, cli, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, prior=rule, seeds=1))
    assert code == 0, err
    assert "no supernet is trained" in err
    assert not any(row.trial == "supernet" for row in read_table(run / "curves.csv", Curve))
    assert not (run / "scores.safetensors").exists()
    arms = {row.arm for row in read_table(run / "finals.csv", Final)}
    assert {"found", "transferred", "taper", "random", "base"} <= arms
    assert not arms & {"pruned", "guided", "inherited"}
    widths = [json.loads(row.widths) for row in read_table(run / "trials.csv", TrialRow)]
    columns = list(csv.DictReader((run / "widths.csv").open()))
    assert {row["slot"]: int(row["transferred"]) for row in columns} in widths  # the study begins there too
    (kept,) = json.loads((run / "prior.json").read_text())
    assert kept["parameters"]["ratios"] == [0.8, 0.9, 0.5, 0.2, 0.1]
    rule.unlink()  # the run has its own copy
    code, _, err = cli(*arguments(run, prior=rule, seeds=2))
    assert code == 0, err


def test_an_evaluated_transfer_compares_with_the_targets_own_rule_and_says_what_it_saved(rule, cli, tmp_path):
    run, config = tmp_path / "run", tmp_path / "tiny.toml"
    config.write_text(
        'train_size = 800\nval_size = 100\nsupernet_epochs = 8\nepochs = 4\nrandoms = 1\nprecision = "fp32"'
    )
    code, _, err = cli(
        "transfer", rule, "-m", "vgg11", "-d", "digits", "-b", "params=0.2", "--evaluate", "--run", run,
        "--config", config, "--preset", "smoke",
        "--base-width", "0.125", "--image-size", "16",
        "--seeds", "2", "--threads", "1", "--no-figures",
    )  # fmt: skip
    assert code == 0, err
    rows = read_table(run / "finals.csv", Final)
    assert {"transferred", "guided", "pruned", "uniform", "taper", "random", "base"} <= {row.arm for row in rows}
    assert "found" not in {row.arm for row in rows}
    (verdict,) = json.loads((run / "verdict.json").read_text())
    assert verdict["headline"].startswith("The transferred rule saves training a supernet of this network, ")
    assert "2.0 trainings of the unpruned network" in verdict["headline"]  # 8 epochs against 4
    assert any(s.startswith("The source's supernet cost ") for s in verdict["sentences"])
    assert any(c["left"] == "transferred" and c["right"] == "guided" for c in verdict["comparisons"])
    assert json.loads((run / "best.json").read_text())["source"]["arm"] == "transferred"
    assert (run / "report.html").exists()


def test_a_rule_made_by_hand_needs_no_source(cli, tmp_path):
    from prune_nas.design.budget import Budget
    from prune_nas.design.rules import taper_widths
    from prune_nas.nets.tracing import trace

    asked = ["-m", "vgg13", "-d", "digits", "--image-size", "16", "-b", "macs=0.2", "-b", "macs=0.2,params=0.1"]
    code, out, err = cli("transfer", "taper", *asked, "--json")
    assert code == 0, err
    space = trace("vgg13", input_shape=(3, 16, 16), classes=10).space
    for one in json.loads(out):
        assert one["widths"] == dict(taper_widths(space, Budget.parse(one["budget"]).limits(space)))
    _, out, _ = cli("transfer", "taper", *asked)
    assert "taper, before it is scaled onto the budget: keep in each stage 0." in out
    assert "taper from taper" not in out
    assert "These widths are for the full network" in out
    code, _, err = cli("transfer", "taper", *asked, "--evaluate", "--out", tmp_path / "w.csv")
    assert (code, "--out is written without --evaluate" in err) == (2, True)
    small = ["--preset", "smoke", "--train-size", 100, "--seeds", 1, "--arms", "transferred,uniform"]
    code, out, err = cli("transfer", "taper", *asked, "--evaluate", "--dry-run", *small)
    assert code == 0, err
    assert "finals macs=0.2: transferred, 1 network, scratch-e, 80 epochs (240 steps)" in out
    _, out, _ = cli("transfer", "taper", *asked, "--base-width", "0.5")
    assert "full width" not in out
    code, _, err = cli("transfer", "taper", *asked, "--source-budget", "macs=0.3")
    assert (code, "is a rule by itself" in err) == (2, True)
    run = tmp_path / "run"
    command = arguments(run, prior="taper", trials=0, arms="transferred,uniform,base", seeds=1, schedules="scratch-b")
    for _ in range(2):  # and again from the run's own prior.json
        code, _, err = cli(*command)
        assert code == 0, err
    (said,) = json.loads((run / "verdict.json").read_text())
    assert "The rule was made by hand: no network was trained for it." in said["sentences"]
    assert not (run / "supernet.safetensors").exists()


def test_a_rule_of_another_kind_of_budget_is_said_to_be_one(searched, cli, tmp_path):
    out = tmp_path / "rule.json"
    assert cli("rules", "fit", searched, "-o", out)[0] == 0
    assert json.loads(out.read_text())["evidence"]["budget"] == "macs=0.4"  # the run's own
    asked = ["transfer", out, "-m", "vgg13", "-d", "digits", "--image-size", "16"]
    said = "was found under macs=0.4, and is used for params=0.2"
    for budget, expected in (("macs=0.2", False), ("params=0.2", True)):
        code, told, err = cli(*asked, "-b", budget)
        assert code == 0, err
        assert (said in told) == expected
    code, told, err = cli("transfer", searched / "rule.json", *asked[2:], "-b", "params=0.2")  # a run's own file
    assert said in told, err
    run = tmp_path / "run"  # said again when the run goes on, and not of another target of its prior.json
    command = arguments(run, prior=out, budget="params=0.2", trials=0, arms="transferred,uniform", seeds=1)
    for _ in range(2):
        code, _, err = cli(*command)
        assert (code, said in " ".join(err.split())) == (0, True), err
    code, told, err = cli("transfer", run / "prior.json", *asked[2:], "-b", "macs=0.3")
    assert (code, "was found under" in told) == (0, False), err


def test_rules_are_fitted_on_several_runs_and_say_how_far_they_agree(searched, cli, tmp_path):
    out = tmp_path / "rule.json"
    code, said, err = cli("rules", "fit", searched, searched, "-o", out)
    assert code == 0, err
    assert "spread 0.00 over 2 patterns" in said
    made = json.loads(out.read_text())
    assert made["fit"]["spread"] == [0.0] * 5
    code, _, err = cli("transfer", out, "-m", "vgg13", "-d", "digits")
    assert code == 0, err
    other = tmp_path / "other.csv"
    rows = [f"s{i},{i},0.5,64,{width}" for i, width in enumerate((8, 16, 24, 32, 40))]
    other.write_text("\n".join(["slot,stage,depth,ceiling,width", *rows]) + "\n")
    code, said, err = cli("rules", "fit", searched, other, "-o", out)
    assert code == 0, err
    assert "of different networks, whose stages' mean keep ratios deviate by 0." in said
    assert "under different budgets, each under its first (macs=0.4)" in said


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        ("slot,width\nconv1_1,30\n", [], "Missing: stage, depth, ceiling (or name its network: --source-model)"),
        ("slot,width\nconv1_1,30\n", ["--source-model", "vgg11"], "'conv2_1' is missing"),
        ("slot,width\nconv1_9,30\n", ["--source-model", "vgg11"], "Did you mean conv1_1"),
        ("slot,width\nconv1_1,3o\n", ["--source-model", "vgg11"], "'3o' is not a whole number"),
        ("slot,stage,depth,ceiling,width\na,0,0.5,64,65\n", [], "line 2: a width must lie in [1, ceiling]"),
        ("slot,stage,depth,ceiling,width\na,0,0.5,64,6\na,1,0.5,64,6\n", [], "names a slot twice"),
        ("", [], "is not a table"),
    ],
)
def test_tables_that_are_no_source(cli, tmp_path, lines, flags, message):
    path = tmp_path / "widths.csv"
    path.write_text(lines)
    code, _, err = cli("transfer", path, "-m", "vgg13", "-d", "digits", *flags)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.json", "there is no rule file"),
        ("runs/nowhere", "there is nothing at"),
        ("vgg16-cifar", "there is no run, rule file or published rule"),
    ],
)
def test_sources_that_are_not_there(cli, source, message):
    got, _, err = cli("transfer", source, "-m", "vgg13", "-d", "digits")
    assert got == 2
    assert message in " ".join(err.split())


def test_a_rule_that_is_none_and_a_budget_out_of_reach(rule, cli, tmp_path):
    code, _, err = cli("transfer", rule, "-m", "vgg13", "-d", "digits", "-b", "params=0.00001")
    assert code == 4
    assert "smallest vgg13 possible" in err
    rule.write_text('{"schema": 7}')
    code, _, err = cli("transfer", rule, "-m", "vgg13", "-d", "digits")
    assert code == 2
    assert "has schema 7" in err
    rule.write_text('{"schema"')
    for budget in ("params=0.5", "weights=0.5"):
        code, _, err = cli("transfer", rule, "-m", "vgg13", "-d", "digits", "-b", budget)
        assert code == 1
        assert "restore it from a copy, or fit the rule again" in " ".join(err.split())
    code, _, err = cli(*arguments(tmp_path / "run", prior=rule))
    assert code == 1
    assert not (tmp_path / "run").exists()


def test_published_rules_are_readable_and_say_where_they_helped(cli):
    code, out, err = cli("rules", "--json")
    assert code == 0, err
    found = {rule["name"]: rule for rule in json.loads(out)}
    assert {f"vgg19-cifar10-slimming{p}" for p in range(10, 80, 10)} <= set(found)
    assert "vgg16-cifar10-macs-params" in found
    for rule in found.values():
        assert rule["evidence"]["sources"]
        assert rule["evidence"]["n"] >= 1
        assert rule["evidence"]["helped"]
    code, out, _ = cli("rules")
    assert "Against the taper it is undecided" in " ".join(out.split())
    assert "where it did not help: At a fifth of the params, uniform scaling with the same macs" in out
    code, out, err = cli("transfer", "vgg19-cifar10-slimming70", "-m", "vgg19", "-d", "cifar10", "-b", "params=2.37M")
    assert code == 0, err
    assert "conv3_1 244" in out


def test_without_trials_a_search_only_prunes_and_compares_the_pruned_net(cli, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, trials=0, seeds=1, arms="pruned,uniform,base"))
    assert code == 0, err
    assert {row.arm for row in read_table(run / "finals.csv", Final)} == {
        "pruned",
        "uniform",
        "base",
    }
    assert json.loads((run / "verdict.json").read_text())[0]["subject"] == "pruned"
    asked = "transfer", run, "-m", "vgg13", "-d", "digits", "-b", "params=0.3"
    code, _, err = cli(*asked)
    assert (code, "supernet did not learn" in " ".join(err.split())) == (2, True)
    code, out, err = cli(*asked, "--allow-untrained")
    assert code == 0, err
    assert "supernet did not learn" in " ".join((out + err).split())


def test_a_table_of_several_budgets_is_a_source_again(cli, tmp_path):
    path, asked = tmp_path / "w.csv", ("-m", "vgg11", "-d", "digits")
    code, _, err = cli("transfer", "taper", *asked, "-b", "macs=0.4,params=0.2", "-b", "macs=0.5", "--out", path)
    assert code == 0, err
    assert path.read_text().splitlines()[0] == 'slot,stage,depth,ceiling,"macs=0.4,params=0.2",macs=0.5'
    code, out, err = cli("transfer", path, *asked, "-b", "macs=0.5", "--json")
    assert code == 0, err
    (target,) = json.loads(out)
    widths = {row["slot"]: int(row["macs=0.5"]) for row in csv.DictReader(path.open())}
    assert all(abs(target["widths"][slot] - width) <= 0.1 * width + 4 for slot, width in widths.items())
    code, _, err = cli("transfer", path, *asked, "-b", "params=0.3")
    assert code == 2
    assert "has widths for several budgets: macs=0.4,params=0.2 macs=0.5. It has none for params=0.3" in err
    code, _, err = cli("transfer", path, *asked, "-b", "params=0.3", "--source-budget", "macs=0.5")
    assert code == 0, err


def test_a_rule_of_unknown_budget_says_so(cli):
    code, out, err = cli("transfer", "vgg19-cifar10-slimming50", "-m", "vgg11", "-d", "digits", "-b", "macs=0.4")
    assert code == 0, err
    assert "It is not known under which budget vgg19-cifar10-slimming50 was found." in out.splitlines()[2]


def test_the_name_of_a_rule_in_the_place_of_a_command_is_explained(cli):
    code, _, err = cli("rules", "vgg16-cifar10-macs")
    assert code == 2
    assert "prune-nas transfer vgg16-cifar10-macs --model MODEL --dataset DATA --budget BUDGET" in err
    code, _, err = cli("rules", "vgg16-cifar10-mac")
    assert code == 2
    assert "vgg16-cifar10-macs" in err
    _, out, _ = cli("rules")
    assert out.count("old recipe") == 1
