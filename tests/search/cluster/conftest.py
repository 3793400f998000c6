"""A real PostgreSQL for the tests of many machines."""

import os
import tempfile
from pathlib import Path

import pytest

from .postgres import Postgres, binaries


@pytest.fixture(scope="session")
def postgres():
    """A running server; where it is not installed the test is skipped, unless the machine must have it."""
    # Not below pytest's own folder: the server may run under another account, and pytest closes that folder anew.
    if binaries() is None:
        reason = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("PRUNE_NAS_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="prune-nas-postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        yield server
        server.stop()
