"""The files in search_spaces/."""

from __future__ import annotations

import pytest

from prune_nas.errors import UsageError
from prune_nas.nets.models import MODELS
from prune_nas.nets.settings import PLACES, SpaceSettings, load_settings, parse_settings


def test_every_built_in_model_has_a_file_and_no_file_lacks_a_model():
    files = {path.stem for place in PLACES for path in place.glob("*.toml")}
    assert files == set(MODELS)
    assert all(load_settings(name) != SpaceSettings() for name in MODELS)


@pytest.mark.parametrize("name", ["mine", "../pyproject", "torchvision:resnet18", "/etc/passwd"])
def test_without_a_file_the_defaults_hold(name):
    assert load_settings(name) == SpaceSettings()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"flor": 4}, "unknown key in x.toml 'flor'; did you mean floor"),
        ({"slots": {"a": {"ceil": 4}}}, r"unknown key in x.toml, \[slots.\"a\"\] 'ceil'; did you mean ceiling"),
        ({"floor": 0}, "floor must be a positive whole number; got 0"),
        ({"multiple": True}, "multiple must be a positive whole number; got True"),
        ({"freeze": "conv"}, "freeze must be a list of names"),
        ({"widening": 0.5}, "widening must be a number of at least 1"),
        ({"slots": {"a": 3}}, "must be a table"),
        ({"slots": 3}, "slots must be a table of tables"),
    ],
)
def test_wrong_content(data, message):
    with pytest.raises(UsageError, match=message):
        parse_settings(data, "x.toml")
