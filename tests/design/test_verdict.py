from dataclasses import replace

import pytest

from prune_nas.design.budget import Limits
from prune_nas.design.learning import Chance
from prune_nas.design.records import Expense
from prune_nas.design.verdict import about_floors, about_shape, search_cost, verdict
from tests.design.finals import ROW, arm
from tests.design.spaces import vgg

WIDE = Limits((("macs", 100),))
WITHIN = ("found", "uniform", "taper", "random", "pruned")
TEN = Chance(0.1, 1000)
FOUND, UNIFORM = [0.78, 0.79, 0.8], [0.74, 0.751, 0.759]


def said_of(*groups, **changes):
    return verdict("macs=0.2", WIDE, [row for group in groups for row in group], WITHIN, **changes)


def test_headline_is_the_comparison_with_uniform_scaling():
    said = said_of(arm("found", FOUND), arm("uniform", UNIFORM))
    assert said["headline"].startswith("The found network is better than uniform scaling by 4.0 points (95 % CI")
    assert said["deploy"]["arm"] == "found"
    assert said["learnt"]


def test_equal_compute_is_asked_for_once_and_compared_where_it_was_trained():
    base = arm("base", [0.82, 0.82, 0.82], budget="", train_macs=1000)
    found, uniform = arm("found", FOUND), arm("uniform", UNIFORM)
    first = said_of(base, found, uniform)
    assert sum("--schedules scratch-b --arms found,uniform,taper" in s for s in first["sentences"]) == 1
    longer = arm("uniform", [0.82, 0.82, 0.82], schedule="scratch-b", epochs=60)
    second = said_of(base, found, uniform, longer)
    against = "Uniform scaling (scratch-b) is better than the found network (scratch-e)"
    assert any(s.startswith(against) for s in second["sentences"])
    assert second["deploy"]["schedule"] == "scratch-b"
    third = said_of(base, found, uniform, longer, arm("found", [0.84, 0.845, 0.85], schedule="scratch-b"))
    assert any(
        s.startswith("Uniform scaling (scratch-b) is worse than the found network (scratch-b)")
        for s in third["sentences"]
    )
    assert not any("(scratch-b)" in s and "found network (scratch-e)" in s for s in third["sentences"])
    assert {c["schedule"] for c in third["comparisons"]} >= {"scratch-e", "scratch-b", "scratch-b / scratch-e"}


def test_rivals_that_are_one_network_are_compared_once():
    twins = [arm(name, [0.7, 0.71, 0.73], candidate="x") for name in ("uniform", "taper")]
    said = said_of(arm("found", FOUND), *twins)
    assert [c["right"] for c in said["comparisons"]] == ["uniform"]


def test_seeds_that_are_enough_are_not_asked_for_again():
    said = said_of(arm("found", [0.790, 0.780, 0.800]), arm("uniform", [0.786, 0.779, 0.793]))  # 0.4, 0.1, 0.7 points
    assert not [s for s in said["sentences"] if "--seeds" in s]
    (about,) = [s for s in said["sentences"] if "undecided at n" in s]
    assert about == "1 comparison is undecided at n = 3, though n is enough to decide a difference of one point."


def test_more_seeds_are_asked_for_once_with_their_number():
    rivals = [arm(name, [0.79 - d, 0.78, 0.80 + d]) for name, d in (("uniform", 0.001), ("taper", 0.02))]
    said = said_of(arm("found", FOUND), *rivals)
    (asked,) = [s for s in said["sentences"] if "--seeds" in s]
    assert asked.startswith("2 comparisons are undecided at n = 3.")
    single = said_of(arm("found", FOUND[:1]), arm("uniform", UNIFORM[:1]))
    (asked,) = [s for s in single["sentences"] if "--seeds" in s]
    assert asked == "1 comparison is undecided at n = 1. Repeat the command with --seeds 3 or more."


def test_the_search_costs_the_probe_the_supernet_and_the_study_of_its_budget():
    spent = [Expense("", "probe", "", 0, 10, 0.5), Expense("", "supernet", "", 1, 1500, 1.0),
             Expense("macs=0.2", "study", "", 2, 1500, 2.0), Expense("other", "study", "", 2, 9000, 1.0)]  # fmt: skip
    assert search_cost("macs=0.2", spent) == (3010, 3.5, "choice of the optimiser, supernet, study")
    assert search_cost("macs=0.2", spent[1:2]) == (1500, 1.0, "supernet")


@pytest.mark.parametrize(
    ("uniform", "said"), [([0.77, 0.80, 0.79], True), ([0.85, 0.86, 0.88], True), ([0.70, 0.711, 0.719], False)]
)
def test_a_transfer_that_gained_nothing_says_so(uniform, said):
    headline = said_of(arm("transferred", FOUND), arm("uniform", uniform), subject="transferred")["headline"]
    assert ("No gain over uniform scaling was shown" in headline) == said


def test_floors_that_decide_are_said():
    space = vgg(16)
    assert about_floors(space, space.base) == []
    (said,) = about_floors(space, space.narrowest)
    assert said.startswith("13 of 13 widths lie at their floor")


def test_the_unevenness_of_a_shape_is_said_in_percent():
    assert about_shape([0.2, 0.4], "found") == (
        "The layers of the found network keep 20 % to 40 % of their channels, 30 % on average."
    )


def test_a_search_that_ended_at_uniform_scaling_says_so_first():
    said = said_of(arm("found", FOUND, candidate="same"), arm("uniform", FOUND, candidate="same"))
    assert said["headline"].startswith("The search ended at uniform scaling")


def test_failures_are_said():
    said = said_of(arm("found", FOUND), arm("uniform", UNIFORM), failures={"taper/scratch-e/abc/1000": "diverged"})
    assert any("taper/scratch-e/abc/1000 failed" in s for s in said["sentences"])


def test_what_to_deploy_is_chosen_on_validation_alone():
    lucky = [replace(row, test_accuracy=0.99) for row in arm("taper", [0.5, 0.5])]
    assert said_of(lucky, arm("found", [0.7, 0.7]))["deploy"]["arm"] == "found"


def test_what_is_deployed_is_the_subject_unless_another_is_ahead_by_half_a_point():
    found, uniform = arm("found", [0.700, 0.700]), arm("uniform", [0.702, 0.702])
    chance = arm("random", [0.704, 0.704], candidate="x")
    assert said_of(found, uniform, chance)["deploy"]["arm"] == "found"
    assert said_of(found, uniform, chance, arm("taper", [0.71, 0.71]))["deploy"]["arm"] == "taper"
    assert said_of(uniform, chance, subject="pruned")["deploy"]["arm"] == "uniform"


def test_a_net_over_the_budget_is_compared_but_never_deployed_nor_the_headline():
    """Under params alone, the uniform net that matches found's macs has several times its parameters."""
    limits = Limits((("params", 50),))
    rows = [
        *arm("found", [0.70, 0.71, 0.72], params=50),
        *arm("uniform@macs", [0.80, 0.811, 0.823], params=250),
        *arm("uniform@params", [0.60, 0.611, 0.618], params=49),
    ]
    said = verdict(ROW.budget, limits, rows, {"found", "uniform@params"})
    assert said["headline"].startswith("The found network is better than uniform scaling with equal params")
    assert any("is worse than uniform scaling with equal macs" in s for s in said["sentences"])
    over = "Uniform scaling with equal macs is over the budget (250 of 50 params). It is a rival only, and never used."
    assert over in said["sentences"]
    assert said["deploy"]["arm"] == "found"


def test_test_accuracies_never_decide_what_is_deployed():
    nets = [("x", [0.8, 0.7]), ("y", [0.7, 0.8]), ("z", [0.75, 0.75])]
    rows = [r for name, accuracies in nets for r in arm("random", accuracies, candidate=name)]
    deployed = set()
    for shift in range(3):
        tests = [rows[(i + shift) % len(rows)].test_accuracy for i in range(len(rows))]
        moved = [replace(row, test_accuracy=a) for row, a in zip(rows, tests, strict=True)]
        deployed.add(str(said_of(moved)["deploy"]))
    assert len(deployed) == 1


def test_scratch_b_alone_is_compared_too():
    found = arm("found", [0.8, 0.81, 0.83], schedule="scratch-b")
    said = said_of(found, arm("uniform", [0.7, 0.72, 0.73], schedule="scratch-b"))
    assert said["headline"].startswith("The found network (scratch-b) is better than uniform scaling (scratch-b)")
    assert not any(sentence.startswith("Not tested") for sentence in said["sentences"])
    assert any(sentence.startswith("Not tested") for sentence in said_of(found)["sentences"])


def test_nets_that_learnt_nothing_are_neither_compared_nor_deployed():
    rows = [*arm("base", [0.1, 0.1], budget=""), *arm("found", [0.1, 0.11]), *arm("uniform", [0.1, 0.1])]
    withheld = said_of(rows, chance=TEN)
    assert withheld["headline"].startswith("Nothing can be compared")
    assert "The best has 10.5 % on validation, guessing gives 10.0 %" in withheld["headline"]
    assert (withheld["comparisons"], withheld["deploy"], withheld["learnt"]) == ([], None, False)
    assert said_of(rows, chance=Chance(0.01, 1000))["learnt"]  # of a hundred classes, a tenth is something


def test_of_uneven_classes_the_most_common_is_guessing():
    rows = [*arm("base", [0.6, 0.6], budget=""), *arm("found", [0.6, 0.6])]
    assert not said_of(rows, chance=Chance(0.6, 1000))["learnt"]


def test_one_net_that_learnt_nothing_is_not_deployed():
    """The found network guesses, and so does the unpruned one; uniform scaling learnt."""
    said = said_of(arm("found", [0.1, 0.1]), arm("uniform", [0.5, 0.5]), chance=TEN)
    assert said["deploy"]["arm"] == "uniform"


def test_widths_of_a_supernet_that_did_not_learn_are_never_deployed():
    noise = "The supernet did not learn."
    rows = [*arm("pruned", FOUND), *arm("uniform", UNIFORM)]
    said = said_of(rows, subject="pruned", chance=TEN, noise=noise)
    assert said["headline"].startswith(noise)
    assert said["deploy"]["arm"] == "uniform"
    assert said_of(arm("pruned", FOUND), subject="pruned", chance=TEN, noise=noise)["deploy"] is None
