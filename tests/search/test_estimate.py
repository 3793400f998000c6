"""What a search says that it will train, before it does."""

import json

import pytest

from prune_nas.design.ledger import train_macs
from prune_nas.design.records import Expense, read_table
from prune_nas.search.estimate import spoken
from tests.search.tiny import arguments

ARMS = "found,uniform,inherited"  # those of `searched`


def plan_of(cli, run, **changes):
    code, out, err = cli(*arguments(run, arms=ARMS, **changes), "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_dry_run_counts_what_the_run_then_trains(cli, tmp_path, searched):
    plan = plan_of(cli, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    spent = read_table(searched / "ledger.csv", Expense)
    planned = {
        phase: sum(step["trainings"] for step in plan["steps"] if step["phase"] == phase)
        for phase in ("supernet", "study", "finals")
    }
    trained = {phase: sum(e.trainings for e in spent if e.phase == phase) for phase in planned}
    assert planned["supernet"] == trained["supernet"] == 1
    assert planned["study"] >= trained["study"] >= planned["study"] - 2  # uniform may be among the best trials
    assert planned["finals"] >= trained["finals"]  # arms of one shape share a training
    (supernet,) = (step for step in plan["steps"] if step["phase"] == "supernet")
    assert supernet["train_macs"] == train_macs(supernet["macs"], plan["images"], 3)
    assert supernet["train_macs"] == sum(e.train_macs for e in spent if e.phase == "supernet")
    assert plan["train_macs"] == sum(step["train_macs"] for step in plan["steps"])
    assert plan["seconds"] == pytest.approx(sum(step["seconds"] for step in plan["steps"]))
    assert plan["seconds"] > 0


def test_of_a_finished_run_nothing_is_left_and_of_a_longer_one_the_rest(cli, searched):
    before = sorted(path.name for path in searched.iterdir())
    assert plan_of(cli, searched)["steps"] == []
    assert sorted(path.name for path in searched.iterdir()) == before
    _, out, _ = cli(*arguments(searched, arms=ARMS), "--dry-run")
    assert out == "nothing is left to train\n"
    more = plan_of(cli, searched, seeds=3)
    assert {step["phase"] for step in more["steps"]} == {"finals"}
    assert all(step["trainings"] == 1 for step in more["steps"])
    trials = plan_of(cli, searched, trials=6)
    first = next(step for step in trials["steps"] if step["phase"] == "study")
    assert (first["what"], first["trainings"]) == ("trial", 2)


def test_the_plan_in_words(cli, tmp_path):
    code, out, err = cli(*arguments(tmp_path / "new"), "--dry-run")
    assert code == 0, err
    assert "supernet: 1 x penalty l1, 3 epochs" in out
    assert "study macs=0.4: 4 x trial, 1 epochs" in out
    assert "finals: 2 x base scratch-e, 2 epochs" in out
    assert "trainings of the base: about " in out


def test_a_finished_run_is_estimated_at_nothing(cli, searched):
    code, _, err = cli(*arguments(searched, arms=ARMS))
    assert code == 0, err
    assert "everything is trained already" in err
    assert "estimate" not in err


def test_single_weights_have_no_dry_run(cli, tmp_path):
    code, _, err = cli(*arguments(tmp_path / "new", budget="weights=0.1", trials=0), "--dry-run")
    assert (code, "leave --dry-run out" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (150, "2 min"), (9000, "2.5 h")])
def test_times_are_spoken(seconds, said):
    assert spoken(seconds) == said
