"""The database that several machines reach: opened, waited for while it is away, never printed with its password."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prune_nas.errors import MissingError, UsageError

AWAY = (StorageInternalError, SQLAlchemyError)
"""What a call raises while the database cannot be reached."""

TRIES = 3
"""How often a training is begun before it counts as failed: its workers were lost each time."""

_PATIENCE = 900.0  # seconds that a database may be away
_BEATS = 4  # heartbeats that may be missed before a worker counts as lost

T = TypeVar("T")


class Storage(RDBStorage):
    """Optuna's, whose heartbeat outlives a restart of the database: its thread would end at the first failure."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Record one beat, or leave it to the next."""
        try:
            super().record_heartbeat(trial_id)
        except AWAY:
            return


def parse_url(text: str) -> URL:
    """The address of a database that can be worked with.

    Raises:
        UsageError: it is none, or of another kind.
        MissingError: the driver is not installed.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise UsageError("--storage must be like postgresql://user:password@host/database; got no such URL") from None
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise MissingError("--storage needs psycopg: pip install 'prune-nas[postgres]'")
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        return url
    raise UsageError(f"--storage takes postgresql:// (many machines) or sqlite:/// (one worker); got {kind}")


def masked(url: URL) -> str:
    """The address as it may be shown: without password and options, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def grace(heartbeat: int) -> int:
    """Seconds without a heartbeat after which a worker counts as lost."""
    return _BEATS * heartbeat


def open_storage(url: URL, heartbeat: int) -> Storage:
    """The storage at an address, its tables made where they are not there.

    Args:
        url: from `parse_url`.
        heartbeat: seconds between the signs of life that a worker gives.

    Raises:
        MissingError: the database cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    try:
        return Storage(
            url.render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=grace(heartbeat),
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=TRIES - 1),
        )
    except (*AWAY, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if url.password:
            reason = reason.replace(str(url.password), "***")
        raise MissingError(
            f"the database {masked(url)} cannot be used: {reason}; see that it runs, that this machine may reach it, "
            "and that name and password are right"
        ) from None


def patiently(call: Callable[[], T], say: Callable[[str], None], patience: float = _PATIENCE) -> T:
    """What `call` returns, called again for as long as the database is away; it must bear being repeated.

    Raises:
        MissingError: the database stays away.
    """
    end, wait = time.monotonic() + patience, 0.5
    while True:
        try:
            return call()
        except AWAY as error:
            if time.monotonic() > end:
                raise MissingError(
                    f"the database was away for {patience / 60:.0f} minutes; repeat the command once it is back"
                ) from error
            if wait == 0.5:
                say("the database is away; waiting for it")
            time.sleep(wait)
            wait = min(2 * wait, 10.0)
