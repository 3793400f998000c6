"""A PostgreSQL server of a test's own, on 127.0.0.1 and a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

SECRET = "pass-word-of-the-test"  # noqa: S105


def binaries() -> Path | None:
    """The folder with `initdb`, if the server is installed."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))


def _account() -> str | None:
    """Whom the server must run as: it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Postgres:
    """One server; `start` and `stop` may be repeated."""

    def __init__(self, folder: Path) -> None:
        place = binaries()
        assert place is not None
        self._bin, self._data, self._as = place, folder / "data", _account()
        folder.mkdir(parents=True, exist_ok=True)
        if self._as:
            for path in (folder, *folder.parents):
                if path.owner() == "root" and path != Path("/") and not path.stat().st_mode & 0o001:
                    path.chmod(path.stat().st_mode | 0o011)
            shutil.chown(folder, self._as)
        secret = folder / "secret"
        secret.write_text(SECRET + "\n")
        if self._as:
            shutil.chown(secret, self._as)
        self._run("initdb", "-D", self._data, "-A", "scram-sha-256", "-U", "nas", "--pwfile", secret, "-N")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://nas:{SECRET}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._data.parent / "log", "-o", settings, "start")

    def stop(self) -> None:
        """Stop at once, as a machine does that loses its power."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        prefix = ["runuser", "-u", self._as, "--"] if self._as else []
        command = [*prefix, str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=program != "pg_ctl", text=True, cwd="/")
        assert done.returncode == 0, f"{program}: {done.stderr}"
