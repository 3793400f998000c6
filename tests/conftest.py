"""What every test shares: few threads, so that tests beside each other do not fight for the cores; one finished run."""

import os
import shutil

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)  # the same examples everywhere, at any speed
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def _brief_timings():
    """Every run ends with latencies, which one process measures at a time; how well is a matter of their own tests."""
    from prune_nas.search import timing

    timing._SECONDS = 0.01


@pytest.fixture
def cli(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from prune_nas.cli import run

    def call(*arguments):
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def _searched(tmp_path_factory):
    from prune_nas.cli import run as main
    from tests.search.tiny import resuming

    run = tmp_path_factory.mktemp("runs") / "searched"
    assert main(resuming(run, figures=True, arms="found,uniform,inherited")) == 0
    return run


@pytest.fixture
def searched(_searched, tmp_path):
    """A copy of a finished tiny search (found, uniform and inherited arms), to do with as one likes."""
    return shutil.copytree(_searched, tmp_path / "searched")
