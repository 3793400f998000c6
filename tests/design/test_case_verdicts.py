"""What a comparison of pruning methods says: the right pairs, corrected for their number, no more than they show."""

import pytest
from scipy import stats

from prune_nas.design.case_verdicts import conclusions, pairs_of, verdicts
from prune_nas.design.cases import Net
from prune_nas.design.records import Final
from prune_nas.design.significance import holm
from prune_nas.design.space import Widths

BASE = (0.90, 0.91, 0.92)
TUNED = {"slimming=0.5": (0.80, 0.82, 0.81), "l1-norm=0.5": (0.85, 0.85, 0.85)}
SCRATCH = {"slimming=0.5": (0.84, 0.89, 0.87), "l1-norm=0.5": (0.84, 0.86, 0.85)}


def row(case, arm, schedule, seed, accuracy, candidate=""):
    method, _, ratio = case.partition("=")
    return Final(
        case, arm, method, ratio, candidate or f"{case}{arm}", seed, schedule, 4, 100, 10, accuracy, accuracy, 1, 1.0
    )


@pytest.fixture
def finals():
    rows = [row("", "base", "scratch-e", seed, accuracy) for seed, accuracy in enumerate(BASE)]
    for case in TUNED:
        for schedule, table in (("fine-tune", TUNED), ("scratch-e", SCRATCH)):
            rows += [row(case, "pruned", schedule, seed, accuracy) for seed, accuracy in enumerate(table[case])]
    return rows


def test_pairs_and_their_p_values(finals):
    pairs = {(pair.case, pair.left, pair.right): pair for pair in pairs_of(finals)}
    ours, tuned, base = ("pruned", "scratch-e"), ("pruned", "fine-tune"), ("base", "scratch-e")
    assert set(pairs) == {(case, ours, right) for case in TUNED for right in (tuned, base)}
    plain = {}
    for (case, _, right), pair in pairs.items():
        other = TUNED[case] if right == tuned else BASE
        plain[case, right] = stats.ttest_rel(SCRATCH[case], other).pvalue
        assert pair.comparison.p == pytest.approx(plain[case, right])
    assert [pair.adjusted for pair in pairs.values()] == pytest.approx(holm(list(plain.values())))


def test_a_sentence_says_significant_only_after_the_correction(finals):
    first = next(pair for pair in pairs_of(finals) if pair.case == "slimming=0.5")
    assert first.comparison.p < 0.05 < first.adjusted
    assert first.comparison.outcome == "better"  # on its own it would have been
    assert "is better than" in first.sentence()
    assert "5.7 points" in first.sentence()
    assert "Not significant over all pairs" in first.sentence()


def test_one_network_is_not_compared_with_itself(finals):
    same = [row("l1-norm=0.5", "uniform@macs", "scratch-e", s, a, "l1-norm=0.5pruned")
            for s, a in enumerate(SCRATCH["l1-norm=0.5"])]  # fmt: skip
    pair = next(p for p in pairs_of([*finals, *same]) if p.right[0] == "uniform@macs")
    assert pair.comparison.same
    assert pair.adjusted is None
    assert "trained once" in pair.sentence()
    assert not any("uniform@macs" in said for said in conclusions([pair]))


def test_weights_that_were_kept_make_another_network_of_the_same_shape(finals):
    pair = next(p for p in pairs_of(finals) if p.right == ("pruned", "fine-tune"))
    assert not pair.comparison.same


def test_one_training_that_two_cases_share_counts_once(finals):
    """ThiNet leaves L1-norm's shape: its nets from scratch are the very same trainings."""
    again = [
        row("thinet=0.5", "pruned", "scratch-e", seed, accuracy, "l1-norm=0.5pruned")
        for seed, accuracy in enumerate(SCRATCH["l1-norm=0.5"])
    ]
    question = ("pruned", "scratch-e"), ("base", "scratch-e")
    before, after = pairs_of(finals), pairs_of([*finals, *again])
    own = {pair.case: pair for pair in after if (pair.left, pair.right) == question}
    assert own["thinet=0.5"].again
    assert not own["l1-norm=0.5"].again
    assert own["thinet=0.5"].adjusted == own["l1-norm=0.5"].adjusted
    assert [pair.adjusted for pair in after if not pair.again] == [pair.adjusted for pair in before]
    assert conclusions(after) == conclusions(before)


def test_conclusions_count_cases(finals):
    said = conclusions(pairs_of(finals))
    assert said[0] == (
        "pruned (scratch-e) against pruned (fine-tune): ahead in 1 of 2 cases, by +2.8 points on average (n = 3). "
        "Significantly better in 0, worse in 0"
    )


def test_verdicts_name_what_was_floored_and_what_went(finals):
    nets = [
        Net("slimming=0.5", 0, Widths({"a": 4}), None, "", ("conv5_1",), 0.48),
        Net("slimming=0.5", 1, Widths({"a": 5}), None, "", (), 0.5),
        Net("l1-norm=0.5", 0, Widths({"a": 4}), None, "", (), 0.5),
    ]
    first, second = verdicts(
        finals, nets, {"slimming=0.5": 0.4, "l1-norm=0.5": 0.0}, {case: {"x": "diverged"} for case in TUNED}
    )
    assert (first["budget"], second["budget"]) == ("slimming=0.5", "l1-norm=0.5")
    text = "\n".join(first["sentences"])
    assert "It removed 48.0 to 50.0 % of the channels (asked: 0.5)." in text
    assert "conv5_1 would have lost nearly all channels" in text
    assert "x failed" in text
    assert first["deploy"]["schedule"] == "scratch-e"
