import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.budget import Budget, Limits
from prune_nas.design.projection import fill_both, project, scaled
from tests.design.spaces import keeps, spaces, vgg


def limits_between(space, share):
    least, most = space.cost(space.narrowest), space.cost(space.widest)
    return Limits((("macs", least.macs + share * (most.macs - least.macs)),))


@given(spaces(), st.data(), st.floats(0, 1), st.floats(0, 1))
def test_scaling_meets_the_budget_and_is_monotone_in_it(space, data, small, large):
    keep = data.draw(keeps(space))
    small, large = sorted((small, large))
    less, more = (scaled(space, keep, limits_between(space, share)) for share in (small, large))
    for share, widths in ((small, less), (large, more)):
        assert limits_between(space, share).admits(space.cost(widths))
        assert all(s.floor <= widths[s.name] <= s.ceiling for s in space.slots)
    assert all(less[name] <= more[name] for name in less)


@given(spaces(), st.data(), st.floats(0.01, 0.99))
def test_filling_takes_every_step_that_fits_and_none_twice(space, data, share):
    keep, limits = data.draw(keeps(space)), limits_between(space, share)
    before, after = scaled(space, keep, limits), project(space, keep, limits)
    assert limits.admits(space.cost(after))
    for slot in space.slots:
        assert after[slot.name] - before[slot.name] in (0, slot.multiple)
        raised = {**after, slot.name: after[slot.name] + slot.multiple}
        if after[slot.name] == before[slot.name] and raised[slot.name] <= slot.ceiling:
            assert not limits.admits(space.cost(raised))


@pytest.mark.parametrize(("share", "multiple"), [(0.5, 16), (0.2, 8), (0.2, 1)])
def test_rivals_come_within_three_percent_of_the_bound(share, multiple):
    """At multiple 16 one scalar left uniform scaling at 0.84 of the bound, at 8 at 0.92, and the taper at 0.96."""
    space = vgg(16).scaled(0.5)
    slots = tuple(replace(s, multiple=multiple, floor=multiple) for s in space.slots)
    space = replace(space, slots=slots)
    limits = Budget.parse(f"macs={share}").limits(space)
    for ratio in (1.0, math.exp(-0.25)):
        cost = space.cost(project(space, {s.name: ratio**s.stage for s in space.slots}, limits))
        assert cost.macs >= 0.97 * limits.bounds[0][1]


@given(spaces(), st.data(), st.floats(0.01, 0.99))
def test_projection_is_the_largest_of_its_scale(space, data, share):
    """Brute force over every scale at which a width changes: none within the limits has more macs."""
    keep, limits = data.draw(keeps(space)), limits_between(space, share)
    got = space.cost(project(space, keep, limits)).macs
    scales = {
        (n * s.multiple + s.multiple / 2) / (keep[s.name] * s.ceiling) + 1e-9
        for s in space.slots
        for n in range(s.ceiling // s.multiple + 1)
    }
    costs = [space.cost(space.snap({n: scale * k for n, k in keep.items()})) for scale in scales]
    assert all(cost.macs <= got for cost in costs if limits.admits(cost))


@given(spaces(), st.data(), st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_only_ratios_matter(space, data, share, factor):
    keep, limits = data.draw(keeps(space)), limits_between(space, share)
    scaled = {name: factor * k for name, k in keep.items()}
    a, b = (space.cost(project(space, k, limits)) for k in (keep, scaled))
    assert abs(a.macs - b.macs) <= 0.05 * b.macs  # rounding ties may fall on either side of a float's last bit


def test_two_bounds_bind_together():
    space = vgg(16).scaled(0.5)
    limits = Budget.parse("macs=0.2,params=0.05").limits(space)
    widths = fill_both(space, {s.name: 1.0 for s in space.slots}, limits)
    cost = space.cost(widths)
    assert limits.admits(cost)
    assert all(cost.of(kind) >= 0.98 * limit for kind, limit in limits.bounds)
    alone = space.cost(project(space, {s.name: 1.0 for s in space.slots}, limits))
    assert alone.macs < 0.3 * limits.bounds[0][1]  # one scalar leaves most of the macs unused


@given(spaces(), st.data(), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_filling_both_never_breaks_a_bound_and_never_fills_less_than_projection(space, data, a, b):
    keep = data.draw(keeps(space))
    least, most = space.cost(space.narrowest), space.cost(space.widest)
    limits = Limits(
        (
            ("macs", least.macs + a * (most.macs - least.macs)),
            ("params", least.params + b * (most.params - least.params)),
        )
    )

    def emptiest(widths):
        cost = space.cost(widths)
        return min(cost.of(kind) / limit for kind, limit in limits.bounds)

    both = fill_both(space, keep, limits)
    assert limits.admits(space.cost(both))
    assert emptiest(both) >= emptiest(project(space, keep, limits)) - 1e-12
