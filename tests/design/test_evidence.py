from dataclasses import replace

import pytest
from scipy import stats

from prune_nas.design.evidence import Comparison, compare, interval, per_seed, retire, seeds_needed, summarise
from tests.design.finals import arm

ONE = Comparison("found", "uniform", "scratch-e", 3, 0.013, 0.006, 0.02, left_macs=100, right_macs=101)


def test_interval_is_the_paired_t_interval_of_scipy():
    ours, theirs = [0.78, 0.79, 0.77, 0.80], [0.76, 0.78, 0.77, 0.77]
    got = compare(arm("found", ours), arm("uniform", theirs))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert got.n == 4


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.001, 0.02, "better"), (-0.02, -0.001, "worse"), (-0.004, 0.003, "equivalent"), (-0.02, 0.01, "undecided")],
)
def test_outcomes(low, high, outcome):
    assert Comparison("a", "b", "scratch-e", 3, (low + high) / 2, low, high).outcome == outcome


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_undecided_whatever_they_say(seeds):
    """Two differences of 14.0 and 14.1 points have a narrow interval by chance alone."""
    got = compare(arm("found", [0.80, 0.811][:seeds]), arm("uniform", [0.66, 0.67][:seeds]))
    assert (got.low, got.high, got.p, got.outcome) == (None, None, None, "undecided")
    assert "undecided" in got.sentence()
    assert f"(n = {seeds})" in got.sentence()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "The found network is better than uniform scaling by 1.3 points (95 % CI 0.6 to 2.0, n = 3)."),
        (
            {"difference": -0.013, "low": -0.02, "high": -0.006},
            "The found network is worse than uniform scaling by 1.3 points (95 % CI 0.6 to 2.0, n = 3).",
        ),
        (
            {"difference": 0.001, "low": -0.002, "high": 0.004},
            "The found network and uniform scaling are equivalent: +0.1 points (95 % CI -0.2 to 0.4, n = 3, within "
            "0.5 points).",
        ),
        (
            {"low": -0.01},
            "The found network against uniform scaling: undecided, +1.3 points (95 % CI -1.0 to 2.0, n = 3).",
        ),
        (
            {"low": None, "high": None, "n": 2},
            "The found network against uniform scaling: undecided, +1.3 points (n = 2).",
        ),
        (
            {"right": "taper (scratch-b)", "right_macs": 3_000_000, "left_macs": 2_000_000},
            "The found network is better than the taper (scratch-b) by 1.3 points (95 % CI 0.6 to 2.0, n = 3). The "
            "taper (scratch-b) has 150 % of the macs: 3.0M against 2.0M.",
        ),
    ],
)
def test_sentences(changes, sentence):
    assert replace(ONE, **changes).sentence() == sentence


@pytest.mark.parametrize(("right", "said"), [(1019, False), (1021, True), (981, False), (979, True)])
def test_macs_that_differ_by_more_than_two_percent_stand_in_the_sentence(right, said):
    assert ("of the macs" in replace(ONE, left_macs=1000, right_macs=right).sentence()) == said


def test_seeds_needed_is_where_the_interval_is_a_point_wide_on_each_side():
    """The oracle is the half width of Student's interval by its closed form."""
    spread = 0.0123
    needed = seeds_needed([replace(ONE, spread=spread), replace(ONE, spread=0.001)])

    def half(n):
        return stats.t.ppf(0.975, n - 1) * spread / n**0.5

    assert half(needed) <= 0.01 < half(needed - 1)
    assert seeds_needed([replace(ONE, spread=None)]) is None


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
    assert same.sentence() == ("The found network and uniform scaling have the same widths, so they were trained once.")


def test_equal_differences_of_other_numbers_give_no_interval():
    """Floats differ by rounding where the numbers of images agree; a few such seeds are chance, not certainty."""
    pairs = ((4000, 3950), (3900, 3850), (4100, 4050))
    assert interval([a / 5000 - b / 5000 for a, b in pairs]) is None
    assert interval([0.1]) is None
    assert interval([-0.4, 0.6, 0.1]) == (-1.0, 1.0)
    rows = arm("found", [a / 5000 for a, _ in pairs]), arm("uniform", [b / 5000 for _, b in pairs])
    assert "so no interval can be computed" in compare(*rows).sentence()


def test_macs_that_would_look_equal_have_a_second_digit():
    one = replace(ONE, left_macs=1_770_000, right_macs=1_820_000)
    assert one.sentence().endswith("has 103 % of the macs: 1.82M against 1.77M.")
