from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.allowance import Allowance, divide, finalists
from prune_nas.design.space import Widths

amounts = st.integers(0, 10**6)


def shape(size):
    return Widths({"a": size})


def price(widths):
    return widths["a"]


def test_the_second_rung_gets_half():
    assert divide(1500, 100, 2) == Allowance(1500, 750)


def test_the_second_rung_gets_at_least_what_a_pair_takes_on_its_seeds():
    assert divide(1500, 200, 2) == Allowance(1500, 700)
    assert divide(1500, 400, 2) == Allowance(1500, 700)  # one seed is all that two thirds pay for


def test_where_a_pair_takes_most_of_it_there_is_one_rung():
    assert divide(1500, 501, 2) == Allowance(1500, 1500)


def test_the_first_rung_keeps_what_it_needs():
    assert divide(1500, 400, 2, least=650) == Allowance(1500, 700)
    assert divide(1500, 400, 2, least=701) == Allowance(1500, 1500)  # no pair is left for the second
    assert divide(1500, 100, 2, least=1200) == Allowance(1500, 1200)


@given(amounts, amounts, st.integers(1, 10**6), st.integers(1, 5), amounts)
def test_more_in_all_never_takes_from_the_first_rung_what_it_needs(both, more, whole, seeds, least):
    if divide(both, whole, seeds, least).first >= least:
        assert divide(both + more, whole, seeds, least).first >= least


@given(amounts, st.integers(1, 10**6), st.integers(1, 5))
def test_a_second_rung_pays_for_a_pair_and_leaves_a_third(both, whole, seeds):
    given_ = divide(both, whole, seeds)
    second = both - given_.first
    assert second == 0 or (second >= 2 * whole and 3 * given_.first >= both)


def test_seeds_come_before_further_leaders_and_a_leader_has_all_seeds_or_none():
    even, a, b = shape(100), shape(101), shape(102)
    assert finalists(even, [a, b], [7, 8], price, 200) == []
    assert finalists(even, [a, b], [7, 8], price, 401) == [(even, 7), (a, 7), (b, 7)]
    assert finalists(even, [a, b], [7, 8], price, 402) == [(even, 7), (a, 7), (even, 8), (a, 8)]
    assert finalists(even, [a, b], [7, 8], price, 605) == [(even, 7), (a, 7), (even, 8), (a, 8)]
    assert len(finalists(even, [a, b], [7, 8], price, 606)) == 6


def test_a_leader_that_costs_too_much_makes_room_for_the_next():
    assert finalists(shape(10), [shape(90), shape(20)], [7], price, 40) == [(shape(10), 7), (shape(20), 7)]


def test_uniform_alone_is_not_trained():
    assert finalists(shape(10), [shape(10)], [7], price, 1000) == []


shapes = st.lists(st.integers(1, 100).map(shape), max_size=5, unique=True)


@given(st.integers(1, 100).map(shape), shapes, st.integers(0, 2000), st.integers(1, 3), st.integers(0, 20))
def test_it_stays_within_the_rest_and_goes_on_as_it_began(even, leaders, left, seeds, stop):
    wanted = finalists(even, leaders, range(seeds), price, left)
    assert sum(price(widths) for widths, _ in wanted) <= left
    assert len(set(wanted)) == len(wanted)
    assert len(set(Counter(seed for _, seed in wanted).values())) <= 1
    done = set(wanted[:stop])
    paid = sum(price(widths) for widths, _ in done)
    assert finalists(even, leaders, range(seeds), price, left - paid, done=done) == wanted
