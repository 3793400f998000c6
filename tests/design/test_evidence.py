from dataclasses import replace

import pytest
from scipy import stats

from prune_nas.design.budget import Limits
from prune_nas.design.evidence import Comparison, compare, interval, per_seed, retire, summarise
from prune_nas.design.records import Expense, Final
from prune_nas.design.verdict import about_floors, about_search, unless_untrained, verdict
from tests.design.spaces import vgg

WIDE = Limits((("macs", 100),))
WITHIN = ("found", "uniform", "taper", "random")
ROW = Final("macs=0.2", "found", "", "", "aaaa", 0, "scratch-e", 12, 10, 5, 0.7, 0.7, 300, 1.0)


def arm(name, accuracies, **changes):
    """Rows of one arm over seeds 0, 1, ..."""
    return [
        replace(ROW, arm=name, seed=seed, test_accuracy=a, val_accuracy=a, candidate=changes.get("candidate", name), **{
            k: v for k, v in changes.items() if k != "candidate"})
        for seed, a in enumerate(accuracies)
    ]  # fmt: skip


def test_interval_is_the_paired_t_interval_of_scipy():
    ours, theirs = [0.78, 0.79, 0.77, 0.80], [0.76, 0.78, 0.77, 0.77]
    got = compare(arm("found", ours), arm("uniform", theirs))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert got.n == 4
    assert interval([0.1]) is None


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.001, 0.02, "beats"), (-0.02, -0.001, "loses"), (-0.004, 0.003, "equivalent"), (-0.02, 0.01, "undecided")],
)
def test_outcomes(low, high, outcome):
    assert Comparison("a", "b", "scratch-e", 3, (low + high) / 2, low, high).outcome == outcome


def test_sentences_carry_size_interval_and_n():
    beats = Comparison("found", "uniform", "scratch-e", 3, 0.013, 0.006, 0.02)
    assert beats.sentence() == "found beats uniform by 1.3 points (95 % CI +0.6 to +2.0, n=3)"
    single = Comparison("found", "uniform", "scratch-e", 1, 0.013, None, None)
    assert "run more seeds" in single.sentence()
    wide = Comparison("found", "uniform", "scratch-e", 2, -0.14, -1.0, 0.86)
    assert wide.sentence() == "found against uniform is undecided: -14.0 points, too few (n=2); run more seeds"


def test_only_shared_seeds_are_compared():
    ours = arm("found", [0.7, 0.8])
    assert compare(ours, arm("uniform", [0.6])[:1]).n == 1
    assert compare(ours, [replace(row, seed=row.seed + 9) for row in arm("uniform", [0.6])]) is None


def test_random_counts_by_seed_the_medians_and_the_best_by_validation():
    rows = [
        replace(row, test_accuracy=a, val_accuracy=v)
        for name, tests, vals in (
            ("x", (0.5, 0.7), (0.9, 0.9)),
            ("y", (0.6, 0.5), (0.1, 0.1)),
            ("z", (0.9, 0.6), (0.2, 0.2)),
        )
        for row, a, v in zip(arm("random", tests, candidate=name), tests, vals, strict=True)
    ]
    assert [row.test_accuracy for row in per_seed(rows).values()] == [0.6, 0.6]
    assert [row.test_accuracy for row in per_seed(rows[:4]).values()] == pytest.approx(
        [0.55, 0.6]
    )  # of two: their mean
    table = {s.arm: s for s in summarise(rows)}
    assert table["random"].candidates == 3
    assert table["random"].n == 2
    assert table["random (best)"].test_accuracy == pytest.approx(0.6)  # x: the best on validation, not on test


def test_rows_of_replaced_candidates_are_kept_out_of_every_summary():
    rows = [*arm("found", [0.7, 0.8], candidate="old"), *arm("found", [0.9, 0.9], candidate="new")]
    current = retire(rows, {"macs=0.2": {"found": {"new"}}})
    assert [row.arm for row in current] == ["former found", "former found", "found", "found"]
    assert [s.test_accuracy for s in summarise(current)] == [0.9]
    assert retire(current, {"macs=0.2": {"found": {"new"}}}) == current


def test_spread_is_the_sample_standard_deviation():
    summary = summarise(arm("found", [0.7, 0.8, 0.9]))[0]
    assert summary.std == pytest.approx(0.1)
    assert summarise(arm("found", [0.7]))[0].std is None


def test_the_same_network_is_not_called_a_draw():
    same = compare(arm("found", [0.7, 0.8], candidate="x"), arm("uniform", [0.7, 0.8], candidate="x"))
    assert same.outcome == "same"
    assert "is the uniform net" in same.sentence()


def test_verdict_says_what_equal_compute_changes_and_what_the_search_cost():
    base = arm("base", [0.82, 0.82, 0.82], budget="", train_macs=1000)
    rows = [*base, *arm("found", [0.78, 0.79, 0.8]), *arm("uniform", [0.74, 0.751, 0.759])]
    spent = [Expense("", "supernet", "", 1, 1500, 1.0), Expense("macs=0.2", "study", "", 2, 1500, 1.0),
             Expense("other", "study", "", 2, 9000, 1.0)]  # fmt: skip
    first = verdict("macs=0.2", WIDE, rows, 0.4, WITHIN)
    assert first["headline"].startswith("found beats uniform by 4.0 points")
    assert any("--schedules scratch-b" in s for s in first["sentences"])
    assert about_search("macs=0.2", 1000, spent) == [
        "the search (supernet and this budget's study) cost 3.0 trainings of the base"
    ]
    assert first["deploy"]["arm"] == "found"
    longer = arm("uniform", [0.82, 0.82, 0.82], schedule="scratch-b", epochs=60)
    second = verdict("macs=0.2", WIDE, [*rows, *longer], 0.4, WITHIN)
    assert any("uniform (scratch-b)" in s and "found (scratch-e)" in s for s in second["sentences"])
    assert second["deploy"]["schedule"] == "scratch-b"
    tapered = arm("taper", [0.83, 0.831, 0.829], schedule="scratch-b", epochs=60)
    plain = verdict("macs=0.2", WIDE, [*rows, *tapered], 0.4, WITHIN)
    assert any(s.startswith("taper (scratch-b) beats found (scratch-e)") for s in plain["sentences"])
    both = [*longer, *arm("found", [0.84, 0.845, 0.85], schedule="scratch-b")]
    third = verdict("macs=0.2", WIDE, [*rows, *both], 0.4, WITHIN)
    assert any(s.startswith("uniform (scratch-b) loses to found (scratch-b)") for s in third["sentences"])
    assert not any(
        "uniform (scratch-b)" in s and "found (scratch-e)" in s for s in third["sentences"]
    )  # unequal compute
    assert {c["schedule"] for c in third["comparisons"]} >= {"scratch-e", "scratch-b", "scratch-b / scratch-e"}


@pytest.mark.parametrize(
    ("uniform", "said"), [([0.77, 0.80, 0.79], True), ([0.85, 0.86, 0.87], True), ([0.70, 0.711, 0.719], False)]
)
def test_a_transfer_that_gained_nothing_says_so(uniform, said):
    rows = [*arm("transferred", [0.78, 0.79, 0.8]), *arm("uniform", uniform)]
    headline = verdict("macs=0.2", WIDE, rows, 0.4, WITHIN, subject="transferred")["headline"]
    assert ("no gain over uniform scaling was shown" in headline) == said


def test_floors_that_decide_are_said():
    space = vgg(16)
    assert about_floors(space, space.base) == []
    (said,) = about_floors(space, space.narrowest)
    assert said.startswith("13 of 13 slots lie at their floor")


def test_a_shape_that_is_uniform_but_for_its_floors_is_no_shape():
    rows = [*arm("found", [0.7, 0.71]), *arm("uniform", [0.7, 0.71])]
    rows = [replace(row, candidate="same") for row in rows]
    said = verdict("macs=0.2", WIDE, rows, 0.3, WITHIN)["sentences"]
    assert any(
        "non-uniformity of the found shape: 0.30" in s and "it is the uniform net all the same" in s for s in said
    )


def test_failures_are_said():
    rows = [*arm("found", [0.7, 0.71]), *arm("uniform", [0.6, 0.61])]
    said = verdict("macs=0.2", WIDE, rows, 0.0, WITHIN, {"taper/scratch-e/abc/1000": "diverged"})
    assert any("taper/scratch-e/abc/1000 failed" in s for s in said["sentences"])


def test_what_to_deploy_is_chosen_on_validation_alone():
    lucky = [replace(row, test_accuracy=0.99) for row in arm("taper", [0.5, 0.5])]
    assert verdict("macs=0.2", WIDE, [*lucky, *arm("found", [0.7, 0.7])], 0.0, WITHIN)["deploy"]["arm"] == "found"


def test_what_is_deployed_is_the_subject_unless_another_is_ahead_by_half_a_point():
    rows = [
        *arm("found", [0.700, 0.700]),
        *arm("uniform", [0.702, 0.702]),
        *arm("random", [0.704, 0.704], candidate="x"),
    ]
    said = verdict("macs=0.2", WIDE, rows, 0.0, {*WITHIN, "random"})
    assert said["deploy"]["arm"] == "found"
    ahead = [*rows, *arm("taper", [0.71, 0.71])]
    assert verdict("macs=0.2", WIDE, ahead, 0.0, {*WITHIN, "random"})["deploy"]["arm"] == "taper"
    alike = [row for row in rows if row.arm != "found"]
    assert verdict("macs=0.2", WIDE, alike, 0.0, {*WITHIN, "random"}, subject="pruned")["deploy"]["arm"] == "uniform"


def test_a_net_over_the_budget_is_compared_but_never_deployed_nor_the_headline():
    """Under params alone, the uniform net that matches found's macs has several times its parameters."""
    limits = Limits((("params", 50),))
    rows = [
        *arm("found", [0.70, 0.71], params=50),
        *arm("uniform@macs", [0.80, 0.811], params=250),
        *arm("uniform@params", [0.60, 0.611], params=49),
    ]
    said = verdict(ROW.budget, limits, rows, 0.4, {"found", "uniform@params"})
    assert said["headline"].startswith("found beats uniform@params")
    assert any("loses to uniform@macs" in s for s in said["sentences"])
    assert any(s.endswith("never to deploy: uniform@macs (250 params)") for s in said["sentences"])
    assert said["deploy"]["arm"] == "found"


def test_test_accuracies_never_decide_what_is_deployed():
    nets = [("x", [0.8, 0.7]), ("y", [0.7, 0.8]), ("z", [0.75, 0.75])]
    rows = [r for name, accuracies in nets for r in arm("random", accuracies, candidate=name)]
    deployed = set()
    for shift in range(3):
        tests = [rows[(i + shift) % len(rows)].test_accuracy for i in range(len(rows))]
        moved = [replace(row, test_accuracy=a) for row, a in zip(rows, tests, strict=True)]
        deployed.add(str(verdict("macs=0.2", WIDE, moved, 0.0, WITHIN)["deploy"]))
    assert len(deployed) == 1


def test_scratch_b_alone_is_compared_too():
    rows = [*arm("found", [0.8, 0.81], schedule="scratch-b"), *arm("uniform", [0.7, 0.72], schedule="scratch-b")]
    said = verdict("macs=0.2", WIDE, rows, 0.0, WITHIN)
    assert said["headline"].startswith("found (scratch-b) beats uniform")
    assert not any("was not trained here" in sentence for sentence in said["sentences"])
    without = verdict("macs=0.2", WIDE, arm("found", [0.8, 0.81], schedule="scratch-b"), 0.0, WITHIN)
    assert any("add it with --schedules scratch-b" in sentence for sentence in without["sentences"])


def test_nets_that_learnt_nothing_are_not_called_equivalent():
    rows = [*arm("base", [0.1, 0.1], budget=""), *arm("found", [0.1, 0.11]), *arm("uniform", [0.1, 0.1])]
    said = verdict("macs=0.2", WIDE, rows, 0.0, WITHIN)
    withheld = unless_untrained(said, rows, 10)
    assert withheld["headline"].startswith("nothing can be compared")
    assert "the best has 10.5 %, guessing 10.0 %" in withheld["headline"]
    assert (withheld["comparisons"], withheld["deploy"]) == ([], None)
    assert unless_untrained(said, rows, 100) == said  # of a hundred classes, a tenth is something
    assert unless_untrained(said, [], 10) == said


def test_equal_differences_of_other_numbers_give_no_interval():
    """Floats differ by rounding where the numbers of images agree; a few such seeds are chance, not certainty."""
    pairs = ((4000, 3950), (3900, 3850), (4100, 4050))
    assert interval([a / 5000 - b / 5000 for a, b in pairs]) is None
    assert interval([0.01, 0.02]) == pytest.approx((0.015 - 0.0635, 0.015 + 0.0635), abs=1e-3)
    assert interval([-0.4, 0.6]) == (-1.0, 1.0)
