"""What a search says that it will train, before it does."""

import hashlib
import json

import pytest

from prune_nas.config import resolve
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import Expense, Final, read_table
from prune_nas.search import estimate
from prune_nas.search.estimate import spoken
from tests.search.tiny import LEARNT, arguments, resuming

ARMS = "found,uniform,inherited"  # those of `searched`


def planned(cli, run, **changes):
    code, out, err = cli(*resuming(run, **{"arms": ARMS, **changes}), "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)


def arms(plan, phase="finals"):
    return {(s["arm"], s["schedule"]): s["trainings"] for s in plan["steps"] if s["phase"] == phase}


def content(run):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in run.rglob("*") if p.is_file()}


def test_a_dry_run_counts_what_the_run_then_trains(cli, tmp_path, searched):
    plan = planned(cli, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    spent = read_table(searched / "ledger.csv", Expense)
    expected = {
        phase: sum(step["trainings"] for step in plan["steps"] if step["phase"] == phase)
        for phase in ("supernet", "study", "finals")
    }
    trained = {phase: sum(e.trainings for e in spent if e.phase == phase) for phase in expected}
    assert expected["supernet"] == trained["supernet"] == 1
    assert expected["study"] >= trained["study"] >= expected["study"] - 2  # uniform may be among the best trials
    assert expected["finals"] >= trained["finals"]  # arms of one shape share a training
    (supernet,) = (step for step in plan["steps"] if step["phase"] == "supernet")
    assert supernet["train_macs"] == train_macs(supernet["macs"], plan["images"], LEARNT["supernet-epochs"])
    assert supernet["train_macs"] == sum(e.train_macs for e in spent if e.phase == "supernet")
    assert plan["train_macs"] == sum(step["train_macs"] for step in plan["steps"])
    assert plan["seconds"] == pytest.approx(sum(step["seconds"] for step in plan["steps"]))
    assert plan["seconds"] > 0


def test_of_a_finished_run_nothing_is_left_and_of_a_longer_one_the_rest(cli, searched):
    before = content(searched)
    assert planned(cli, searched)["steps"] == []
    _, out, _ = cli(*resuming(searched, arms=ARMS), "--dry-run")
    assert out.splitlines()[-1] == "Nothing is left to train."
    more = planned(cli, searched, seeds=3)
    assert {step["phase"] for step in more["steps"]} == {"finals"}
    assert all(step["trainings"] == 1 for step in more["steps"])
    assert arms(planned(cli, searched, arms=f"{ARMS},base")) == {("base", "scratch-e"): 2}
    trials = planned(cli, searched, trials=6)
    first = next(step for step in trials["steps"] if step["phase"] == "study")
    assert (first["arm"], first["trainings"]) == ("trial", 2)
    assert ("inherited", "rewind") not in arms(trials)  # which more trials do not change
    assert content(searched) == before


def test_arms_of_one_shape_share_their_training(cli, searched):
    rows = read_table(searched / "finals.csv", Final)
    digests = {row.arm: row.candidate for row in rows}
    own = arms(planned(cli, searched, arms=f"{ARMS},pruned"))
    assert own == ({} if digests["inherited"] in (digests["found"], digests["uniform"]) else
                   {("pruned", "scratch-e"): 2})  # fmt: skip


def test_without_its_scores_a_run_trains_its_supernet_again(cli, searched):
    (searched / "scores.safetensors").unlink()
    assert ("supernet", "l1") in arms(planned(cli, searched), "supernet")
    code, _, err = cli(*resuming(searched, arms=ARMS))
    assert code == 0, err


def test_the_plan_in_words(cli, tmp_path):
    code, out, err = cli(*arguments(tmp_path / "new"), "--dry-run")
    assert code == 0, err
    assert "supernet: 1 network, l1, 3 epochs (18 steps)" in out
    assert "study macs=0.4: trial, 4 networks, scratch-e, 1 epoch (6 steps)" in out
    assert "finals: base, 1 network x 2 seeds, scratch-e, 2 epochs (12 steps)" in out
    assert "trainings of the unpruned network: about " in out


def test_where_no_run_may_lie_there_is_no_plan(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = cli(*arguments(tmp_path / "file"), "--dry-run")
    assert (code, "is a file" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    assert planned(cli, tmp_path / "empty")["steps"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_finished_run_is_estimated_at_nothing(cli, searched):
    code, _, err = cli(*resuming(searched, arms=ARMS))
    assert code == 0, err
    assert "everything is trained already" in err
    assert "estimate" not in err


def test_another_configuration_is_refused_by_the_run_s_name(cli, searched):
    code, _, err = cli(*resuming(searched, arms=ARMS, supernet_epochs=2), "--dry-run")
    assert code == 2
    assert f"{searched} was started with another configuration" in err


def test_no_more_time_is_planned_than_a_study_may_take(cli, tmp_path):
    plan = planned(cli, tmp_path / "new", timeout=0.001)
    (trials,) = (step for step in plan["steps"] if step["arm"] == "trial")
    assert trials["seconds"] == 0.001


def test_a_budget_that_binds_nothing_is_said_to(cli, tmp_path):
    _, _, err = cli(*arguments(tmp_path / "new", budget="macs=90M"), "--dry-run")
    assert "the unpruned network meets macs=90M already, so nothing becomes smaller" in err


def test_channels_that_are_shuffled_are_not_inherited(cli, tmp_path):
    asked = {"model": "torchvision:shufflenet_v2_x0_5", "base_width": 0.5, "image_size": 32, "trials": 0}
    plan = planned(cli, tmp_path / "new", **asked, finalists=0, arms="inherited,base")
    assert set(arms(plan)) == {("base", "scratch-e")}


def test_single_weights_have_no_dry_run(cli, tmp_path):
    code, _, err = cli(*arguments(tmp_path / "new", budget="weights=0.1", trials=0), "--dry-run")
    assert (code, "Leave it out under" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (150, "2 min"), (9000, "2.5 h")])
def test_times_are_spoken(seconds, said):
    assert spoken(seconds) == said


def test_the_advice_is_a_command_for_the_same_network(tmp_path, searched, cli):
    config = resolve({"model": "vgg11", "dataset": "digits", "preset": "smoke", "train_size": 300, "epochs": 4,
                      "budget": ("macs=0.4", "params=0.2")}, environment={})  # fmt: skip
    command = estimate._taper_command(config)
    assert command == (
        "prune-nas transfer taper -m vgg11 -d digits -b macs=0.4 -b params=0.2 --evaluate --preset smoke "
        "--train-size 300 --epochs 4 --schedules scratch-b --arms transferred,uniform,base"
    )
    _, _, err = cli(*resuming(searched, arms=ARMS, seeds=3))
    assert "advice:" not in err  # the search is over: only finals are left


def test_a_plan_says_what_it_leaves_out(tmp_path, cli):
    """The choice of the optimiser, the unpruned network where no arm is its, and the cheaper rival."""
    code, out, err = cli(*resuming(tmp_path / "new", arms="found,uniform"), "--dry-run")
    said = " ".join(err.split())
    assert code == 0, err
    assert "optimizer: sgd and adamw will be tried for 60 steps each on the unpruned network" in said
    assert "That costs as much as 1.2 of its training" in said  # 120 steps beside 7 epochs of 14
    assert "the unpruned network is not trained, since --arms does not name base" in said
    assert "prune-nas transfer taper -m vgg11 -d digits" in said
    assert "finalist, 2 networks x 2 seeds" in " ".join(out.split())


def test_a_batch_of_everything_is_remarked_on(tmp_path, cli):
    _, _, err = cli(*arguments(tmp_path / "new", batch=500), "--dry-run")
    assert "a batch of 500 takes all 200 training images" in err


def test_arms_of_one_network_share_their_trainings_in_a_plan(cli):
    asked = ("-m", "vgg11", "-d", "digits", "--preset", "smoke", "-b", "params=0.2", "--evaluate", "--dry-run")
    code, out, err = cli("transfer", "taper", *asked, "--arms", "transferred,taper,uniform", "--seeds", "3")
    assert code == 0, err
    assert "The taper is the same network as the transferred network under params=0.2. They share the trainings." in out
    assert "Together at most 6 trainings" in out
    assert "not known yet" not in out
    code, out, _ = cli(*asked[:0], "transfer", "taper", *asked, "--arms", "transferred,taper,uniform", "--json")
    macs = {step["arm"]: step["macs"] for step in json.loads(out)["steps"]}
    assert macs["transferred"] > 1.2 * macs["uniform"]  # not taken as uniform, which it is known not to be


def test_a_plan_says_what_networks_of_unknown_widths_may_cost(cli, tmp_path):
    _, out, _ = cli(*arguments(tmp_path / "run", budget="macs=0.4"), "--dry-run")
    assert out.splitlines()[-1].endswith("The budget bounds macs, so that they cost about as much.")
    _, out, _ = cli(*arguments(tmp_path / "run", budget="params=0.1"), "--dry-run")
    assert "The budget does not bound macs, so that they may cost up to " in out
