"""A latency budget from end to end, on a clock that is a function of the network: no timing decides a test."""

import json
from dataclasses import replace

import pytest
from torch import nn

from prune_nas.design.latency import Sample
from prune_nas.design.records import TrialRow, read_table
from prune_nas.design.space import Space
from prune_nas.nets import latency
from prune_nas.nets.latency import Latency
from prune_nas.nets.tracing import trace
from prune_nas.search import timing
from tests.search.tiny import arguments

BUDGET = "latency=0.6"


class Clock:
    """A stand-in for `latency.compare`: half a millisecond, and a nanosecond for each parameter of a convolution."""

    def __init__(self):
        self.rounds, self.factor = [], 1.0

    def __call__(self, networks, input_shape, *, batch, device, threads, seconds):
        self.rounds.append(list(networks))
        return {name: self._time(network, batch, device, threads) for name, network in networks.items()}

    def _time(self, network, batch, device, threads):
        weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
        return Latency(self.factor * (0.5 + 1e-4 * weights), 0.01, batch, threads or 1, device, "float32", 10)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "compare", clock)
    return clock


def test_a_search_under_a_latency_keeps_to_it_and_compares_at_equal_latency(clock, cli, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, budget=BUDGET, arms="found,uniform,taper", seeds=1, train_size=800, epochs=4))
    assert code == 0, err
    assert "Its median error near the limit is" in err
    space = Space.from_dict(json.loads((run / "space.json").read_text()))
    limit = 0.6 * space.cost(space.base).latency
    trials = read_table(run / "trials.csv", TrialRow)
    times = [space.cost(json.loads(trial.widths)).latency for trial in trials]
    assert all(0.85 * limit < ms <= limit for ms in times)
    verdict = json.loads((run / "verdict.json").read_text())[0]
    assert "uniform" in verdict["latency"]
    assert {c["right"] for c in verdict["comparisons"]} >= {"uniform"}
    said = [sentence for sentence in verdict["sentences"] if "ms asked for" in sentence]
    assert said == []
    kept = json.loads((run / "latency.json").read_text())
    assert kept["conditions"] == {"batch": 1, "threads": 1, "device": "cpu", "dtype": "float32"}
    assert kept["error"] < 0.1
    assert {"widths", "median_ms", "iqr_ms", "near", "predicted_ms"} == set(kept["samples"][0])

    measured = len(clock.rounds)
    clock.factor = 2.0  # the machine is slower now
    again = arguments(run, budget=BUDGET, arms="found,uniform,taper", seeds=2, train_size=800, epochs=4)
    code, _, err = cli(*again)
    assert code == 0, err
    assert len(clock.rounds) == measured  # the formula and the times of the arms are the run's
    assert json.loads((run / "verdict.json").read_text())[0]["latency"] == verdict["latency"]

    (run / "verdict.json").unlink()
    code, _, err = cli(*again)
    assert code == 0, err
    assert len(clock.rounds) == measured + 1  # the arms again
    assert json.loads((run / "latency.json").read_text()) == kept
    verdict = json.loads((run / "verdict.json").read_text())[0]
    said = next(sentence for sentence in verdict["sentences"] if "ms asked for" in sentence)
    assert "Search again with latency=" in said


def test_a_latency_out_of_reach_ends_before_any_training(clock, cli, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(*arguments(run, budget="latency=0.1ms"))
    assert code == 4
    assert "0.1 ms" in err
    assert not (run / "supernet.safetensors").exists()


def test_a_damaged_formula_is_named(clock, cli, tmp_path):
    run = tmp_path / "run"
    cli(*arguments(run, budget="latency=0.1ms"))
    (run / "latency.json").write_text('{"terms": {"params": "fast"}}')
    code, _, err = cli(*arguments(run, budget="latency=0.1ms"))
    assert code == 1
    assert "latency.json is damaged" in err


def test_inspect_measures_what_a_latency_takes(clock, cli):
    code, out, err = cli("inspect", "--model", "vgg11", "--budget", BUDGET, "--json")
    assert code == 0, err
    shown = json.loads(out)
    space = trace("vgg11").space
    assert shown["budget_latency"] > 0.5
    assert shown["budget_macs"] < space.cost(space.base).macs


def test_times_that_do_not_agree_are_doubted():
    space = trace("vgg11", base_width=0.25).space
    samples = [Sample(space.base, 5.0, 0.1, near=False)]
    fitted = replace(space, latency=(("constant", 5.0),), base_latency=5.0)
    clear = timing.Timing(timing.Conditions(1, 1, "cpu"), tuple(samples), 0.02)
    assert timing._doubt(fitted, clear, [5.0, 5.2]) == ""
    assert "the unpruned network took 4 to 6 ms" in timing._doubt(fitted, clear, [4.0, 6.0, 5.0])
    assert "30 % off near the limit" in timing._doubt(fitted, replace(clear, error=0.3), [5.0])
    off = replace(fitted, latency=(("constant", 8.0),))
    assert "the formula gives the unpruned network 8 ms, and 5 ms were measured" in timing._doubt(off, clear, [5.0])
