"""A training that stays at guessing stops the run; a supernet that dies is trained once more."""

import json
import math
from dataclasses import replace

import pytest
import torch

from prune_nas.config import Config
from prune_nas.design.learning import Chance
from prune_nas.design.records import Expense, Final, read_table
from prune_nas.pruning import penalties
from prune_nas.search.learning import NotLearntError, Watch
from prune_nas.search.work import Result, Workplace
from prune_nas.training.data.images import Images
from prune_nas.training.loop import Epoch
from tests.search.tiny import arguments

GUESSING, LOSS = 0.25, math.log(4)
LABELLED = Images(torch.zeros(32 * 32, 1, 1, 1, dtype=torch.uint8), torch.arange(32 * 32) % 4)
STUCK = '''
from torch import nn


class Stuck(nn.Module):
    """It tells nothing apart: its classes depend on no pixel."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, classes)

    def forward(self, x):
        return self.head(0 * self.norm(self.conv(x)).relu().mean((2, 3)))
'''


def watch(after):
    return Watch("supernet", after, Chance(GUESSING, 400), LOSS, "sgd, learning rate 0.1, batch 64", "a lower --lr")


def epoch(number, loss=LOSS, accuracy=GUESSING):
    return Epoch(number, loss, accuracy, 1.0)


def test_guessing_after_the_floor_is_an_error_that_says_what_was_tried():
    watching = watch(3)
    watching.see(epoch(1))
    watching.see(epoch(2))
    with pytest.raises(NotLearntError, match=r"25.0 % on validation after 3 epochs, guessing gives 25.0 %") as caught:
        watching.see(epoch(3))
    for part in ("Tried: sgd, learning rate 0.1, batch 64", "Try a lower --lr", "--image-size"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "learns", [{"accuracy": 0.4}, {"loss": 0.9 * LOSS}], ids=["better than guessing", "a falling training loss"]
)
def test_what_learnt_once_is_left_alone(learns):
    watching = watch(2)
    watching.see(epoch(1))
    watching.see(epoch(2, **learns))
    watching.see(epoch(3))


def test_a_training_too_short_to_tell_is_left_alone():
    watching = watch(None)
    for number in range(1, 50):
        watching.see(epoch(number))


@pytest.mark.parametrize(
    ("epochs", "steps", "after"),
    [(10, 0, 7), (10, 250, 8), (10, 2000, 10), (6, 0, None)],
    ids=["200 steps", "the preset's floor", "never after its end", "shorter than 200 steps"],
)
def test_the_floor_is_counted_in_steps(epochs, steps, after):
    class Data:
        train, classes, chance = LABELLED, "abcd", Chance(GUESSING, 400)

    config = Config(model="vgg11", dataset="digits", batch=32)
    assert Watch.of(config, Data, "supernet", epochs, steps).after == after


def test_what_is_tried_and_what_to_try_are_those_of_the_training():
    class Data:
        train, classes, chance = LABELLED, "abcd", Chance(GUESSING, 400)

    config = Config(model="vgg11", dataset="digits", batch=32, optimizer="adamw")
    plain, penalised = (Watch.of(config, Data, "x", 10, 0, penalty=name) for name in ("none", "l1"))
    assert plain.tried == "adamw, learning rate 0.002, batch 32"
    assert penalised.tried == plain.tried
    assert Watch.of(config, Data, "x", 10, 0, penalty="sss").tried == "sgd, learning rate 0.05, batch 32"
    assert ("--penalty none" in plain.remedy, "--penalty none" in penalised.remedy) == (False, True)
    assert plain.loss == pytest.approx(LOSS)


def test_one_long_epoch_is_measured_against_the_loss_of_guessing():
    """An epoch of thousands of steps has no epoch before it whose loss it could be below."""
    watching = watch(1)
    watching.see(epoch(1, loss=0.9 * LOSS))
    with pytest.raises(NotLearntError):
        watch(1).see(epoch(1))


def test_a_search_of_a_network_that_learns_nothing_stops_before_its_study(cli, tmp_path):
    (tmp_path / "net.py").write_text(STUCK)
    run = tmp_path / "run"
    asked = {"model": f"{tmp_path / 'net.py'}:Stuck", "base_width": 1, "epochs": 40, "supernet_epochs": 40}
    code, _, err = cli(*arguments(run, **asked))
    assert code == 1
    assert "the supernet does not learn: 10.0 % on validation after 34 epochs, guessing gives 10.0 %" in err
    assert "Traceback" not in err
    for name in ("trials.csv", "finals.csv", "best.json", "deploy.json"):
        assert not (run / name).exists()
    code, _, err = cli(*arguments(tmp_path / "other", **asked, penalty="none", prior="taper"))  # without a supernet
    assert code == 1
    assert "does not learn" in err
    assert not (tmp_path / "other" / "deploy.json").exists()


def test_nothing_untrained_is_named_to_be_used(cli, tmp_path):
    """Trainings that are too short to tell run to their end, and say that nothing can be compared."""
    run = tmp_path / "run"
    code, out, err = cli(*arguments(run, trials=0, seeds=1, arms="pruned,uniform,base", epochs=1, supernet_epochs=1))
    assert code == 0, err
    (said,) = json.loads((run / "verdict.json").read_text())
    assert (said["learnt"], said["deploy"]) == (False, None)
    assert said["answer"]["file"] == ""
    assert not (run / "deploy.json").exists()
    assert "Nothing can be compared" in " ".join(out.replace("│", " ").split())
    (rule,) = json.loads((run / "rule.json").read_text())
    assert rule["learnt"] is False
    assert "did not learn" in rule["warning"]
    assert cli("report", run)[0] == 0
    page = (run / "report.html").read_text()
    assert "the supernet did not learn" in page
    assert "There is no network to use." in page
    assert "is the network to use" not in page


def test_a_supernet_whose_channels_all_die_is_trained_once_more_under_a_weaker_penalty(cli, tmp_path, monkeypatch):
    strengths, real = [], penalties.Pull._look

    def look(self, network):
        if self._done == 0:
            strengths.append(self._pressure.strength)
        if len(strengths) == 1 and self._done > 10:
            raise penalties.AllDeadError("99 % of its channels are dead after 11 steps")
        real(self, network)

    monkeypatch.setattr(penalties.Pull, "_look", look)
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, trials=0, seeds=1, arms="pruned,uniform"))
    assert code == 0, err
    assert strengths[1] == pytest.approx(strengths[0] / 5)
    assert "the penalty was too strong for the supernet (99 % of its channels are dead after 11 steps). The sup" in err
    (row,) = [row for row in read_table(run / "ledger.csv", Expense) if row.phase == "supernet"]
    record = json.loads((run / "run.json").read_text())
    assert row.train_macs == record["supernet"]["train_macs"]  # both trainings were paid for
    assert row.train_macs > 3 * 200 * 3 * record["subject"]["macs"]


def test_a_second_attempt_that_was_cut_off_goes_on_under_the_weaker_penalty(cli, tmp_path, monkeypatch):
    """The first attempt is not made again, and stays in the ledger."""
    begun, real = [], Workplace.perform

    def perform(self, training, on_epoch):
        if training.name == "supernet":
            begun.append(training.pressure.strength)
        if len(begun) == 1:
            return Result(None, 1, 1.0, error="99 % of its channels are dead", died=True)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(self, training, on_epoch)

    monkeypatch.setattr(Workplace, "perform", perform)
    run = tmp_path / "run"
    command = arguments(run, trials=0, seeds=1, arms="pruned,uniform")
    assert cli(*command)[0] == 130
    assert cli(*command)[0] == 0
    assert begun[1:] == pytest.approx([begun[0] / 5] * 2)
    (row,) = [row for row in read_table(run / "ledger.csv", Expense) if row.phase == "supernet"]
    record = json.loads((run / "run.json").read_text())
    assert row.train_macs == record["supernet"]["train_macs"] == 4 * 3 * 200 * record["subject"]["macs"]


def test_once_something_learnt_no_other_training_ends_the_run(cli, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(STUCK.replace("0 * ", ""))
    run = tmp_path / "run"
    asked = {"model": f"{tmp_path / 'net.py'}:Stuck", "base_width": 1, "epochs": 34, "supernet_epochs": 34,
             "train_size": 400, "trials": 0, "arms": "pruned,uniform", "seeds": 1, "penalty": "none"}  # fmt: skip
    code, _, err = cli(*arguments(run, **asked))
    assert code == 0, err
    assert json.loads((run / "run.json").read_text())["learnt"] is True
    monkeypatch.setattr(Watch, "see", lambda self, epoch: pytest.fail("it was watched again"))
    assert cli(*arguments(run, **{**asked, "seeds": 2}))[0] == 0


@pytest.mark.parametrize("guesses", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_supernet_that_guesses_at_its_end_is_trained_again_too(cli, tmp_path, monkeypatch, guesses):
    """Some of its channels may live, and its training loss may have fallen."""
    begun, real = [], Workplace.perform

    def perform(self, training, on_epoch):
        result = real(self, training, on_epoch)
        if training.name != "supernet":
            return result
        begun.append((training.pressure.strength, result.epochs))
        return replace(result, val_accuracy=0.1) if len(begun) <= guesses else result

    monkeypatch.setattr(Workplace, "perform", perform)
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, trials=0, seeds=1, arms="pruned,uniform", supernet_epochs=67))
    assert "(it ended at 10.0 % on validation, guessing gives 10.0 %). The supernet is trained again" in err
    (first, epochs), (second, again) = begun
    assert (first / second, epochs, again) == (pytest.approx(5), 67, 67)
    assert code == guesses - 1, err
    if guesses == 2:
        assert "the supernet: it ended at 10.0 % on validation, guessing gives 10.0 %. Use a weaker penalty" in err
        assert not (run / "finals.csv").exists()


def test_a_supernet_that_dies_twice_ends_the_run(cli, tmp_path):
    code, _, err = cli(*arguments(tmp_path / "run", strength=0.5, supernet_epochs=30))
    assert code == 1
    assert "of its channels are dead after" in err
    assert "Use a weaker penalty: --strength 0.02" in err
    assert not (tmp_path / "run" / "deploy.json").exists()


def test_rules_of_a_supernet_that_did_not_learn_are_refused_everywhere(cli, tmp_path):
    run = tmp_path / "run"
    assert cli(*arguments(run, trials=0, seeds=1, arms="pruned,uniform", epochs=1, supernet_epochs=1))[0] == 0
    for source in (run, run / "rule.json"):
        for command in (
            ["transfer", source, "-m", "vgg13", "-d", "digits", "-b", "macs=0.3"],
            ["rules", "fit", source, "-o", tmp_path / "rule.json"],
            arguments(tmp_path / "next", prior=source),
        ):
            if command[0] == "rules" and source != run:
                continue
            code, _, err = cli(*command)
            assert (code, "--allow-untrained" in err) == (2, True), command
    code, _, err = cli("rules", "fit", run, "-o", tmp_path / "rule.json", "--allow-untrained")
    assert code == 0, err
    fitted = json.loads((tmp_path / "rule.json").read_text())
    assert "did not learn" in json.dumps(fitted)
    code, _, err = cli("transfer", tmp_path / "rule.json", "-m", "vgg13", "-d", "digits", "-b", "macs=0.3")
    assert (code, "--allow-untrained" in err) == (2, True)  # the warning goes with the rule
    assert read_table(run / "finals.csv", Final)


@pytest.mark.parametrize(("best", "doubted"), [(0.12, True), (0.6, False)])
def test_trials_that_all_guess_are_said_to_be_in_no_order(monkeypatch, best, doubted):
    from types import SimpleNamespace

    from prune_nas.search import pipeline

    trials = [SimpleNamespace(value=value) for value in (0.09, best, None)]
    monkeypatch.setattr(pipeline.study, "trained", lambda _: trials)
    said = []
    job = SimpleNamespace(
        setting=SimpleNamespace(data=SimpleNamespace(chance=Chance(0.1, 250))),
        config=SimpleNamespace(trial_epochs=2),
        view=SimpleNamespace(say=said.append),
    )
    pipeline.Search._doubt_ranking(job, "macs=0.4", None)
    assert bool(said) is doubted
    if doubted:
        assert "no trial learnt anything (the best has 12.0 % on validation, guessing gives 10.0 %)" in said[0]
        assert said[0].endswith("Use --trial-epochs 8 or more")
