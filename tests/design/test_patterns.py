import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_nas.design.patterns import non_uniformity, pattern_of, stability, stage_means
from prune_nas.errors import UsageError
from tests.design.spaces import chain, spaces, vgg
from tests.design.test_space import VGG19_70, named


def test_stage_means_of_the_published_vgg19_row():
    """0.88, 1, 0.92, 0.09 and 0.07 of the stages' widths: 56.5, 128, 235.5, 47.5 and 37.5 channels."""
    space = vgg(19)
    means = stage_means(pattern_of(space, named(space, VGG19_70)))
    assert [m * base for m, base in zip(means, (64, 128, 256, 512, 512), strict=True)] == [56.5, 128, 235.5, 47.5, 37.5]
    assert [round(m, 2) for m in means] == [0.88, 1, 0.92, 0.09, 0.07]


@given(spaces())
def test_the_widest_net_is_uniform(space):
    assert non_uniformity(pattern_of(space, space.widest)) == 0


def test_non_uniformity_sees_differences_within_a_stage_too():
    space = chain([100, 100, "M", 100, 100])
    for numbers in ((20, 60, 20, 60), (20, 20, 60, 60)):
        assert non_uniformity(pattern_of(space, named(space, numbers))) == pytest.approx(0.5)  # mean 40, deviation 20


SPACE = chain([100, 100, "M", 100, 100])


def patterns(*rows):
    return [pattern_of(SPACE, named(SPACE, row), f"seed {i}") for i, row in enumerate(rows)]


def test_patterns_that_agree_are_worth_transferring():
    found = stability(patterns((80, 60, 30, 10), (82, 58, 31, 9), (40, 31, 15, 5)))
    assert found.patterns == 3
    assert found.rank_correlation == pytest.approx(1)
    assert found.noise < 0.1
    assert not found.is_uniform
    assert "differs from uniform scaling by more than its noise" in found.sentence()
    assert "rank correlation 1.00" in found.sentence()


def test_patterns_that_are_undecided_against_uniform_scaling_say_so():
    found = stability(patterns((50, 40, 60, 50), (60, 50, 40, 45), (45, 60, 50, 55)))
    assert found.rank_correlation < 0.3
    assert found.is_uniform
    assert found.sentence().startswith("The pattern is undecided against uniform scaling")
    assert found.sentence().endswith("scale uniformly.")


def test_spread_is_of_shapes_not_of_sizes():
    found = stability(patterns((80, 60, 30, 10), (40, 30, 15, 5)))
    assert found.noise == pytest.approx(0)
    assert set(found.spread) == {"conv1", "conv2", "conv3", "conv4"}


def test_one_pattern_has_no_noise_and_a_flat_one_no_ranks():
    alone = stability(patterns((80, 60, 30, 10)))
    assert (alone.noise, alone.rank_correlation) == (None, None)
    assert not alone.is_uniform
    assert stability(patterns((50, 50, 50, 50), (50, 60, 40, 50))).rank_correlation is None


def test_patterns_of_other_slots_are_refused():
    other = chain([8, "M", 8])
    with pytest.raises(UsageError, match="of one network"):
        stability([*patterns((80, 60, 30, 10)), pattern_of(other, named(other, (4, 4)))])
    with pytest.raises(UsageError, match="at least one"):
        stability([])


@given(st.integers(1, 4))
def test_a_stage_without_a_slot_takes_its_neighbours(width):
    space = chain([8, "M", "M", 8])
    means = stage_means(pattern_of(space, named(space, (2 * width, width))))
    assert means == pytest.approx([width / 4, 3 * width / 16, width / 8])
