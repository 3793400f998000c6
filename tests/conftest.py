"""What every test shares: few threads, so that tests beside each other do not fight for the cores; one finished run."""

import os
import shutil

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)  # the same examples everywhere, at any speed
settings.load_profile("steady")


@pytest.fixture
def cli(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from prune_nas.cli import _run, app

    def call(*arguments):
        code = _run(lambda: app([str(a) for a in arguments], standalone_mode=False))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def _searched(tmp_path_factory):
    from prune_nas.cli import _run, app
    from tests.search.tiny import arguments

    run = tmp_path_factory.mktemp("runs") / "searched"
    assert _run(lambda: app(arguments(run, arms="found,uniform,inherited"), standalone_mode=False)) == 0
    return run


@pytest.fixture
def searched(_searched, tmp_path):
    """A copy of a finished tiny search (found, uniform and inherited arms), to do with as one likes."""
    return shutil.copytree(_searched, tmp_path / "searched")
