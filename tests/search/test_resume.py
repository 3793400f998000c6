import json
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file, save_file

from prune_nas.design.records import Curve, Expense, Final, TrialRow, read_table
from prune_nas.design.space import Widths
from prune_nas.nets.specs import trace_spec
from prune_nas.pruning.importance import channel_scores
from prune_nas.search import pipeline, study, work
from prune_nas.training import loop
from tests.benchmarks.publish import publish
from tests.search.tiny import LEARNT, arguments, resuming

TRIALS = ("number", "state", "value", "widths", "epochs")
FINALS = ("arm", "candidate", "seed", "schedule", "val_accuracy", "test_accuracy")


def outcome(run):
    """Everything that the run found, without its seconds."""
    trials = [tuple(getattr(r, n) for n in TRIALS) for r in read_table(run / "trials.csv", TrialRow)]
    finals = [tuple(getattr(r, n) for n in FINALS) for r in read_table(run / "finals.csv", Final)]
    return trials, finals


class CutOffError(BaseException):
    """What a crash looks like from inside: nothing after it runs but `finally`."""


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 5])
def test_cut_off_after_any_epoch_it_ends_the_same_and_trains_nothing_twice(searched, tmp_path, monkeypatch, cli, every):
    run, done = tmp_path / "run", []
    real = loop._epoch

    def counted(*args):
        if len(done) % (every + 1) == every:  # the power fails during this epoch
            done.append("lost")
            raise CutOffError
        done.append("kept")
        return real(*args)

    monkeypatch.setattr(loop, "_epoch", counted)
    for _ in range(200):
        try:
            code, _, err = cli(*resuming(run, arms="found,uniform,inherited"))
        except CutOffError:
            continue
        assert code == 0, err
        break
    assert outcome(run) == outcome(searched)
    curves = read_table(run / "curves.csv", Curve)
    assert done.count("kept") == len(curves) == len(read_table(searched / "curves.csv", Curve))
    assert done.count("lost") > 2


def waits_for(run, phase):
    """Whether the phase's first epochs are on the disk, and its end is not."""
    try:
        rows = read_table(run / "curves.csv", Curve)
    except Exception:
        return False
    trained = {"supernet": [r for r in rows if r.trial == "supernet"],
               "study": [r for r in rows if r.trial.startswith(("trial", "finalist"))],
               "finals": [r for r in rows if "/" in r.trial]}  # fmt: skip
    return len(trained[phase]) >= {"supernet": 1, "study": 3, "finals": 5}[phase]


def test_killed_in_each_phase_it_ends_as_if_it_had_not_been(searched, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *resuming(run, arms="found,uniform,inherited")]
    for phase in ("supernet", "study", "finals"):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not waits_for(run, phase):
            assert process.poll() is None, f"it ended before it could be killed in {phase}"
            time.sleep(0.02)
        process.kill()
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert outcome(run) == outcome(searched)
    epochs = [(r.budget, r.trial, r.epoch) for r in read_table(run / "curves.csv", Curve)]
    assert len(epochs) == len(set(epochs))
    assert list((run / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_told_to_terminate_it_ends_as_by_ctrl_c(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *resuming(run, arms="found,uniform,inherited")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not waits_for(run, "study"):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.endswith("Interrupted. Repeat the command to continue: finished trainings stay finished.\n")


def test_running_a_finished_search_again_trains_nothing(searched, monkeypatch, cli):
    before = outcome(searched)

    def never(*_):
        raise AssertionError("a finished search trained again")

    monkeypatch.setattr(loop, "_epoch", never)
    assert cli(*resuming(searched, arms="found,uniform,inherited"))[0] == 0
    assert outcome(searched) == before


def test_more_of_everything_can_be_asked_for_later(searched, cli):
    trials, finals = outcome(searched)
    more = {"trials": 5, "seeds": 3, "arms": "found,uniform,taper", "schedules": "scratch-e,scratch-b"}
    code, _, err = cli(*resuming(searched, **more))
    assert code == 0, err
    trials_now, finals_now = outcome(searched)
    short, short_now = (
        [t for t in ts if t[4] < LEARNT["epochs"]] for ts in (trials, trials_now)
    )  # the first rung: one epoch
    assert short_now[: len(short)] == short
    assert len([t for t in short_now if t[1] != "REPEAT"]) == 5
    assert finals_now[: len(finals)] == finals
    assert {(row[0], row[3]) for row in finals_now} >= {("taper", "scratch-e"), ("found", "scratch-b")}
    assert {row[2] for row in finals_now} == {1000, 1001, 1002}
    assert len({row[1] for row in finals_now if row[0] == "found"}) == 1


def test_a_better_candidate_replaces_found_and_its_weights(searched, cli, monkeypatch):
    """More trials may find a better net: the rows of the former one no longer count, and best.* are the new one's."""
    first = read_table(searched / "finals.csv", Final)
    real = study.best
    old = {row.candidate for row in first if row.arm == "found"}
    other = next(t[3] for t in outcome(searched)[0] if Widths(json.loads(t[3])).digest not in old)
    monkeypatch.setattr(study, "best", lambda opened: Widths(json.loads(other)))
    assert cli(*resuming(searched, arms="found,uniform,inherited"))[0] == 0
    rows = read_table(searched / "finals.csv", Final)
    spec = json.loads((searched / "best.json").read_text())
    assert json.dumps(spec["widths"], separators=(",", ":")) == other
    assert {row.candidate for row in rows if row.arm == "found"} == {Widths(spec["widths"]).digest}
    assert len([row for row in rows if row.arm == "former found"]) == len([r for r in first if r.arm == "found"])
    traced, widths = trace_spec(spec)
    traced.build(widths, seed=0).load_state_dict(load_file(searched / "best.safetensors"))
    monkeypatch.setattr(study, "best", real)
    assert cli(*resuming(searched, arms="found,uniform,inherited"))[0] == 0
    back = read_table(searched / "finals.csv", Final)
    assert {r.candidate for r in back if r.arm == "found"} == {r.candidate for r in first if r.arm == "found"}


def test_scores_are_read_again_from_the_supernet(searched, monkeypatch, cli):
    before = (searched / "scores.safetensors").read_bytes()
    (searched / "scores.safetensors").unlink()
    monkeypatch.setattr(loop, "_epoch", lambda *_: pytest.fail("the supernet was trained again"))
    assert cli(*resuming(searched, arms="found,uniform,inherited"))[0] == 0
    assert (searched / "scores.safetensors").read_bytes() == before


def test_a_run_published_without_weights_can_be_extended(searched, monkeypatch, cli):
    publish(searched, searched.with_name("published"), ["prune-nas search"])
    searched = searched.with_name("published")
    assert not [p for p in searched.rglob("*.safetensors") if p.name != "scores.safetensors"]
    trained, real = [], loop._epoch
    monkeypatch.setattr(loop, "_epoch", lambda *args: trained.append(args[2].epochs) or real(*args))
    assert cli(*resuming(searched, seeds=3, arms="uniform"))[0] == 0
    rows = [r for r in read_table(searched / "finals.csv", Final) if r.arm.startswith("uniform") and r.seed == 1002]
    epochs = LEARNT["epochs"]
    assert trained == [epochs] * epochs * len({row.candidate for row in rows})  # one more seed
    assert not (searched / "supernet.safetensors").exists()
    assert "## Ledger" in (searched / "README.md").read_text()


def test_inherited_channels_are_those_of_the_supernet_at_hand(searched, monkeypatch, cli):
    """A supernet that was trained again may rank its channels otherwise: its own best ones are kept."""
    seen = []
    real = pipeline.inherit

    def watched(space, source, target, kept):
        scores = channel_scores(space, source)
        seen.append(all(min(scores[s][list(k)]) >= sorted(scores[s])[-len(k)] for s, k in kept.items()))
        return real(space, source, target, kept)

    monkeypatch.setattr(pipeline, "inherit", watched)
    net = load_file(searched / "supernet.safetensors")
    save_file(
        {k: v.flip(0).contiguous() if "norm" in k and v.ndim else v for k, v in net.items()},
        searched / "supernet.safetensors",
    )
    assert cli(*resuming(searched, seeds=3, arms="inherited"))[0] == 0
    assert seen
    assert all(seen)


def test_a_final_that_diverges_is_left_out_and_the_others_go_on(searched, monkeypatch, cli):
    real = work.train

    def unlucky(build, setting, recipe, *, seed, **options):
        if seed == 1002 and options["checkpoint"].name.startswith("final-found"):
            raise loop.DivergedError("training diverged in epoch 1")
        return real(build, setting, recipe, seed=seed, **options)

    monkeypatch.setattr(work, "train", unlucky)
    code, _, err = cli(*resuming(searched, seeds=3, arms="found,taper"))
    assert code == 0, err
    assert "failed and is left out" in err
    rows = read_table(searched / "finals.csv", Final)
    assert {row.arm for row in rows if row.seed == 1002} == {"taper"}
    (failure,) = json.loads((searched / "run.json").read_text())["failures"].values()
    assert (failure["arm"], failure["epochs"], failure["error"]) == ("found", 1, "training diverged in epoch 1")
    spent = {row.arm: row.trainings for row in read_table(searched / "ledger.csv", Expense) if row.phase == "finals"}
    assert spent["found"] == 3  # two of the run before, and the one that failed


def test_every_attempt_of_a_final_is_paid_for(searched, monkeypatch, cli):
    def full(*args, **options):
        raise loop.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(work, "train", full)
    for attempts in (1, 2):
        code, _, err = cli(*resuming(searched, seeds=3, arms="taper"))
        assert code == 0, err
        noted = json.loads((searched / "run.json").read_text())["failures"].values()
        assert {one["epochs"] for one in noted} == {attempts}


def test_a_supernet_that_is_trained_again_is_paid_for_again(searched, cli):
    before = json.loads((searched / "run.json").read_text())["supernet"]
    (searched / "supernet.safetensors").unlink()
    code, _, err = cli(*resuming(searched, seeds=3, arms="inherited"))
    assert code == 0, err
    assert json.loads((searched / "run.json").read_text())["supernet"]["train_macs"] == 2 * before["train_macs"]


def test_another_configuration_is_refused_and_the_difference_shown(searched, cli):
    before = outcome(searched)
    code, _, err = cli(*resuming(searched, epochs=3, seed=4))
    assert code == 2
    assert f"epochs: {LEARNT['epochs']} there, 3 now" in err
    assert "seed: 0 there, 4 now" in err
    assert outcome(searched) == before


def test_a_space_of_ones_own_goes_into_the_spec_and_a_change_of_it_is_refused(tmp_path, cli):
    file, run = tmp_path / "space.toml", tmp_path / "run"
    file.write_text('floor = 5\ntie = [["conv3_1", "conv3_2"]]\n')
    few = {"trials": 1, "seeds": 1, "arms": "found", "finalists": 0, "space": file}
    code, _, err = cli(*arguments(run, **few))
    assert code == 0, err
    spec = json.loads((run / "best.json").read_text())
    assert "conv3_2" not in spec["widths"]
    traced, widths = trace_spec(spec)
    assert traced.space.by_name["conv3_1"].layers == ("conv3_1", "conv3_2")
    traced.build(widths, seed=0).load_state_dict(load_file(run / "best.safetensors"))
    file.write_text("floor = 6\n")
    code, _, err = cli(*arguments(run, **few))
    assert code == 2
    assert "first difference: " in err
