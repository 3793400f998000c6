"""What a run works with: the number format is checked once, and again only where it may have become slow."""

import pytest

from prune_nas.config import resolve
from prune_nas.errors import PruneNasError
from prune_nas.search import setup
from prune_nas.search.progress import View
from prune_nas.search.rundir import opened
from prune_nas.training.precision import Precision
from tests.search.tiny import SETTINGS


def test_a_run_goes_on_in_another_format_where_its_own_is_far_slower(tmp_path, monkeypatch, capsys):
    asked = {name.replace("-", "_"): value for name, value in SETTINGS.items()}
    config = resolve({**asked, "budget": ("macs=0.4",), "precision": "auto"})
    device, data, traced = setup.prepare(config)
    here = Precision("fp32", (("fp32", 0.1, 1.0), ("bf16", 1.0, 1.0)))
    monkeypatch.setattr(setup, "precision_for", lambda *args, **options: here)
    with opened(tmp_path / "run", config) as run:
        run.note(device="cpu", precision=Precision("bf16", (("fp32", 0.2, 1.0), ("bf16", 0.1, 1.0))).to_dict())
        setting = setup.setting_of(run, traced, data, device, View(quiet=False))
        assert setting.precision == Precision("fp32", here.checked, before=("bf16",))
        assert "bf16 is far slower here than fp32, so the run continues in fp32" in capsys.readouterr().err
    monkeypatch.setattr(setup, "precision_for", lambda *args, **options: pytest.fail("it was checked again"))
    with opened(tmp_path / "run", config) as run:
        assert setup.setting_of(run, traced, data, device, View(quiet=True)).precision == setting.precision


def test_a_run_that_moves_to_another_kind_of_device_keeps_its_first_format_on_record(tmp_path, monkeypatch):
    asked = {name.replace("-", "_"): value for name, value in SETTINGS.items()}
    config = resolve({**asked, "budget": ("macs=0.4",), "precision": "auto"})
    device, data, traced = setup.prepare(config)
    monkeypatch.setattr(setup, "precision_for", lambda *args, **options: Precision("fp32"))
    with opened(tmp_path / "run", config) as run:
        run.note(device="cuda", precision=Precision("bf16").to_dict())
        assert setup.setting_of(run, traced, data, device, View(quiet=True)).precision.before == ("bf16",)


@pytest.mark.parametrize(
    "precision", [7, {"name": "bf16"}, {"name": "fp8", "checked": []}, {"name": "bf16", "checked": [1]}]
)
def test_a_damaged_precision_of_a_run_is_said(tmp_path, precision):
    asked = {name.replace("-", "_"): value for name, value in SETTINGS.items()}
    config = resolve({**asked, "budget": ("macs=0.4",)})
    device, data, traced = setup.prepare(config)
    with opened(tmp_path / "run", config) as run:
        run.note(device="cpu", precision=precision)
        with pytest.raises(PruneNasError, match=r"run\.json is damaged: `precision`"):
            setup.setting_of(run, traced, data, device, View(quiet=True))
