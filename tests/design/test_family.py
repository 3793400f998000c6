import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design import family
from prune_nas.design.budget import Budget
from prune_nas.design.family import BOUNDS, GUIDED, PRUNED, UNIFORM, Point, shape
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import project
from prune_nas.design.rules import Taper, apply, fit, fit_taper
from tests.design.spaces import spaces, vgg
from tests.design.test_space import named

PRIOR = (30, 31, 50, 60, 70, 65, 60, 40, 35, 30, 20, 25, 30)


@pytest.fixture
def space():
    return vgg(16).scaled(0.5)


@pytest.fixture
def limits(space):
    return Budget.parse("macs=0.2").limits(space)


def test_the_corners_are_the_arms(space, limits):
    prior = named(space, PRIOR)

    def at(point):
        return project(space, shape(space, prior, point), limits)

    assert set(shape(space, prior, UNIFORM).values()) == {1.0}
    assert shape(space, prior, PRUNED) == pytest.approx(space.keep(prior))
    assert at(GUIDED) == apply(fit("stage-mean", [pattern_of(space, prior)]).rule, space, limits)
    assert at(family.taper_point(space, Taper().ratio)) == apply(Taper(), space, limits)


@given(spaces(), st.builds(Point, *(st.floats(*BOUNDS[n]) for n in "act")), st.data())
def test_every_point_is_a_shape(space, point, data):
    prior = {s.name: data.draw(st.integers(s.floor, s.ceiling)) for s in space.slots}
    assert all(ratio > 0 for ratio in shape(space, prior, point).values())


def test_random_shapes_follow_from_their_seed_and_meet_the_budget(space, limits):
    a, b, c = (family.random_widths(space, limits, seed) for seed in (1, 1, 2))
    assert a == b
    assert a != c
    assert limits.admits(space.cost(a))


@pytest.mark.parametrize("text", ["macs=0.2,params=0.05", "macs=0.4,params=0.1", "macs=0.2,params=0.02"])
def test_the_family_reaches_the_taper_of_steep_joint_budgets(space, text):
    limits = Budget.parse(text).limits(space)
    ratio = fit_taper(space, limits).ratio
    point = family.taper_point(space, ratio)
    reached = space.cost(project(space, shape(space, space.widest, point), limits))
    taper = space.cost(apply(fit_taper(space, limits), space, limits))
    assert reached.macs == pytest.approx(taper.macs, rel=0.05)


def test_a_taper_steeper_than_the_family_is_clipped(space):
    assert family.taper_point(space, 0.01).t == BOUNDS["t"][0]
