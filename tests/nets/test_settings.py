"""The files in search_spaces/."""

from __future__ import annotations

from dataclasses import fields

import pytest

from prune_nas.errors import UsageError
from prune_nas.nets.models import MODELS
from prune_nas.nets.settings import PLACES, SpaceSettings, load_settings, parse_settings, read_settings
from prune_nas.nets.tracing import trace

EXAMPLE = PLACES[1] / "example.toml"


def test_every_built_in_model_has_a_file_and_no_file_lacks_a_model():
    files = {path.stem for place in PLACES for path in place.glob("*.toml")}
    assert files == {*MODELS, EXAMPLE.stem}
    assert all(load_settings(name) != SpaceSettings() for name in MODELS)


def test_the_example_names_slots_of_its_network_and_does_what_it_says():
    settings = parse_settings(read_settings(EXAMPLE), EXAMPLE.name)
    space = trace(f"{EXAMPLE.with_suffix('.py')}:Example", settings=settings).space
    assert space.stage_names == ("large", "middle", "small")
    assert "last.0" not in space.by_name
    tied = space.by_name["two.0.fine.0"]
    assert tied.layers == ("two.0.fine.0", "two.0.coarse.0", "two.1.project.0")
    assert (space.by_name["stem.0"].floor, space.by_name["stem.0"].ceiling) == (16, 64)
    assert space.by_name["one.body.0.0"].multiple == 8
    for item in fields(SpaceSettings):
        assert f"{item.name}" in EXAMPLE.read_text()


@pytest.mark.parametrize("name", ["mine", "../pyproject", "torchvision:resnet18", "/etc/passwd"])
def test_without_a_file_the_defaults_hold(name):
    assert load_settings(name) == SpaceSettings()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"flor": 4}, "there is no key in x.toml 'flor'. Did you mean floor"),
        ({"slots": {"a": {"ceil": 4}}}, r"there is no key in x.toml, \[slots.\"a\"\] 'ceil'. Did you mean ceiling"),
        ({"floor": 0}, "floor must be a positive whole number. Got 0"),
        ({"multiple": True}, "multiple must be a positive whole number. Got True"),
        ({"freeze": "conv"}, "freeze must be a list of names"),
        ({"widening": 0.5}, "widening must be a number of at least 1"),
        ({"slots": {"a": 3}}, "must be a table"),
        ({"slots": 3}, "slots must be a table of tables"),
        ({"tie": ["a", "b"]}, "tie must be a list of lists"),
        ({"tie": [["a"]]}, "at least two slot names"),
    ],
)
def test_wrong_content(data, message):
    with pytest.raises(UsageError, match=message):
        parse_settings(data, "x.toml")


def test_ties_make_one_slot():
    settings = SpaceSettings(tie=(("conv3_1", "conv3_2"), ("conv4_2", "conv5_1", "conv5_2")))
    space = trace("vgg11", settings=settings).space
    assert space.by_name["conv3_1"].layers == ("conv3_1", "conv3_2")
    assert space.by_name["conv4_2"].layers == ("conv4_2", "conv5_1", "conv5_2")
    assert len(space.slots) == 5


@pytest.mark.parametrize(
    ("tie", "message"),
    [
        (("conv1_1", "conv2_1"), "must have one width in the base, and conv1_1, conv2_1 have"),
        (("conv1_1", "conv2_2"), "there is no slot of vgg11 in tie 'conv2_2'. Did you mean conv"),
    ],
)
def test_ties_that_cannot_be(tie, message):
    with pytest.raises(UsageError, match=message):
        trace("vgg11", settings=SpaceSettings(tie=(tie,)))


@pytest.mark.parametrize(
    ("content", "message"),
    [("floor =", "is not TOML"), ("flor = 4", "Did you mean floor"), (None, "cannot read --space")],
)
def test_a_file_of_ones_own_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "space.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_settings(path)
