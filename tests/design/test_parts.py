import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.parts import Segment, Slot, constant, size
from prune_nas.errors import UsageError


@st.composite
def slots(draw):
    multiple = draw(st.integers(1, 16))
    floor, more = (multiple * draw(st.integers(low, 20)) for low in (1, 0))
    return Slot("a", 0, 0.0, floor + more, floor, multiple, ("a",))


@given(slots(), st.floats(-100, 1000))
def test_snapping_takes_the_nearest_allowed_width_and_halves_go_up(slot, width):
    allowed = range(slot.floor, slot.ceiling + 1, slot.multiple)
    best = min(abs(one - width) for one in allowed)
    assert slot.snap(width) == max(one for one in allowed if math.isclose(abs(one - width), best, abs_tol=1e-9))


@given(slots(), st.integers(0, 700))
def test_within_is_the_largest_width_of_at_most_so_many_channels(slot, count):
    found = slot.within(count)
    assert found % slot.multiple == 0
    assert found == slot.floor or count - slot.multiple < found <= count


def test_an_extent_adds_up_its_segments():
    extent = (Segment("a", 1), Segment("b", 4), *constant(3))  # a, b flattened from 2x2 pixels, and an input
    assert size(extent, {"a": 5, "b": 7}) == 5 + 4 * 7 + 3


def test_a_slot_whose_name_a_spreadsheet_would_compute_is_refused():
    with pytest.raises(UsageError, match="would be a formula to a spreadsheet"):
        Slot('=HYPERLINK("http://x")', 0, 0.0, 8, 4, 1, ("conv",))
