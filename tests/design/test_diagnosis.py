import pytest

from prune_nas.design.diagnosis import _some


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "s0"), (5, "s0, s1, s2, s3, s4"), (6, "s0, s1, s2, s3 and 2 more"), (39, "s0, s1, s2, s3 and 35 more")],
)
def test_of_many_names_a_few_are_said(count, words):
    assert _some(tuple(f"s{i}" for i in range(count))) == words
