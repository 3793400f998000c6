import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from prune_nas.design import family
from prune_nas.design.budget import Budget
from prune_nas.errors import PruneNasError
from prune_nas.search import study
from prune_nas.search.work import Result, Training
from tests.design.spaces import vgg
from tests.design.test_family import PRIOR
from tests.design.test_space import named

SPACE = vgg(16).scaled(0.5)
BUDGET = Budget.parse("macs=0.2")
LIMITS = BUDGET.limits(SPACE)
STARTS = [family.UNIFORM, family.GUIDED, family.PRUNED, family.Point(0, 0, -1)]


def score(training):
    """A cheap stand-in for training: the share of channels in the first stages."""
    widths = training.widths
    return Result(sum(list(widths.values())[:4]) / sum(widths.values()), epochs=1, seconds=0.0)


def order(number, widths, seed=0):
    return Training(str(BUDGET), f"trial {number}", f"trial {number}", widths, seed, 1, Path(f"{number}"))


def drive(source, train):
    while (training := source.ask()) is not None:
        source.tell(training, train(training))


def drive_many(source, train, order_of):
    """What a crew of many workers does: they end in any order, and are told in the order in which they were asked."""
    asked = []
    while True:
        while (training := source.ask()) is not None:
            asked.append(training)
        if not asked:
            return
        results = {t.name: train(t) for t in order_of(asked)}
        oldest = asked.pop(0)
        source.tell(oldest, results[oldest.name])


def go(
    journal,
    train=score,
    wanted=8,
    sampler="tpe",
    seed=0,
    drive=drive,
    space=SPACE,
    limits=LIMITS,
    prior=None,
    **options,
):
    prior = prior or named(SPACE, PRIOR)
    opened = study.open_study(journal, str(BUDGET), prior)
    proposals = study.trials(opened, space, limits, prior, starts=STARTS, seed=seed, sampler=sampler)
    drive(study.Trials(opened, proposals, order, wanted=wanted, **options), train)
    return opened


def rows(opened, space=SPACE):
    return study.rows(opened, space, str(BUDGET), seed=0)


def history(opened):
    return [(t.number, t.state, t.value, t.user_attrs["widths"]) for t in opened.get_trials()]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "study.journal"


def test_it_begins_with_the_rivals_and_every_candidate_fits(journal):
    opened = go(journal)
    table = rows(opened)
    assert [row.number for row in table] == list(range(len(table)))
    assert all(LIMITS.admits(SPACE.cost(json.loads(row.widths))) for row in table)
    assert table[0].widths == study.project(SPACE, {s.name: 1.0 for s in SPACE.slots}, LIMITS).to_json()
    assert len(study.trained(opened)) == 8


class CutOffError(BaseException):
    pass


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_cut_off_in_every_trial_it_proposes_what_it_would_have(tmp_path, sampler):
    whole = go(tmp_path / "whole.journal", sampler=sampler)
    started = []

    def fragile(training):
        started.append(training.name)
        if started.count(training.name) == 1:
            raise CutOffError
        return score(training)

    for _ in range(99):
        try:
            again = go(tmp_path / "cut.journal", train=fragile, sampler=sampler)
        except CutOffError:
            continue
        break
    assert history(again) == history(whole)
    assert all(started.count(n) == 2 for n in started)


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_torn_last_line_is_dropped(journal, cut):
    go(journal, wanted=4)
    whole = history(go(journal, wanted=4))
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "x", "trial_id": 99, "user_attr": {}'[:cut])
    assert history(go(journal, wanted=4)) == whole
    assert len(study.trained(go(journal, wanted=6))) == 6


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'"x"\n', b"\xff\n", b'{"op_code": 99, "worker_id": "x"}\n'])
def test_a_damaged_journal_is_refused_with_the_repair(journal, line):
    go(journal, wanted=2)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(PruneNasError, match="Move it away"):
        go(journal, wanted=3)


def test_the_same_widths_are_never_trained_twice(journal):
    seen = []

    def remember(training):
        seen.append(training.widths)
        return score(training)

    # a prior without a pattern: uniform, guided and pruned coincide
    opened = go(journal, train=remember, wanted=6, prior=SPACE.widest)
    assert len(seen) == len(set(seen)) == 6
    states = [row.state for row in rows(opened)]
    assert states[:4] == ["COMPLETE", "REPEAT", "REPEAT", "COMPLETE"]
    repeats = [row for row in rows(opened) if row.state == "REPEAT"]
    assert all(row.epochs == 0 and row.seconds == 0 for row in repeats)


def test_a_space_with_one_candidate_ends(journal):
    from tests.design.spaces import chain

    space = chain([4, 4], floor=4)
    limits = Budget.parse("macs=1").limits(space)
    opened = go(journal, wanted=3, sampler="random", space=space, limits=limits, prior=space.widest)
    assert len(study.trained(opened)) == 1


def test_failures_are_recorded_and_never_best(journal):
    failed = Result(None, 1, 0.0, error="diverged")

    def unlucky(training):
        return failed if int(training.name.split()[1]) % 2 else score(training)

    opened = go(journal, train=unlucky, wanted=6)
    assert [t.state for t in study.trained(opened)].count(TrialState.FAIL) == 3
    values = {t.user_attrs["widths"]: t.value for t in study.trained(opened) if t.value is not None}
    assert study.best(opened).to_json() == max(values, key=values.get)
    with pytest.raises(PruneNasError, match="diverged"):
        study.best(go(journal.with_name("all"), train=lambda _: failed, wanted=2))


def test_trials_is_a_global_target_and_time_ends_it_early(journal):
    assert len(study.trained(go(journal, wanted=3))) == 3
    assert len(study.trained(go(journal, wanted=5))) == 5
    assert len(study.trained(go(journal, wanted=9, timeout=0))) == 5


def test_other_seeds_propose_other_candidates(tmp_path):
    a, b = (go(tmp_path / f"{seed}", seed=seed, wanted=7) for seed in (0, 1))
    assert history(a)[:4] == history(b)[:4]
    assert history(a)[5:] != history(b)[5:]


def test_budgets_have_studies_of_their_own_in_one_journal(journal):
    first = go(journal, wanted=2)
    other = study.open_study(journal, "macs=0.3", SPACE.widest)
    assert other.get_trials() == []
    assert len(study.trained(first)) == len(study.trained(go(journal, wanted=2))) == 2


def test_a_study_around_other_scores_is_refused(journal):
    go(journal, wanted=1)
    with pytest.raises(PruneNasError, match="began with other widths"):
        study.open_study(journal, str(BUDGET), SPACE.widest)


def finalists(journal, candidates, train, seeds=(500, 501)):
    opened = study.open_study(journal, "finalists", SPACE.widest)
    drive(study.Finalists(opened, [(w, s) for s in seeds for w in candidates], order), train)
    return opened


def test_the_second_rung_is_cut_off_and_continued_and_nothing_is_trained_twice(tmp_path):
    leaders = study.leaders(go(tmp_path / "first"), 3)
    whole = finalists(tmp_path / "whole", leaders, score)
    started = []

    def fragile(training):
        started.append((training.widths, training.seed))
        if started.count(started[-1]) == 1:
            raise CutOffError
        return score(training)

    for _ in range(9):
        try:
            again = finalists(tmp_path / "cut", leaders, fragile)
        except CutOffError:
            continue
        break
    assert history(again) == history(whole)
    assert started == [(w, s) for s in (500, 501) for w in leaders for _ in range(2)]
    assert [row.seed for row in rows(again)] == [500, 500, 500, 501, 501, 501]
    more = finalists(tmp_path / "cut", [*leaders, SPACE.narrowest], score)
    assert len(study.trained(more)) == 8
    assert study.best(more) in {*leaders, SPACE.narrowest}


def test_the_best_finalist_has_the_best_mean_and_no_failure(tmp_path):
    a, b, c = study.leaders(go(tmp_path / "first"), 3)
    values = {(a, 500): 0.9, (a, 501): 0.5, (b, 500): 0.72, (b, 501): 0.7, (c, 500): 0.99, (c, 501): None}

    def given(training):
        value = values[training.widths, training.seed]
        return Result(value, 1, 0.0, error="" if value else "diverged", diverged=value is None)

    opened = finalists(tmp_path / "second", [a, b, c], given)
    assert study.best(opened) == b
    assert study.leaders(opened, 3) == [b, a]


@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_several_workers_propose_depends_on_their_number_never_on_timing(tmp_path, lanes, sampler):
    def many(order_of):
        return lambda source, train: drive_many(source, train, order_of)

    options = {"lanes": lanes, "sampler": sampler, "wanted": 9}
    forward = go(tmp_path / "a", drive=many(list), **options)
    backward = go(tmp_path / "b", drive=many(lambda asked: asked[::-1]), **options)
    assert history(forward) == history(backward)
    assert len(study.trained(forward)) == 9
    cut, started = tmp_path / "c", []

    def fragile(training):
        started.append(training.name)
        if len(started) % 4 == 3:
            raise CutOffError
        return score(training)

    for _ in range(99):
        try:
            again = go(cut, train=fragile, drive=many(list), **options)
        except CutOffError:
            continue
        break
    assert history(again) == history(forward)


def test_widths_in_training_are_not_begun_again_beside_it(journal):
    """Without a pattern uniform, guided and pruned coincide: with four lanes they are proposed while one trains."""
    opened = go(journal, prior=SPACE.widest, wanted=4, lanes=4, drive=lambda s, t: drive_many(s, t, list))
    assert len({row.widths for row in rows(opened) if row.state != "REPEAT"}) == 4
    assert [row.state for row in rows(opened)][:4] == ["COMPLETE", "REPEAT", "REPEAT", "COMPLETE"]


def test_leaders_are_the_best_first(journal):
    opened = go(journal)
    values = [score(order(0, widths)).val_accuracy for widths in study.leaders(opened, 4)]
    assert values == sorted((t.value for t in study.trained(opened)), reverse=True)[:4]
    assert study.leaders(opened, 1) == [study.best(opened)]


def test_finalists_are_compared_on_equally_many_seeds(tmp_path):
    """Raising the search cost adds seeds, and may not pay for all that stood before."""
    a, b, c = study.leaders(go(tmp_path / "first"), 3)
    values = {(a, 500): 0.71, (b, 500): 0.72, (b, 501): 0.68, (c, 500): 0.6, (c, 501): 0.6}
    opened = study.open_study(tmp_path / "second", "finalists", SPACE.widest)
    drive(study.Finalists(opened, list(values), order), lambda t: Result(values[t.widths, t.seed], 1, 0.0))
    assert study.leaders(opened, 3) == [b, c]


def test_a_finalist_whose_failure_may_be_over_is_trained_again(tmp_path):
    a, b = study.leaders(go(tmp_path / "first"), 2)

    def full(training):
        failed = training.widths == a and training.seed == 500
        return Result(None, 1, 0.0, error="out of memory") if failed else score(training)

    opened = finalists(tmp_path / "second", [a, b], full)
    assert study.best(opened) == b
    again = []
    opened = finalists(tmp_path / "second", [a, b], lambda t: again.append(t.seed) or Result(0.99, 1, 0.0))
    assert again == [500]
    assert study.best(opened) == a
    assert len(study.trained(opened)) == 5  # both attempts were paid for


def test_every_study_has_the_time_it_was_given(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])

    def lasting(training):
        now[0] += 0.1
        return score(training)

    def one(journal):
        prior = named(SPACE, PRIOR)
        opened = study.open_study(journal, str(BUDGET), prior)
        proposals = study.trials(opened, SPACE, LIMITS, prior, starts=STARTS, seed=0, sampler="random")
        return study.Trials(opened, proposals, order, wanted=99, timeout=0.3)

    sources = [one(tmp_path / "a"), one(tmp_path / "b")]
    for source in sources:
        drive(source, lasting)
        assert source.lacks == "time"
        assert 3 <= len(study.trained(source._study)) <= 4


def test_a_study_says_what_it_lacks(tmp_path):
    def lacks(journal, **options):
        prior = named(SPACE, PRIOR)
        opened = study.open_study(tmp_path / journal, str(BUDGET), prior)
        proposals = study.trials(opened, SPACE, LIMITS, prior, starts=STARTS, seed=0, sampler="random")
        source = study.Trials(opened, proposals, order, wanted=3, **options)
        drive(source, score)
        return source.lacks

    assert lacks("whole") == ""
    assert lacks("cost", affordable=lambda begun: len(begun) < 2) == "cost"
    assert lacks("time", timeout=0.0) == "time"
