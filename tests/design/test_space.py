import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.parts import Layer, Segment, constant, size
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from tests.design.spaces import chain, spaces, vgg

# VGG-19 on CIFAR-10 with 70 % of the channels removed, as published in foolwood/pytorch-slimming.
VGG19_70 = (49, 64, 128, 128, 256, 254, 234, 198, 114, 41, 24, 11, 14, 13, 19, 104)


def named(space, numbers):
    return Widths(dict(zip((s.name for s in space.slots), numbers, strict=True)))


def test_published_vgg19_totals():
    space = vgg(19)
    base = space.cost(space.base)
    assert base.params == pytest.approx(20.035e6, rel=1e-4)
    assert base.macs == pytest.approx(398.1e6, rel=1e-4)
    slim = space.cost(named(space, VGG19_70))
    assert slim.params == pytest.approx(2.37e6, abs=5e3)
    assert slim.macs == pytest.approx(208.3e6, abs=5e4)


def test_cost_is_the_closed_form_of_each_layer():
    space = chain([8, "M", 6], classes=5, side=8)
    cost = space.cost({"conv1": 7, "conv2": 3})
    assert cost.macs == 64 * 9 * 3 * 7 + 16 * 9 * 7 * 3 + 3 * 5
    assert cost.params == 9 * 3 * 7 + 2 * 7 + 9 * 7 * 3 + 2 * 3 + 3 * 5 + 5


def test_segments_of_a_concatenation_and_a_flatten_add_up():
    cat = (Segment("a", 1), Segment("b", 4), Segment(None, 3))
    assert size(cat, {"a": 5, "b": 2}) == 16
    layer = Layer("fc", "linear", cat, constant(10), kernel=1, positions=1, vectors=1)
    space = chain([8, 8])
    space = Space(**{**vars(space), "layers": (layer,), "slots": _renamed(space)})
    assert space.cost({"a": 5, "b": 2})[:2] == (160, 170)


def _renamed(space):
    from dataclasses import replace

    return tuple(replace(s, name=n) for s, n in zip(space.slots, "ab", strict=True))


@given(spaces(), st.data())
def test_costs_of_many_equal_costs_of_each_and_grow_with_every_width(space, data):
    rows = np.array([[data.draw(st.integers(1, s.ceiling)) for s in space.slots] for _ in range(3)])
    macs, params = space.costs(rows)
    for row, m, p in zip(rows, macs, params, strict=True):
        assert space.cost(named(space, row))[:2] == (m, p)
    wider = rows.copy()
    wider[:, data.draw(st.integers(0, rows.shape[1] - 1))] += 1
    more = space.costs(wider)
    assert (more[0] > macs).all()
    assert (more[1] > params).all()


@given(spaces())
def test_json_round_trip(space):
    import json

    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_widths_are_a_value():
    a, b = Widths({"x": 1, "y": 2}), Widths({"y": 2, "x": 1})
    assert a == b
    assert hash(a) == hash(b)
    assert a.digest == b.digest
    assert a.to_json() == '{"x":1,"y":2}'
    with pytest.raises(TypeError):
        a["x"] = 3


def test_scaled_moves_the_base_and_the_ceilings():
    space = vgg(16).scaled(base=0.5, supernet=1.5)
    assert space.base["conv1"] == 32
    assert space.by_name["conv1"].ceiling == 48
    assert vgg(16).scaled(0.5).cost(vgg(16).scaled(0.5).base)[:2] == (78744064, 3684842)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"conv1": 4}, "conv2"),
        ({"conv1": 4, "conv2": 0}, "positive"),
        ({"conv1": 4, "conv2": 4, "conv3": 1}, "conv3"),
        ({"conv1": 4, "conv2": 2.5}, "integer"),
    ],
)
def test_check_names_what_is_wrong(widths, message):
    with pytest.raises(UsageError, match=message):
        chain([8, 8]).check(widths)


@pytest.mark.parametrize("factors", [(0, 1), (-1, 1), (1, 0.5)])
def test_scaled_refuses_factors_that_make_no_network(factors):
    with pytest.raises(UsageError, match="width"):
        vgg(16).scaled(*factors)
