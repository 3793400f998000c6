import pytest

from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError


@pytest.mark.parametrize("value", [64, "64", "64x64", " 64 x 64 ", (64, 64), [64]])
def test_ways_to_write_a_size(value):
    assert Size.parse(value) == (64, 64)


def test_height_comes_first():
    assert Size.parse("48X64") == (48, 64)
    assert str(Size.parse((48, 64))) == "48x64"


@pytest.mark.parametrize("value", ["", "big", "64x", "64x48x3", "-64", (1, 2, 3), 7, "64x7", "0"])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(UsageError, match=r"such as 64x48|at least 8 pixels"):
        Size.parse(value)
