"""Cases, the epochs of the paper's schedules, and the shapes that stand beside a pruned net."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_nas.design.cases import Case, Net, lasting, rivals
from prune_nas.design.ledger import train_macs
from prune_nas.design.space import Cost, Widths
from prune_nas.errors import PruneNasError, UsageError
from tests.report.conftest import vgg

SPACE = vgg()


def test_cases_have_one_form():
    assert str(Case.parse(" slimming=0.50 ")) == "slimming=0.5"
    assert Case.parse("l1-norm=A") == ("l1-norm", "A")
    for text in ("slimming", "=0.5", "slimming="):
        with pytest.raises(UsageError, match="method=ratio"):
            Case.parse(text)


@pytest.mark.parametrize(
    ("saved", "epochs"),
    [(0.342, 243), (0.104, 178), (0.276, 220), (0.159, 190), (0.387, 260)],  # paper.md, section 2 and 4
)
def test_scratch_b_lasts_as_long_as_the_paper_says(saved, epochs):
    """Its percentages have three digits, so that the epochs are met to within one."""
    base = Cost(10**9, 0)
    got = lasting("scratch-b", Cost(round(1e9 * (1 - saved)), 0), base, epochs=160, tuning=40, cap=None, add=False)
    assert abs(got - epochs) <= 1


def test_the_imagenet_cap_and_the_tuning_that_is_added():
    """ThiNet's and L1's main_B.py: twice the epochs at most, so 90 becomes 180; K1 * F1 / F2 + K2 with 40 more."""
    half, third, base = Cost(500, 0), Cost(300, 0), Cost(1000, 0)
    plan = {"epochs": 90, "tuning": 20}
    assert lasting("scratch-b", third, base, **plan, cap=2, add=False) == 180
    assert lasting("scratch-b", half, base, **plan, cap=2, add=True) == 200
    assert lasting("scratch-b", third, base, **plan, cap=None, add=False) == 300
    assert lasting("fine-tune", third, base, **plan, cap=2, add=True) == 20
    assert {lasting(s, third, base, **plan, cap=2, add=True) for s in ("rewind", "scratch-e")} == {90}


@given(st.integers(1, 10**9), st.integers(1, 200))
def test_scratch_b_never_costs_more_than_the_base(macs, epochs):
    base = Cost(10**9, 0)
    longer = lasting("scratch-b", Cost(macs, 0), base, epochs=epochs, tuning=1, cap=None, add=False)
    assert train_macs(macs, 7, longer) <= train_macs(base.macs, 7, epochs) < train_macs(macs, 7, longer + 1)


@settings(max_examples=12)  # a few tenths of a second each
@given(st.lists(st.floats(0.15, 1), min_size=13, max_size=13), st.integers(0, 1000))
def test_rivals_cost_no_more_than_the_pruned_net(keep, seed):
    pruned = SPACE.snap(dict(zip(SPACE.by_name, keep, strict=True)))
    cost = SPACE.cost(pruned)
    found = rivals(SPACE, pruned, wanted=("guided", "uniform", "taper", "random"), randoms=2, seed=seed)
    assert list(found) == ["guided", "uniform@macs", "uniform@params", "taper", "random"]
    assert len(set(found["random"])) == 2
    for arm, shapes in found.items():
        for widths in shapes:
            own = SPACE.cost(widths)
            assert arm == "uniform@params" or own.macs <= cost.macs
            assert arm == "uniform@macs" or own.params <= cost.params
    assert rivals(SPACE, pruned, wanted=("pruned",), randoms=1, seed=0) == {}


def test_a_net_cheaper_than_the_narrowest_has_no_rivals_of_its_cost():
    """As where whole residual blocks went: no network of the space comes down to it."""
    from prune_nas.nets.tracing import trace

    space = trace("resnet20", base_width=0.25).space
    gone = {slot for branch in space.branches[2:6] for slot in branch.slots}
    pruned = Widths({name: 0 if name in gone else width for name, width in space.base.items()})
    cost = space.cost(pruned)
    assert cost.macs < space.cost(space.narrowest).macs
    found = rivals(space, pruned, wanted=("uniform", "taper", "random"), randoms=1, seed=0)
    for arm, (widths,) in found.items():
        assert space.cost(widths).of(arm.partition("@")[2]) <= cost.of(arm.partition("@")[2])
    assert "uniform@macs" not in found
    assert "taper" not in found


def test_nets_survive_their_file():
    net = Net("sss=0.5", 1000, Widths({"a": 3}), None, "", ("a",), 0.25)
    assert Net.from_dict(net.to_dict()) == net
    masked = Net("magnitude=0.9", 1, None, {"conv": (1, 2)}, "ab", (), 0.9)
    assert Net.from_dict(masked.to_dict()) == masked
    with pytest.raises(PruneNasError, match="Delete it"):
        Net.from_dict({**net.to_dict(), "widths": [3]})
