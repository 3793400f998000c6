"""Searches from end to end on networks that are not built in, or branch."""

import json

import pytest

from prune_nas.nets.settings import PLACES
from prune_nas.nets.specs import load
from tests.search.tiny import arguments

EXAMPLE = PLACES[1] / "example.py"
SHORT = {"arms": "found,uniform,inherited", "trials": 2, "seeds": 1, "epochs": 1, "supernet_epochs": 1}


def test_a_file_of_ones_own_with_settings(cli, tmp_path):
    run, model = tmp_path / "run", f"{EXAMPLE}:Example"
    code, _, err = cli(*arguments(run, **SHORT, model=model, space=EXAMPLE.with_suffix(".toml"), base_width=1))
    assert code == 0, err
    widths = json.loads((run / "best.json").read_text())["widths"]
    assert widths["stem.0"] >= 16
    assert widths["one.body.0.0"] % 8 == 0
    assert (run / "report.html").stat().st_size > 10_000
    assert load(run / "best.json", model=model).stem[0].out_channels == widths["stem.0"]


@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("torchvision:mobilenet_v3_small", 0.25),
        pytest.param("preresnet164", 0.25, marks=pytest.mark.slow),
        pytest.param("torchvision:shufflenet_v2_x0_5", 0.5, marks=pytest.mark.slow),
        pytest.param("timm:convnext_atto", 0.25, marks=pytest.mark.slow),
    ],
)
def test_networks_that_branch(cli, tmp_path, model, width):
    run = tmp_path / "run"
    penalty = {"penalty": "none"} if "convnext" in model else {}
    code, _, err = cli(*arguments(run, **SHORT, **penalty, model=model, base_width=width, image_size=32))
    assert code == 0, err
    assert (run / "report.html").exists()
    assert load(run / "best.json") is not None
