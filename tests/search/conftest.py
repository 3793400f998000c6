import pytest

from prune_nas.cli import _run, app


@pytest.fixture
def cli(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        code = _run(lambda: app([str(a) for a in arguments], standalone_mode=False))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
