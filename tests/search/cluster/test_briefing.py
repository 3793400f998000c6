"""What a worker demands of its machine before it trains anything."""

import json

import pytest

from prune_nas.config import Config
from prune_nas.errors import UsageError
from prune_nas.search.cluster.briefing import Place, briefing, differences, place_of, workplace
from prune_nas.search.setup import prepare
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision
from tests.search.tiny import SETTINGS


def brief(**changes):
    names = {k.replace("-", "_"): v for k, v in SETTINGS.items() if k not in ("preset", "budget")}
    config = Config(**{**names, "budget": ("macs=0.4",), **changes})
    device, data, traced = prepare(config)
    return briefing(config, traced, Setting(data, device, Precision("fp32")))


@pytest.fixture(scope="module")
def plain():
    return brief()


def test_a_worker_makes_the_run_s_own_workplace(plain):
    place = workplace(plain, Place(threads=1))
    assert json.loads(json.dumps(place.traced.space.to_dict())) == plain["space"]
    assert place.setting.data.fingerprint == plain["fingerprint"]
    assert place.config.trials == 4


def test_the_run_s_own_settings_of_the_space_travel(tmp_path):
    (tmp_path / "own.toml").write_text("multiple = 8\n")
    own = brief(space=tmp_path / "own.toml")
    (tmp_path / "own.toml").unlink()
    assert str(tmp_path) not in str(own)
    place = workplace(own, Place(threads=1))
    assert {slot.multiple for slot in place.traced.space.slots} == {8}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code": "0123"}, "Install the same version"),
        ({"schema": 99}, "Install the same version"),
        ({"fingerprint": "0123"}, "other data here"),
        ({"space": None}, "damaged"),
        ({"config": {}}, "damaged"),
        ({"config": {"model": "vgg11", "dataset": "digits", "epochs": -1}}, "damaged"),
    ],
)
def test_what_does_not_fit_this_machine_is_refused(plain, change, says):
    with pytest.raises(UsageError, match=says):
        workplace({**plain, **change}, Place(threads=1))


def test_another_space_is_refused(plain):
    other = {**plain, "config": {**plain["config"], "base_width": 0.25}}
    with pytest.raises(UsageError, match="other layers here"):
        workplace(other, Place(threads=1))


def test_a_database_cannot_have_code_imported(plain, tmp_path):
    bait = tmp_path / "bait.py"
    bait.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    named = {**plain, "config": {**plain["config"], "model": f"{bait}:net"}}
    with pytest.raises(UsageError, match="If you trust it"):
        workplace(named, Place(threads=1))
    assert not (tmp_path / "ran").exists()


def test_one_run_s_briefing_differs_from_another_s_in_words(plain):
    assert differences(plain, brief(trials=9, seeds=1)) == []
    assert differences(plain, {**plain, "config": {**plain["config"], "epochs": 3}}) == ["epochs: 2 there, 3 now"]
    assert differences({}, plain)


def test_a_briefing_comes_back_from_a_database_as_it_was_put_in(plain):
    assert json.loads(json.dumps(plain)) == plain
    assert differences(json.loads(json.dumps(plain)), plain) == []


def test_runs_that_could_be_confused_have_folders_of_their_own(plain):
    other = {**plain, "config": {**plain["config"], "train_size": 150}}
    places = {
        place_of("a", plain),
        place_of("b", plain),
        place_of("a", other),
        place_of("a", {**plain, "fingerprint": ""}),
    }
    assert len(places) == 4
    assert place_of("a", json.loads(json.dumps(plain))) == place_of("a", plain)
