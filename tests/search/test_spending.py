import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_nas.config import PRESETS, resolve
from prune_nas.design.budget import Budget
from prune_nas.design.ledger import train_macs
from prune_nas.design.records import Expense, TrialRow, read_table
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.search.spending import Spending
from tests.design.spaces import vgg
from tests.search.tiny import arguments

SPACE = vgg(16)
IMAGES = 1000


def spending(budget="macs=0.2", scored=True, **flags):
    config = resolve({"model": "vgg16", "dataset": "digits", "preset": "laptop", **flags}, environment={})
    return Spending(config, SPACE, Budget.parse(budget).limits(SPACE), IMAGES, scored)


def whole_cost(own, trials, finalists):
    """Of a supernet, trials as dear as can be in their first part, and the finalists."""
    return own.supernet + own.trials(trials) + sum(own.price(widths, own.config.epochs) for widths, _ in finalists)


def test_costs_are_counted_as_the_ledger_counts_them():
    own = spending()
    macs = SPACE.cost(SPACE.base).macs
    assert own.base == train_macs(macs, IMAGES, own.config.epochs)
    assert own.supernet == train_macs(macs, IMAGES, own.config.supernet_epochs)
    assert own.dearest == train_macs(int(0.2 * macs), IMAGES, own.config.trial_epochs)
    assert own.allowance.both == 2 * own.base - own.supernet


def test_without_a_supernet_everything_goes_to_the_study():
    own = spending(scored=False)
    assert own.supernet == 0
    assert own.allowance.both == 2 * own.base


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("budget", ["macs=0.2", "macs=0.4"])
def test_every_preset_pays_for_starts_and_for_finalists(preset, budget):
    trials, finalists = spending(budget, preset=preset).expected()
    assert trials >= 4
    assert finalists >= 2


@pytest.mark.parametrize(
    "budget", ["macs=0.1", "macs=0.2", "macs=0.4", "macs=0.8", "params=0.05", "macs=0.2,params=0.1"]
)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_search_never_costs_more_than_it_may(budget, data):
    own = spending(budget, search_cost=data.draw(st.floats(0.8, 6)), trials=40)
    cap = dict(own.limits.bounds).get("macs", SPACE.cost(SPACE.widest).macs)
    shapes = st.sampled_from([w for w in (SPACE.narrowest, own.even, SPACE.widest) if SPACE.cost(w).macs <= cap])
    begun = []
    while len(begun) < 40 and own.affords(begun):
        begun.append(data.draw(shapes))
    finalists = own.finalists(begun, list(dict.fromkeys(begun)), set()) if begun else []
    assert whole_cost(own, begun, finalists) <= max(own.config.search_cost * own.base, own.supernet)


def test_what_is_expected_is_what_comes_if_all_shapes_are_uniform():
    own = spending()
    trials, _ = own.expected()
    begun = []
    while len(begun) < own.config.trials and own.affords(begun):
        begun.append(own.even)
    assert len(begun) == trials
    assert own.expected(begun[:3])[0] == trials - 3
    assert own.expected(begun)[0] == 0


def test_a_search_that_may_not_begin_says_what_would_help():
    with pytest.raises(UsageError, match=r"--search-cost 0.5 .*macs=0.2: the supernet takes 0.5, .*--supernet-epochs"):
        spending(search_cost=0.5).check("macs=0.2")
    spending(search_cost=1).check("macs=0.2")
    with pytest.raises(
        UsageError, match=r"Raise it to 0\.7 \(1\.1 for finalists, too\), lower"
    ):  # uniform alone is no study
        spending(search_cost=0.6).check("macs=0.2")
    spending(search_cost=0.7).check("macs=0.2")


@pytest.mark.parametrize("budget", ["macs=0.2", "macs=0.4", "macs=0.8"])
@pytest.mark.parametrize("trial_epochs", [4, 8])
def test_a_search_cost_that_suffices_still_does_when_it_is_raised(budget, trial_epochs):
    costs = [spending(budget, search_cost=cost / 10, trial_epochs=trial_epochs) for cost in range(1, 60)]
    assert [one._suffices for one in costs] == sorted(one._suffices for one in costs)
    assert costs[-1]._suffices


def test_a_dear_budget_has_no_second_rung():
    own = spending("macs=0.8")
    assert own.allowance.first == own.allowance.both
    assert own.expected()[1] == 0


def spent(run):
    """Trainings of the base that the supernet and the study took, from the run's files alone."""
    run_file = json.loads((run / "run.json").read_text())
    space = Space.from_dict(json.loads((run / "space.json").read_text()))
    base = train_macs(space.cost(space.base).macs, run_file["data"]["train"], 2)
    ledger = read_table(run / "ledger.csv", Expense)
    return sum(one.train_macs for one in ledger if one.phase in ("supernet", "study")) / base


def test_a_run_stays_within_its_search_cost_and_goes_on_when_it_is_raised(cli, tmp_path):
    run = tmp_path / "run"
    asked = {"arms": "found,uniform", "seeds": 1, "trials": 8, "supernet_epochs": 1}
    code, _, err = cli(*arguments(run, **asked, search_cost=2))
    assert code == 0, err
    assert "the search may cost 2 trainings of the unpruned network" in err
    assert "since --search-cost 2 pays for no more" in err
    assert 1 < spent(run) <= 2
    first = read_table(run / "trials.csv", TrialRow)
    code, _, err = cli(*arguments(run, **asked, search_cost=3))
    assert code == 0, err
    assert 2 < spent(run) <= 3
    more = read_table(run / "trials.csv", TrialRow)
    assert len(more) > len(first)
    assert [row for row in more if row.epochs == 1][: len(first) - 2] == [row for row in first if row.epochs == 1]


def test_a_search_that_may_not_begin_is_refused_before_anything_is_trained(cli, tmp_path):
    code, out, err = cli(*arguments(tmp_path / "run", search_cost=1))
    assert (code, out) == (2, "")
    assert "pays for no study" in err
    assert not (tmp_path / "run" / "scores.safetensors").exists()
