"""A real PostgreSQL for the tests of many machines."""

import os

import pytest

from .postgres import Postgres, binaries


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A running server; where it is not installed the test is skipped, unless the machine must have it."""
    if binaries() is None:
        reason = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("PRUNE_NAS_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()
