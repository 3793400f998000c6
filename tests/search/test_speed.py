"""What was timed within an hour is not timed again, and nothing that lies in the cache can do harm."""

import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from prune_nas.errors import UsageError
from prune_nas.nets.tracing import trace
from prune_nas.search import speed
from prune_nas.search.speed import precision_for, seconds_per_image
from prune_nas.training.data import load
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prune-nas" / "speeds"


@pytest.fixture(scope="module")
def job():
    data = load("digits", image_size=16, train_size=64, val_size=32)
    traced = trace("vgg11", input_shape=data.input_shape, base_width=0.125)
    return SimpleNamespace(traced=traced, setting=Setting(data, CPU, Precision("fp32")), batch=16)


@pytest.fixture
def timed(monkeypatch):
    """Every step that is timed takes one second longer than the one before."""
    steps = []
    monkeypatch.setattr(speed, "_fastest_step", lambda *_: steps.append(1) or float(len(steps)))
    return steps


def test_a_real_step_is_timed(folder, job):
    assert 0 < seconds_per_image(job, job.traced.space.base, 1) < 10


def test_the_same_step_is_timed_once(folder, job, timed):
    first = seconds_per_image(job, job.traced.space.base, 1)
    assert first == seconds_per_image(job, job.traced.space.base, 1) == 1 / 16
    assert len(timed) == len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("other", ["widths", "threads", "batch", "precision", "network", "units"])
def test_another_step_is_timed_for_itself(folder, job, timed, other, monkeypatch):
    seconds_per_image(job, job.traced.space.base, 1)
    widths, threads, changed = job.traced.space.base, 1, SimpleNamespace(**vars(job))
    match other:
        case "widths":
            widths = job.traced.space.narrowest
        case "threads":
            threads = 2
        case "batch":
            changed.batch = 8
        case "precision":
            changed.setting = replace(job.setting, precision=Precision("bf16"))
        case "units":
            here = speed.has_amx()
            monkeypatch.setattr(speed, "has_amx", lambda: not here)
        case "network":
            changed.traced = trace("vgg16", input_shape=job.setting.data.input_shape, base_width=0.125)
            widths = changed.traced.space.base
    seconds_per_image(changed, widths, threads)
    assert len(timed) == 2


def test_a_latency_formula_is_no_other_network(folder, job, timed):
    seconds_per_image(job, job.traced.space.base, 1)
    fitted = replace(job.traced, space=replace(job.traced.space, latency=(("a", 1.0),), base_latency=2.0))
    seconds_per_image(SimpleNamespace(**{**vars(job), "traced": fitted}), job.traced.space.base, 1)
    assert len(timed) == 1


@pytest.mark.parametrize("age", [-3600, 2 * 3600])
def test_after_an_hour_it_is_timed_anew_and_what_is_old_goes(folder, job, timed, age):
    seconds_per_image(job, job.traced.space.base, 1)
    seconds_per_image(job, job.traced.space.narrowest, 1)
    then = time.time() - age
    for path in folder.iterdir():
        os.utime(path, (then, then))
    assert seconds_per_image(job, job.traced.space.base, 1) == 3 / 16
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "nonsense", "NaN", "-1", "0", "1e999", "[]", '{"a": 1}', '"1"', "[" * 100_000])
def test_a_damaged_file_is_as_good_as_none(folder, job, timed, content):
    seconds_per_image(job, job.traced.space.base, 1)
    (path,) = folder.iterdir()
    path.write_text(content)
    assert seconds_per_image(job, job.traced.space.base, 1) == 2 / 16
    assert json.loads(path.read_text()) == 2 / 16


def test_without_a_cache_everything_is_timed(tmp_path, monkeypatch, job, timed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [seconds_per_image(job, job.traced.space.base, 1) for _ in range(2)] == [1 / 16, 2 / 16]


def test_what_did_not_fit_is_tried_again(folder, job, monkeypatch):
    def full(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(speed, "_fastest_step", full)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            seconds_per_image(job, job.traced.space.base, 1)
    assert not folder.exists()


def test_the_number_of_threads_is_left_as_it_was(folder, job, timed):
    before = torch.get_num_threads()
    seconds_per_image(job, job.traced.space.base, before + 1)
    assert torch.get_num_threads() == before


def test_a_precision_is_chosen_once_an_hour(folder, job, monkeypatch):
    chosen = Precision("bf16", (("fp32", 0.2, 1.0), ("bf16", 0.1, 0.99)))
    calls = []
    monkeypatch.setattr(speed, "choose", lambda wanted, *_: calls.append(wanted) or chosen)
    batch = next(iter(job.setting.data.train.batches(16, device=CPU)))
    subject = job.traced, job.traced.space.base, batch, CPU
    assert precision_for("auto", *subject) == precision_for("auto", *subject) == chosen
    assert calls == ["auto"]
    (path,) = folder.iterdir()
    for damaged in ({"name": "fp8", "checked": []}, {"name": "bf16", "checked": [["int4", 1, 1]]}, {"name": "fp32"}, 7):
        path.write_text(json.dumps(damaged))
        assert precision_for("auto", *subject) == chosen
    assert len(calls) == 5


def test_a_precision_that_was_named_is_not_looked_up(folder, job):
    batch = next(iter(job.setting.data.train.batches(16, device=CPU)))
    assert precision_for("bf16", job.traced, job.traced.space.base, batch, CPU) == Precision("bf16")
    with pytest.raises(UsageError, match="fp33"):
        precision_for("fp33", job.traced, job.traced.space.base, batch, CPU)
    assert not folder.exists()
