import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.budget import Budget
from prune_nas.errors import BudgetError, UsageError
from tests.design.spaces import vgg


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("macs=0.4", "macs=0.4"),
        (" macs = 0.20 ", "macs=0.2"),
        ("params=0.05,macs=0.2", "macs=0.2,params=0.05"),
        ("macs=90M", "macs=90M"),
        ("params=1.5M", "params=1.5M"),
        ("macs=1e7", "macs=10000000"),
        ("params=1234567", "params=1234567"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(Budget.parse(text)) == canonical
    assert Budget.parse(canonical) == Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs=0", "above 0"),
        ("macs=-1", "above 0"),
        ("macs=", "cannot read"),
        ("fast", "cannot read"),
        ("", "cannot read"),
        ("macs=0.2,macs=0.3", "twice"),
        ("mac=0.2", "Did you mean macs"),
        ("macs=2X", "unit"),
        ("macs=1.2.3", "number"),
        ("macs=1e999", "above 0"),
    ],
)
def test_unreadable_budgets_say_why(text, message):
    with pytest.raises(UsageError, match=message):
        Budget.parse(text)


def test_fractions_are_of_the_base_and_units_are_absolute():
    space = vgg(16).scaled(base=0.5, supernet=2)
    limits = dict(Budget.parse("macs=0.5,params=1.5M").limits(space).bounds)
    assert limits == {"macs": 78744064 / 2, "params": 1.5e6}


def test_an_unreachable_budget_names_the_smallest_possible_cost():
    space = vgg(16)
    least = space.cost(space.narrowest).macs
    with pytest.raises(BudgetError, match=f"{least:,} macs") as caught:
        Budget.parse("macs=0.0001").limits(space)
    assert caught.value.exit_code == 4
    repair = str(caught.value).split("at least ")[1].split(",")[0]
    assert Budget.parse(repair).limits(space).admits(space.cost(space.narrowest))


def test_an_unreachable_latency_is_repaired_in_milliseconds():
    space = replace(vgg(16), latency=(("constant", 1.0), ("params", 1e-7)), base_latency=2.4)
    with pytest.raises(BudgetError) as caught:
        Budget.parse("latency=0.2").limits(space)
    repair = str(caught.value).split("at least ")[1].split(",")[0]
    assert re.fullmatch(r"latency=[0-9.]+ms", repair)
    assert Budget.parse(repair).limits(space).admits(space.cost(space.narrowest))
    flat = replace(space, latency=(("constant", 3.0),))
    with pytest.raises(BudgetError, match="Its latency does not depend on widths here: limit macs or params instead"):
        Budget.parse("latency=0.5").limits(flat)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_text_round_trip(a, b):
    budget = Budget.parse(f"macs={a:.9g},params={b:.12g}")
    assert Budget.parse(str(budget)) == budget
