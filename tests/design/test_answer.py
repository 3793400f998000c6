from dataclasses import replace

import pytest

from prune_nas.design.answer import Answer, Timing, answer
from prune_nas.design.budget import Limits
from prune_nas.design.learning import Chance
from prune_nas.design.subject import Subject
from prune_nas.design.verdict import verdict
from tests.design.finals import arm

LIMITS = Limits((("macs", 100),))
SUBJECT = Subject("net.py:Mine", 1.0, "64x64", 50, 20, "folder:photos", 1500, 375, 600, 6)
NOISE = "The supernet did not learn."
KEEPS = {"found": (0.2, 0.8), "uniform": (0.4, 0.6)}
BASE = arm("base", [0.82, 0.83, 0.84], budget="", macs=50, params=20, train_macs=1500)
TIMES = {"base": Timing(4.0, 0.2), "found": Timing(1.0, 0.1), "uniform": Timing(2.0, 0.1)}


def of(*groups, subject="found", noise="", timings=TIMES, model="net.py:Mine", chance=0.1):
    finals = [row for group in (BASE, *groups) for row in group]
    said = verdict("macs=0.2", LIMITS, finals, ("found", "uniform", "pruned"), subject=subject,
                   chance=Chance(chance, 1000), noise=noise)  # fmt: skip
    return answer(
        said, finals, SUBJECT, file="macs-0.2/deploy.json", keeps=KEEPS, timings=timings,
        search=(3000, 90.0, "supernet, study"), noise=noise, model=model,
    )  # fmt: skip


def test_a_clear_win_in_six_lines():
    lines = of(arm("found", [0.78, 0.79, 0.80]), arm("uniform", [0.74, 0.751, 0.759])).lines("runs/a")
    assert lines == [
        "The found network. Use runs/a/macs-0.2/deploy.json",
        "Test accuracy 79.0 ± 1.0 % (n = 3, 12 epochs). The unpruned network has 83.0 ± 1.0 % (n = 3, 12 epochs).",
        "10 macs (20 %), 5 params (25 %), 1 ms (25 % of 4 ms).",
        "The found network is better than uniform scaling by 4.0 points (95 % CI 3.8 to 4.2, n = 3). Macs: 10 and 10.",
        "The search cost as much as 2.0 trainings of the unpruned network, 3.0k macs, "
        "2 min of training (supernet, study).",
        "Next: prune-nas export runs/a/macs-0.2/deploy.json --model net.py:Mine --format onnx",
    ]


def test_equal_networks_are_called_uniform_scaling():
    one = of(*(arm(name, [0.78, 0.79, 0.80], candidate="x") for name in ("found", "uniform")), model="")
    assert one.use == "The search found nothing better than uniform scaling: every layer at about 50 % of its width."
    assert one.sure == "It was compared with no other network of this budget."
    assert one.lines("runs/a b")[-1] == "Next: prune-nas export 'runs/a b/macs-0.2/deploy.json' --format onnx"


def test_uniform_scaling_that_is_better_on_validation_is_named_as_such():
    rows = arm("found", [0.70, 0.71, 0.72]), arm("uniform", [0.74, 0.751, 0.759]), arm("taper", [0.6, 0.61, 0.6])
    said = of(*rows)
    own = {row.val_accuracy for row in rows[1]}, {row.val_accuracy for row in rows[0]}
    ours, theirs = (f"{100 * sum(values) / len(values):.1f} %" for values in own)
    assert said.use == (
        "Uniform scaling: every layer at about 50 % of its width. On validation images it has "
        f"{ours}, the found network {theirs}."
    )
    assert said.sure.startswith("Uniform scaling is better than the found network by ")


def test_a_supernet_that_did_not_learn_is_the_headline():
    said = of(arm("pruned", [0.7, 0.7, 0.7]), arm("uniform", [0.6, 0.61, 0.6]), subject="pruned", noise=NOISE)
    assert said.use.startswith(NOISE)
    assert said.file
    none = of(arm("pruned", [0.7, 0.7, 0.7]), subject="pruned", noise=NOISE)
    assert none.file == ""
    assert none.lines("runs/a") == [f"{NOISE} No network is there to use.", none.search]


def test_networks_that_learnt_nothing_leave_nothing_to_use():
    said = of(arm("found", [0.1, 0.1, 0.1]), chance=0.9)
    assert said.file == ""
    assert said.use.startswith("Nothing can be compared")


@pytest.mark.parametrize("bad", [Timing(4.0, 4.0), Timing(4.0, 5.0), Timing(0.0, 0.0)])
def test_a_time_whose_spread_is_as_large_as_its_value_is_not_measured(bad):
    rows = arm("found", [0.78, 0.79, 0.80]), arm("uniform", [0.7, 0.7, 0.71])
    for timings in ({**TIMES, "found": bad}, {**TIMES, "base": bad}):
        assert "time not measured reliably" in of(*rows, timings=timings).cost
    assert "time not measured." in of(*rows, timings={}).cost


def test_the_rival_is_the_nearest_that_is_another_network_of_the_same_schedule():
    uniform = [replace(row, schedule="scratch-b") for row in arm("uniform", [0.7, 0.7, 0.71])]
    said = of(arm("found", [0.78, 0.79, 0.80]), uniform, arm("taper", [0.6, 0.61, 0.6], macs=8))
    assert said.sure.startswith("The found network is better than the taper")
    assert "80 % of the macs: 8 against 10" in said.sure


def test_round_trip():
    one = of(arm("found", [0.78, 0.79, 0.80]))
    assert Answer.from_dict(one.to_dict("runs/a")) == one


def test_where_nothing_was_searched_nothing_is_said_of_a_search():
    said = of(arm("uniform", [0.74, 0.751, 0.759]))
    assert said.use == "Uniform scaling, chosen by validation accuracy: every layer at about 50 % of its width."
