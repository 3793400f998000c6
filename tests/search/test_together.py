"""A whole search under `torchrun`: two processes, one run."""

import os
import subprocess
import sys

import pytest

from prune_nas.config import Config
from prune_nas.design.records import Curve, Final, read_table
from prune_nas.errors import UsageError
from prune_nas.search import together
from prune_nas.training.team import Team
from tests.search.tiny import arguments

FEW = {"trials": 2, "finalists": 0, "seeds": 1, "arms": "found,uniform,inherited"}


def test_two_processes_of_torchrun_do_one_search(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--local-addr",
               "127.0.0.1", "-m", "--", "prune_nas", *arguments(run, **FEW)]  # fmt: skip
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # one process decides and speaks
    finals = read_table(run / "finals.csv", Final)
    assert {row.arm for row in finals} >= {"found", "inherited", "uniform"}
    epochs = [(row.trial, row.epoch) for row in read_table(run / "curves.csv", Curve)]
    assert len(epochs) == len(set(epochs))
    assert list((run / "checkpoints").iterdir()) == []
    assert (run / "best.safetensors").exists()


@pytest.mark.parametrize("other", [{"workers": 2}, {"devices": ("cpu",)}, {"storage": "postgresql://db/x"}])
def test_trainings_are_shared_out_in_one_way_only(monkeypatch, other):
    monkeypatch.setattr(together, "join", lambda: Team(0, 2))
    with pytest.raises(UsageError, match="leave --storage"):
        together.follows(Config(model="m", dataset="d", **other))
