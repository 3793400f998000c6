"""The database that several machines reach: opened, waited for while it is away, never printed with its password."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prune_nas.errors import MissingError, UsageError

AWAY = (StorageInternalError, SQLAlchemyError)
"""What a call raises while the database cannot be reached."""

TRIES = 3
"""How often a training is begun before it counts as failed: its workers were lost each time."""

_PATIENCE = 900.0  # seconds that a database may be away
_HELD = 60  # that a process may stand still inside a transaction; one upload of a piece of a file fits in
_BEATS = 4  # heartbeats that may be missed before a worker counts as lost

_PATIENT = {
    "postgresql": {
        "connect_args": {
            "connect_timeout": 10,  # a host that is gone without a word is noticed within a minute
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        }
    }
}

T = TypeVar("T")


class NothingWaitsError(Exception):
    """Who asked for a trial came too late: somebody else took the last one that waited."""


class Storage(RDBStorage):
    """Optuna's, which outlives an outage of the database and holds no trial that nobody put into it.

    Optuna's heartbeat ends at its first failure; and when the database is back, nobody's silence means anything until
    everybody has had the time for a sign of life.
    """

    _down: float | None = None
    _back = -math.inf

    def record_heartbeat(self, trial_id: int) -> None:
        """Record one beat, or leave it to the next."""
        with contextlib.suppress(*AWAY):
            self.beat(trial_id)

    def beat(self, trial_id: int) -> None:
        """Record one beat: from then on the trial is given up when no other follows.

        Raises:
            StorageInternalError, SQLAlchemyError: the database is away (`AWAY`).
        """
        self._watched(lambda: super(Storage, self).record_heartbeat(trial_id))

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Make a trial from its template; without one, Optuna found none that waits and would make one up.

        Raises:
            NothingWaitsError: there is no template.
        """
        if template_trial is None:
            raise NothingWaitsError
        return super()._create_new_trial(study_id, template_trial)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        found: list[int] = self._watched(lambda: super(Storage, self)._get_stale_trial_ids(study_id))
        return found if time.monotonic() - self._back > (self.grace_period or 0) else []

    def _watched(self, call: Callable[[], T]) -> T:
        """What `call` returns; notes how long the database was away."""
        try:
            result = call()
        except AWAY:
            self._down = time.monotonic() if self._down is None else self._down
            raise
        if self._down is not None and time.monotonic() - self._down > (self.heartbeat_interval or 0):
            self._back = time.monotonic()
        self._down = None
        return result


def _again(study: optuna.Study, lost: FrozenTrial) -> None:
    """Queue a lost trial again, as Optuna's own callback does, but without what its worker wrote into it."""
    history = [*lost.system_attrs.get("retry_history", []), lost.number]
    if len(history) >= TRIES or "result" in lost.user_attrs or "order" not in lost.user_attrs:
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            user_attrs={name: lost.user_attrs[name] for name in ("key", "order")},
            system_attrs={"fixed_params": {}, "failed_trial": history[0], "retry_history": history},
        )
    )


def parse_url(text: str) -> URL:
    """The address of a database that can be worked with.

    Raises:
        UsageError: it is none, or of another kind.
        MissingError: the driver is not installed.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # which may quote a part of the password
        raise UsageError(
            "--storage must be like postgresql://user:password@host/database, special characters percent-encoded. The "
            "given text is not such a URL"
        ) from None
    if "@" in (url.host or ""):
        raise UsageError("--storage: percent-encode the @ in the password, as %40")
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise MissingError("--storage needs psycopg: pip install 'prune-nas[postgres]'")
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        return url
    raise UsageError(f"--storage takes postgresql:// (many machines) or sqlite:/// (one worker). Got {kind}")


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
        try:
            return _opened(url, heartbeat)
        except AWAY:  # two that make the tables of a new database at once get in each other's way
            time.sleep(1)
            return _opened(url, heartbeat)
    except (*AWAY, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if url.password:
            reason = reason.replace(str(url.password), "***")
        raise MissingError(
            f"the database {masked(url)} cannot be used: {reason}. Check that it runs, that this machine can reach "
            "it, and that name and password are right"
        ) from None


def _opened(url: URL, heartbeat: int) -> Storage:
    storage = Storage(
        url.render_as_string(hide_password=False),
        engine_kwargs={"pool_pre_ping": True, **_PATIENT.get(url.get_backend_name(), {})},
        heartbeat_interval=heartbeat,
        grace_period=grace(heartbeat),
        heartbeat_stale_trial_callback=_again,
    )
    if url.get_backend_name() == "postgresql":
        event.listen(storage.engine, "connect", _hold_nothing)
        storage.engine.dispose()  # those connections that were there before
    return storage


def _hold_nothing(connection: Any, _: Any) -> None:
    """Have the server end a connection whose process stopped inside a transaction: its locks would stop all others."""
    before, connection.autocommit = connection.autocommit, True
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_HELD}s'")
    connection.autocommit = before


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
                    f"the database was away for {patience / 60:.0f} minutes. Repeat the command once it is back"
                ) from error
            if wait == 0.5:
                say("the database is away. Waiting for it")
            time.sleep(wait)
            wait = min(2 * wait, 10.0)
