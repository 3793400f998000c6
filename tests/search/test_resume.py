import subprocess
import sys
import time

import pytest

from prune_nas.design.records import Curve, Final, TrialRow, read_table
from prune_nas.training import loop
from tests.search.tiny import arguments

TRIALS = ("number", "state", "value", "widths", "epochs")
FINALS = ("arm", "candidate", "seed", "schedule", "val_accuracy", "test_accuracy")


def outcome(run):
    """Everything that the run found, without its seconds."""
    trials = [tuple(getattr(r, n) for n in TRIALS) for r in read_table(run / "trials.csv", TrialRow)]
    finals = [tuple(getattr(r, n) for n in FINALS) for r in read_table(run / "finals.csv", Final)]
    return trials, finals


class CutOffError(BaseException):
    """What a crash looks like from inside: nothing after it runs but `finally`."""


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
    for _ in range(100):
        try:
            code, _, err = cli(*arguments(run, arms="found,uniform,inherited"))
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
               "study": [r for r in rows if r.trial.isdigit()],
               "finals": [r for r in rows if "/" in r.trial]}  # fmt: skip
    return len(trained[phase]) >= {"supernet": 1, "study": 3, "finals": 5}[phase]


def test_killed_in_each_phase_it_ends_as_if_it_had_not_been(searched, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *arguments(run, arms="found,uniform,inherited")]
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


def test_running_a_finished_search_again_trains_nothing(searched, monkeypatch, cli):
    before = outcome(searched)

    def never(*_):
        raise AssertionError("a finished search trained again")

    monkeypatch.setattr(loop, "_epoch", never)
    assert cli(*arguments(searched, arms="found,uniform,inherited"))[0] == 0
    assert outcome(searched) == before


def test_more_of_everything_can_be_asked_for_later(searched, cli):
    trials, finals = outcome(searched)
    more = {"trials": 5, "seeds": 3, "arms": "found,uniform,taper", "schedules": "scratch-e,scratch-b"}
    code, _, err = cli(*arguments(searched, **more))
    assert code == 0, err
    trials_now, finals_now = outcome(searched)
    assert trials_now[: len(trials)] == trials
    assert len([t for t in trials_now if t[1] != "REPEAT"]) == 5
    assert finals_now[: len(finals)] == finals
    assert {(row[0], row[3]) for row in finals_now} >= {("taper", "scratch-e"), ("found", "scratch-b")}
    assert {row[2] for row in finals_now} == {1000, 1001, 1002}


def test_another_configuration_is_refused_and_the_difference_shown(searched, cli):
    before = outcome(searched)
    code, _, err = cli(*arguments(searched, epochs=3, seed=4))
    assert code == 2
    assert "epochs: 2 there, 3 now" in err
    assert "seed: 0 there, 4 now" in err
    assert outcome(searched) == before
