"""Comparisons of pruning methods, end to end: trained, pruned, trained again, resumed, extended, and told."""

import csv
import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from prune_nas.cli import run
from prune_nas.design.arms import training_of
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.records import Curve, Expense, Final, read_table
from prune_nas.design.space import Space
from prune_nas.search.finals import weights_of
from prune_nas.search.weights import load_weights

CASES = ("l1-norm=0.5", "thinet=0.5", "slimming=0.5", "sss=0.3", "magnitude=0.8")
SETTINGS = {
    "model": "vgg11", "dataset": "digits", "preset": "smoke", "base-width": 0.125, "image-size": 16,
    "train-size": 128, "val-size": 50, "epochs": 4, "seeds": 2, "precision": "fp32", "threads": 1,
    "arms": "pruned,uniform,base", "scratch-b-cap": 2, "cases": ",".join(CASES),
}  # fmt: skip

GATED = """
from torch import nn


class Gated(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.squeeze, self.excite, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1), nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.norm(self.one(x)).relu()
        return self.head((x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()).mean((2, 3)))
"""


def arguments(path, *, figures=False, **changes):
    settings = {**SETTINGS, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return [
        "compare",
        *(str(x) for k, v in settings.items() for x in (f"--{k}", v) if v is not None),
        *([] if figures else ["--no-figures"]),
        "--run",
        str(path),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "run"
    assert run(arguments(path, figures=True)) == 0
    return path


@pytest.fixture
def compared(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def rows_of(path):
    return read_table(path / "finals.csv", Final)


def nets_of(path):
    return {(net["case"], net["seed"]): net for net in json.loads((path / "pruned.json").read_text())["nets"]}


def test_every_case_has_every_schedule_on_every_seed(finished):
    rows = rows_of(finished)
    pruned = [row for row in rows if row.arm == "pruned"]
    assert {(r.budget, r.schedule, r.seed) for r in pruned} == {
        (case, schedule, seed)
        for case in CASES
        for schedule in ("fine-tune", "rewind", "scratch-e", "scratch-b")
        for seed in (1000, 1001)
    }
    assert all(f"{row.method}={row.ratio}" == row.budget for row in rows if row.arm != "base")
    base = next(row for row in rows if row.arm == "base")
    assert (base.budget, base.method, base.ratio) == ("", "", "")
    for row in pruned:
        longer = min(scratch_b_epochs(4, base.macs, row.macs), 8)
        assert row.epochs == {"fine-tune": 1, "rewind": 4, "scratch-e": 4, "scratch-b": longer}[row.schedule]
        assert row.train_macs == 3 * row.macs * 128 * row.epochs
    assert {row.schedule for row in rows if row.arm.startswith("uniform")} == {"scratch-e", "scratch-b"}


def test_shapes_are_those_of_the_methods(finished):
    space = Space.from_dict(json.loads((finished / "space.json").read_text()))
    nets = nets_of(finished)
    channels = sum(slot.ceiling for slot in space.slots)
    for seed in (1000, 1001):
        half = {slot.name: max(slot.ceiling // 2, slot.floor) for slot in space.slots}
        assert [nets[f"{name}=0.5", seed]["widths"] for name in ("l1-norm", "thinet")] == [half] * 2
        slim = nets["slimming=0.5", seed]
        assert slim["removed"] == pytest.approx(1 - sum(slim["widths"].values()) / channels)
        assert slim["floored"] or slim["removed"] == pytest.approx((channels // 2 + 1) / channels)
        assert nets["magnitude=0.8", seed]["widths"] is None
        assert sum(map(sum, nets["magnitude=0.8", seed]["kept"].values())) == round(0.2 * 144_216)


def test_seeds_have_networks_and_shapes_of_their_own(finished):
    nets = nets_of(finished)
    assert nets["slimming=0.5", 1000]["widths"] != nets["slimming=0.5", 1001]["widths"]
    assert nets["magnitude=0.8", 1000]["masks"] != nets["magnitude=0.8", 1001]["masks"]


def test_what_is_kept_is_the_trained_networks(finished):
    """L1-norm: the narrow net's first filters are the widest net's with the largest norms, weights and all."""
    base = next(r for r in rows_of(finished) if r.arm == "base" and r.seed == 1000)
    whole = load_weights(finished / "weights" / weights_of(training_of(base)))
    left = load_weights(finished / "starts" / "l1-norm=0.5-1000.safetensors")
    name = next(name for name, value in whole.items() if value.ndim == 4)
    best = torch.sort(whole[name].abs().sum((1, 2, 3)).topk(len(left[name])).indices).values
    assert torch.equal(left[name], whole[name][best])


def test_masked_weights_never_revive(finished):
    nets = nets_of(finished)
    for row in (row for row in rows_of(finished) if row.budget == "magnitude=0.8" and row.arm == "pruned"):
        state = load_file(finished / "weights" / weights_of(training_of(row)))
        kept = {name: int((value != 0).sum()) for name, value in state.items() if value.ndim == 4}
        wanted = {f"{layer}.weight": sum(n) for layer, n in nets[row.budget, row.seed]["kept"].items()}
        assert kept == wanted, row


def test_equal_shapes_share_their_trainings_from_scratch_but_not_their_weights(finished):
    rows = {(r.budget, r.schedule): r for r in rows_of(finished) if r.arm == "pruned" and r.seed == 1000}
    for schedule in ("scratch-e", "scratch-b"):
        assert rows["l1-norm=0.5", schedule].test_accuracy == rows["thinet=0.5", schedule].test_accuracy
    trained = {curve.trial for curve in read_table(finished / "curves.csv", Curve)}
    for case in ("l1-norm=0.5", "thinet=0.5"):
        assert f"pruned/rewind/{rows[case, 'rewind'].candidate}/1000/{case}" in trained
    spent = {(e.budget, e.phase, e.arm): e.trainings for e in read_table(finished / "ledger.csv", Expense)}
    assert spent["l1-norm=0.5", "finals", "pruned"] == 8
    assert spent["thinet=0.5", "finals", "pruned"] == 4
    assert spent["", "supernet", "l1"] == spent["", "supernet", "sss-0.3"] == 2


def test_the_same_command_again_trains_nothing(compared, monkeypatch):
    from prune_nas.search import work

    before = {p: p.read_bytes() for p in compared.iterdir() if p.suffix in (".csv", ".json") and p.name != "run.json"}
    monkeypatch.setattr(work, "train", None)
    assert run(arguments(compared)) == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def test_more_cases_and_seeds_are_added_to_a_run(compared):
    before = rows_of(compared)
    assert run(arguments(compared, cases="l1-norm=0.3,slimming=0.5", seeds=3, schedules="scratch-e")) == 0
    after = rows_of(compared)
    assert after[: len(before)] == before
    added = {(r.budget, r.arm, r.schedule, r.seed) for r in after[len(before) :] if r.arm in ("pruned", "base")}
    assert added == {
        ("", "base", "scratch-e", 1002),
        *(("l1-norm=0.3", "pruned", "scratch-e", seed) for seed in (1000, 1001, 1002)),
        ("slimming=0.5", "pruned", "scratch-e", 1002),
    }
    assert json.loads((compared / "run.json").read_text())["config"]["cases"] == [*CASES, "l1-norm=0.3"]
    assert len(json.loads((compared / "verdict.json").read_text())) == len(CASES) + 1


def test_what_was_pruned_is_made_again_as_it_was(compared):
    nets = nets_of(compared)
    start = compared / "starts" / "slimming=0.5-1000.safetensors"
    before = start.read_bytes()
    start.unlink()
    (compared / "pruned.json").unlink()
    kept = [r for r in rows_of(compared) if (r.budget, r.schedule, r.seed) != ("slimming=0.5", "rewind", 1000)]
    from prune_nas.design.records import write_table

    lost = next(r for r in rows_of(compared) if (r.budget, r.schedule, r.seed) == ("slimming=0.5", "rewind", 1000))
    write_table(compared / "finals.csv", Final, kept)
    assert run(arguments(compared)) == 0
    assert nets_of(compared) == nets
    assert start.read_bytes() == before
    again = next(r for r in rows_of(compared) if (r.budget, r.schedule, r.seed) == ("slimming=0.5", "rewind", 1000))
    assert again.test_accuracy == lost.test_accuracy


@pytest.mark.slow
def test_published_results_go_on_without_weights(compared):
    """As a run kept without its weights: nothing is trained again but what new trainings start from."""
    for folder in ("weights", "starts", "origins"):
        shutil.rmtree(compared / folder)
    before = rows_of(compared)
    assert run(arguments(compared)) == 0
    assert not (compared / "origins").exists()
    assert run(arguments(compared, cases="l1-norm=0.3", schedules="rewind", arms="pruned", seeds=1)) == 0
    assert rows_of(compared)[: len(before)] == before
    (row,) = rows_of(compared)[len(before) :]
    assert (row.budget, row.schedule, row.seed) == ("l1-norm=0.3", "rewind", 1000)


def test_the_table_in_three_forms(finished):
    text = (finished / "table.md").read_text()
    head, _, *lines = [line for line in text.splitlines() if line.startswith("|")][: 2 + len(CASES)]
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "method", "ratio", "removed, %", "macs, %", "params, %",
        "Unpruned", "Fine-tuned", "Rewound", "Scratch-E", "Scratch-B",
    ]  # fmt: skip
    assert all("±" in line for line in lines)
    assert "after Holm's correction" in text
    tests = pd.Series([r.test_accuracy for r in rows_of(finished) if (r.budget, r.schedule) == ("sss=0.3", "rewind")])
    cell = f"{100 * tests.mean():.1f} ± {100 * tests.std():.1f}"
    assert lines[CASES.index("sss=0.3")].split("|")[8].strip() == cell
    with (finished / "table.csv").open() as file:
        numbers = {(r["method"], r["schedule"]): float(r["mean"]) for r in csv.DictReader(file)}
    assert numbers["sss", "rewind"] == pytest.approx(100 * tests.mean(), abs=1e-4)
    latex = (finished / "table.tex").read_text()
    assert latex.count(r"\\") == 1 + len(CASES)
    assert latex.count(" & ") == 9 * (1 + len(CASES))


def test_verdicts_are_corrected_for_all_pairs(finished):
    from prune_nas.design.case_verdicts import pairs_of
    from prune_nas.design.significance import holm

    said = json.loads((finished / "verdict.json").read_text())
    assert [one["budget"] for one in said] == list(CASES)
    told = {one["budget"]: one["comparisons"] for one in said if one["comparisons"]}  # withheld where nothing is learnt
    assert told
    pairs = pairs_of(rows_of(finished))
    own = [pair for pair in pairs if pair.comparison.p is not None and not pair.comparison.same and not pair.again]
    assert [pair.adjusted for pair in own] == pytest.approx(holm([pair.comparison.p for pair in own]))
    twins = [pair for pair in pairs if pair.again]  # L1-norm's and ThiNet's shapes are one
    assert {pair.case for pair in twins} == {"thinet=0.5"}
    for case, comparisons in told.items():
        assert [c["p_corrected"] for c in comparisons] == [pair.adjusted for pair in pairs if pair.case == case]


def test_figures_and_report(finished):
    for name in ("methods", "widths-1", "kernels"):
        assert (finished / "figures" / f"{name}.png").stat().st_size > 5_000
    page = (finished / "report.html").read_text()
    assert "<h2>The table</h2>" in page
    assert "The supernet" not in page
    assert page.count("non-uniformity of the pruned shape") <= len(CASES)


@pytest.mark.slow
def test_two_workers_do_what_one_does(finished, tmp_path):
    small = {"cases": "slimming=0.5,magnitude=0.8", "schedules": "rewind,scratch-e", "arms": "pruned"}
    assert run(arguments(tmp_path / "two", **small, workers=2)) == 0
    one = {(r.budget, r.arm, r.schedule, r.seed): r.test_accuracy for r in rows_of(finished)}
    for row in rows_of(tmp_path / "two"):
        assert one[row.budget, row.arm, row.schedule, row.seed] == row.test_accuracy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": "l1-norm=0"}, "above 0 and below 1"),
        ({"cases": "slimming=1"}, "above 0 and below 1"),
        ({"cases": "magnitude=1.5"}, "above 0 and below 1"),
        ({"cases": "l1-norm=A"}, "l1-norm does not fit vgg11 at ratio A"),
        ({"cases": "slimming=A"}, "above 0 and below 1"),
        ({"cases": "sss-blocks=0.5"}, "no block of vgg11 can go"),
        ({"cases": "slimmin=0.5"}, "Did you mean slimming"),
        ({"cases": "slimming"}, "written method=ratio"),
        ({"cases": "slimming=0.5", "methods": "sss"}, "Leave --methods and --ratios out"),
        ({"schedules": "scratch-c"}, "scratch-c"),
        ({"arms": "found,pruned"}, "a comparison's arms are"),
        ({"scratch-b-cap": 0.5}, "scratch-b-cap"),
        ({"model": "tests/search/bare.py:bare"}, "has a BatchNorm"),
    ],
)
def test_bad_input(cli, tmp_path, changes, message):
    import re

    code, _, err = cli(*arguments(tmp_path / "run", **changes))
    assert code == 2, err
    assert re.search(message, err), err
    assert not (tmp_path / "run").exists()


def test_a_ratio_at_which_layers_would_vanish_is_floored_and_said(tmp_path):
    path = tmp_path / "run"
    asked = arguments(path, cases="l1-norm=0.99,slimming=0.97,regression=0.97,magnitude=0.9999", seeds=1, epochs=1)
    assert run([*asked, "--schedules", "rewind,scratch-e"]) == 0
    for net in nets_of(path).values():
        assert net["widths"] is None or min(net["widths"].values()) >= 4
    said = json.loads((path / "verdict.json").read_text())
    floored = [net["case"] for net in nets_of(path).values() if net["floored"]]
    assert {"l1-norm=0.99", "slimming=0.97"} <= set(floored)
    assert len(said) == 4


def test_a_dry_run_of_the_papers_own_comparison(cli):
    """160 epochs, 40 of fine-tuning, and 243 of scratch-b for VGG-16-A (paper.md, section 4)."""
    asked = ["compare", "-m", "vgg16", "-d", "cifar10", "--recipe", "paper", "--cases", "l1-norm=A", "--dry-run"]
    code, out, err = cli(*asked, "--arms", "pruned,base", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert {step["schedule"]: step["epochs"] for step in plan["steps"] if step["arm"] == "pruned"} == {
        "fine-tune": 40, "rewind": 160, "scratch-e": 160, "scratch-b": 243,
    }  # fmt: skip
    assert {step["trainings"] for step in plan["steps"]} == {5}
    macs = sum(3 * 5 * step["epochs"] * step["macs"] * 45_000 for step in plan["steps"])
    assert plan["train_macs"] == macs
    assert plan["gpu_hours"] == pytest.approx(macs / plan["gpu"] / 3600)
    code, out, _ = cli(*asked)
    assert "5 x pruned scratch-b of l1-norm=A: 243 epochs" in out
    assert "GPU hours" in out


def test_where_every_network_diverges_it_says_so(cli, tmp_path):
    asked = arguments(tmp_path / "run", cases="l1-norm=0.5,slimming=0.5", lr=1e9, epochs=1, seeds=1)
    code, _, err = cli(*asked)
    assert code == 1
    assert "base scratch-e seed 1000 failed" in err
    assert "nothing could be pruned" in err
    assert "Traceback" not in err


def test_single_weights_alone(tmp_path):
    """No channels go, so there are no widths to write down or draw."""
    path = tmp_path / "run"
    asked = arguments(path, cases="magnitude=0.9", schedules="fine-tune", arms="pruned", seeds=1, epochs=1)
    assert run(asked) == 0
    assert not (path / "widths.csv").exists()
    assert {row.method for row in rows_of(path)} == {"magnitude", ""}


def test_what_failed_is_named_under_its_own_cases_and_not_tried_again(cli, tmp_path, monkeypatch):
    from prune_nas.search import work
    from prune_nas.training.loop import DivergedError

    real, asked = work.train, []

    def unlucky(build, setting, recipe, *, seed, checkpoint, **options):
        asked.append(checkpoint.name)
        if seed == 1001 and checkpoint.name.startswith(("origin-l1", "final-pruned-scratch-e")):
            raise DivergedError("training diverged in epoch 1")
        return real(build, setting, recipe, seed=seed, checkpoint=checkpoint, **options)

    monkeypatch.setattr(work, "train", unlucky)
    small = {"cases": "l1-norm=0.5,thinet=0.5,slimming=0.5", "schedules": "fine-tune,scratch-e", "arms": "pruned,base"}
    command = arguments(tmp_path / "run", **small, epochs=2)
    code, _, err = cli(*command)
    assert code == 0, err
    said = {one["budget"]: one["sentences"] for one in json.loads((tmp_path / "run" / "verdict.json").read_text())}
    shared, lost = "pruned scratch-e seed 1001 (", "network to prune (l1) seed 1001 failed"
    for case, sentences in said.items():
        text = "\n".join(sentences)
        assert (shared in text, lost in text) == ((False, True) if case == "slimming=0.5" else (True, False))
    spent = {(e.budget, e.arm): e.trainings for e in read_table(tmp_path / "run" / "ledger.csv", Expense)}
    assert (spent["l1-norm=0.5", "pruned"], spent["thinet=0.5", "pruned"]) == (4, 2)  # two fine-tunings each
    asked.clear()
    assert cli(*command)[0] == 0
    assert asked == []


def test_a_network_whose_cost_was_not_noted_yet_is_counted(compared, cli):
    """As if the process had died between its weights and its line in `run.json`."""
    record = json.loads((compared / "run.json").read_text())
    before = record["origins"].pop("origin/l1/1000")
    (compared / "run.json").write_text(json.dumps(record))
    nets = json.loads((compared / "pruned.json").read_text())
    nets["nets"] = [net for net in nets["nets"] if (net["case"], net["seed"]) != ("slimming=0.5", 1000)]
    (compared / "pruned.json").write_text(json.dumps(nets))
    assert cli(*arguments(compared))[0] == 0
    after = json.loads((compared / "run.json").read_text())["origins"]["origin/l1/1000"]
    assert after["train_macs"] == before["train_macs"]


def test_cases_may_stand_in_a_file_and_are_refused_where_nothing_is_compared(cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('cases = ["slimming=0.50", "l1-norm=0.3"]\nrecipe = "paper"\n')
    common = ["-m", "vgg11", "-d", "cifar10", "--config", file]
    code, out, err = cli("compare", *common, "--dry-run", "--json")
    assert code == 0, err
    steps = json.loads(out)["steps"]
    assert {step["case"] for step in steps} == {"", "slimming=0.5", "l1-norm=0.3"}
    assert max(step["epochs"] for step in steps if step["schedule"] == "scratch-e") == 160
    code, _, err = cli("search", *common)
    assert code == 2
    assert "cases are what `compare` compares" in err
    assert str(file) in err


def test_its_rules_can_be_transferred_one_by_one(finished, cli):
    asked = ["-m", "vgg13", "-d", "digits", "--image-size", 16, "-b", "macs=0.4"]
    code, _, err = cli("transfer", finished, *asked)
    assert code == 2
    assert "Each has its own rule" in err
    assert "rule.json with --source-budget l1-norm=0.5" in err.replace("\n", " ")
    code, out, err = cli("transfer", finished / "rule.json", "--source-budget", "slimming=0.5", *asked)
    assert code == 0, err
    code, out, _ = cli("status", finished)
    assert "cases l1-norm=0.5, thinet=0.5" in out
    assert "study" not in out.partition("skipped")[2]


def test_whole_blocks_go_and_what_is_left_can_be_used(cli, tmp_path):
    from prune_nas.nets.specs import load

    path = tmp_path / "run"
    asked = {"model": "resnet20", "base-width": 0.25, "cases": "sss-blocks=0.3", "schedules": "rewind,scratch-e"}
    code, _, err = cli(*arguments(path, **asked, arms="pruned,uniform", epochs=2, seeds=1, sss_strength=5))
    assert code == 0, err
    ((_, net),) = nets_of(path).items()
    empty = [slot for slot, width in net["widths"].items() if width == 0]
    assert len(empty) == 2  # 0.3 of nine blocks, whole ones
    assert (net["removed"], net["unit"]) == (2 / 9, "blocks")
    rows = {(row.arm, row.schedule): row for row in rows_of(path)}
    space = Space.from_dict(json.loads((path / "space.json").read_text()))
    assert rows["pruned", "rewind"].macs == space.cost(net["widths"]).macs < space.cost(space.base).macs
    network = load(path / "best.json")
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    assert sum(p.numel() for p in network.parameters()) == rows["pruned", "scratch-e"].params
    assert json.loads((path / "rule.json").read_text()) == []  # which blocks went is no share of channels
    code, _, err = cli("export", path / "best.json", "--format", "python", "--out", tmp_path / "out")
    assert code == 0, err


def test_seeds_that_are_added_later_are_pruned_from_networks_of_the_same_penalty(tmp_path):
    path = tmp_path / "run"
    asked = {"arms": "pruned", "schedules": "scratch-e", "seeds": 1, "epochs": 1}
    assert run(arguments(path, cases="slimming=0.3", **asked)) == 0
    assert json.loads((path / "run.json").read_text())["shares"] == {"l1": 0.3}
    assert run(arguments(path, cases="slimming=0.3,slimming=0.6", **{**asked, "seeds": 2})) == 0
    assert json.loads((path / "run.json").read_text())["shares"] == {"l1": 0.3}


def test_a_network_with_gates_is_compared_by_default(cli, tmp_path):
    """Slimming scores what has no BatchNorm by its weights; nothing that was not asked for ends the command."""
    (tmp_path / "net.py").write_text(GATED)
    command = ["compare", "-m", f"{tmp_path / 'net.py'}:Gated", "-d", "digits", "--train-size", 100, "--dry-run"]
    code, out, err = cli(*command)
    assert code == 0, err
    assert {"slimming=0.5", "l1-norm=0.5", "magnitude=0.5"} <= set((out + err).replace(":", " ").split())
