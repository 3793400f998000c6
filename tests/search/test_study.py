import json

import pytest
from optuna.trial import TrialState

from prune_nas.design import family
from prune_nas.design.budget import Budget
from prune_nas.errors import PruneNasError
from prune_nas.search import study
from tests.design.spaces import vgg
from tests.design.test_family import PRIOR
from tests.design.test_space import named

SPACE = vgg(16).scaled(0.5)
BUDGET = Budget.parse("macs=0.2")
LIMITS = BUDGET.limits(SPACE)
STARTS = [family.UNIFORM, family.GUIDED, family.PRUNED, family.Point(0, 0, -1)]


def score(number, widths):
    """A cheap stand-in for training: the share of channels in the first stages."""
    return study.Outcome(sum(list(widths.values())[:4]) / sum(widths.values()), epochs=1, seconds=0.0)


def go(journal, train=score, wanted=8, sampler="tpe", seed=0, **options):
    prior = named(SPACE, PRIOR)
    opened = study.open_study(journal, str(BUDGET), prior)
    proposals = study.trials(opened, SPACE, LIMITS, prior, starts=STARTS, seed=seed, sampler=sampler)
    study.run(opened, proposals, train, wanted=wanted, **options)
    return opened


def history(opened):
    return [(t.number, t.state, t.value, t.user_attrs["widths"]) for t in opened.get_trials()]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "study.journal"


def test_it_begins_with_the_rivals_and_every_candidate_fits(journal):
    opened = go(journal)
    rows = study.rows(opened, SPACE, str(BUDGET))
    assert [row.number for row in rows] == list(range(len(rows)))
    assert all(LIMITS.admits(SPACE.cost(json.loads(row.widths))) for row in rows)
    assert rows[0].widths == study.project(SPACE, {s.name: 1.0 for s in SPACE.slots}, LIMITS).to_json()
    assert len(study.trained(opened)) == 8


class CutOffError(BaseException):
    pass


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_cut_off_in_every_trial_it_proposes_what_it_would_have(tmp_path, sampler):
    whole = go(tmp_path / "whole.journal", sampler=sampler)
    started = []

    def fragile(number, widths):
        started.append(number)
        if started.count(number) == 1:
            raise CutOffError
        return score(number, widths)

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
    with pytest.raises(PruneNasError, match="move it away"):
        go(journal, wanted=3)


def test_the_same_widths_are_never_trained_twice(journal):
    seen = []

    def remember(number, widths):
        seen.append(widths)
        return score(number, widths)

    prior = SPACE.widest  # a prior without a pattern: uniform, guided and pruned coincide
    opened = study.open_study(journal, str(BUDGET), prior)
    proposals = study.trials(opened, SPACE, LIMITS, prior, starts=STARTS, seed=0, sampler="tpe")
    study.run(opened, proposals, remember, wanted=6)
    assert len(seen) == len(set(seen)) == 6
    states = [row.state for row in study.rows(opened, SPACE, str(BUDGET))]
    assert states[:4] == ["COMPLETE", "REPEAT", "REPEAT", "COMPLETE"]
    repeats = [row for row in study.rows(opened, SPACE, str(BUDGET)) if row.state == "REPEAT"]
    assert all(row.epochs == 0 and row.seconds == 0 for row in repeats)


def test_a_space_with_one_candidate_ends(journal):
    from tests.design.spaces import chain

    space = chain([4, 4], floor=4)
    limits = Budget.parse("macs=1").limits(space)
    opened = study.open_study(journal, "macs=1", space.widest)
    proposals = study.trials(opened, space, limits, space.widest, starts=STARTS, seed=0, sampler="random")
    study.run(opened, proposals, score, wanted=3)
    assert len(study.trained(opened)) == 1


def test_failures_are_recorded_and_never_best(journal):
    def unlucky(number, widths):
        return study.Outcome(None, 1, 0.0, "diverged") if number % 2 else score(number, widths)

    opened = go(journal, train=unlucky, wanted=6)
    assert [t.state for t in study.trained(opened)].count(TrialState.FAIL) == 3
    values = {t.user_attrs["widths"]: t.value for t in study.trained(opened) if t.value is not None}
    assert study.best(opened).to_json() == max(values, key=values.get)
    with pytest.raises(PruneNasError, match="diverged"):
        study.best(go(journal.with_name("all"), train=lambda *_: study.Outcome(None, 1, 0.0, "diverged"), wanted=2))


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
    with pytest.raises(PruneNasError, match="made around other widths"):
        study.open_study(journal, str(BUDGET), SPACE.widest)


def finalists(journal, candidates, train):
    opened = study.open_study(journal, "finalists", SPACE.widest)
    study.run_finalists(opened, candidates, train)
    return opened


def test_the_second_rung_is_cut_off_and_continued_and_nothing_is_trained_twice(tmp_path):
    leaders = study.leaders(go(tmp_path / "first"), 3)
    whole = finalists(tmp_path / "whole", leaders, score)
    started = []

    def fragile(number, widths):
        started.append(widths)
        if started.count(widths) == 1:
            raise CutOffError
        return score(number, widths)

    for _ in range(9):
        try:
            again = finalists(tmp_path / "cut", leaders, fragile)
        except CutOffError:
            continue
        break
    assert history(again) == history(whole)
    assert started == [w for w in leaders for _ in range(2)]
    more = finalists(tmp_path / "cut", [*leaders, SPACE.narrowest], score)
    assert len(study.trained(more)) == 4
    assert study.best(more) in {*leaders, SPACE.narrowest}


def test_leaders_are_the_best_first(journal):
    opened = go(journal)
    values = [score(0, widths).value for widths in study.leaders(opened, 4)]
    assert values == sorted((t.value for t in study.trained(opened)), reverse=True)[:4]
    assert study.leaders(opened, 1) == [study.best(opened)]
