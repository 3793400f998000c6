"""The run directory: who may write it, what it was made for, and how far it has come."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError

from prune_nas.config import Config
from prune_nas.design.files import drop_leftovers, parse_json, write_json
from prune_nas.design.records import SCHEMA
from prune_nas.errors import PruneNasError, UsageError

PHASES = ("supernet", "study", "finals")
_LOCK = ".lock"
_OVER_A_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "afs", "fuse.sshfs")
_PACKAGES = ("prune-nas", "torch", "torchvision", "optuna", "numpy", "scipy", "pandas")


class Run:
    """A run directory held by this process. State lives in its files; this object holds only paths and `run.json`."""

    def __init__(self, path: Path, config: Config, record: dict[str, Any]) -> None:
        """Use `opened`; this only binds the parts."""
        self.path = path
        self.config = config
        self.record = record

    def file(self, name: str) -> Path:
        """The path of one of the run's files."""
        return self.path / name

    def note(self, **values: Any) -> None:
        """Add to `run.json`."""
        self.record |= values
        write_json(self.file("run.json"), self.record)

    def phase(self, name: str, status: str) -> None:
        """Record a phase's status: `waiting`, `running` or `done`."""
        self.note(phases={**self.record["phases"], name: status})

    def checkpoint(self, name: str) -> Path:
        """Where the training called `name` keeps its last epoch."""
        return self.path / "checkpoints" / f"{name.replace(' ', '-')}.safetensors"


@contextlib.contextmanager
def opened(path: Path, config: Config) -> Iterator[Run]:
    """Create or resume the run at `path`, locked against other processes for as long as the context lasts.

    Raises:
        UsageError: the directory holds something else, or a run with another configuration (the difference is shown).
        PruneNasError: another process is working on it, or its `run.json` is damaged.
    """
    refuse(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--run {path} cannot be created: {error.strerror}") from None
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0.5)  # `status` holds it for a moment
    except Timeout:
        raise PruneNasError(
            f"{path} is in use by another process. Wait for it, or follow it with: prune-nas status {path}"
        ) from None
    try:
        drop_leftovers(path)
        yield _load(path, config) if (path / "run.json").exists() else _create(path, config)
    finally:
        lock.release()


def refuse(path: Path) -> None:
    """See that a run may lie at `path`.

    Raises:
        UsageError: there is a file, or a directory that holds something else.
    """
    strangers = [p.name for p in path.iterdir() if p.name != _LOCK] if path.is_dir() else []
    if path.exists() and not path.is_dir():
        raise UsageError(f"--run {path} is a file. Name a directory")
    if strangers and not (path / "run.json").exists() and not all(name.startswith(".run.json.") for name in strangers):
        raise UsageError(f"--run {path} holds other things ({', '.join(sorted(strangers)[:3])}) and no run.json. "
                         "Name a new directory or the directory of a run")  # fmt: skip


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """The kind of network file system that a path lies on; None for a disk of this machine's, or where none can tell.

    Args:
        path: that exists.
        mounts: the content of /proc/mounts.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    here, kinds = path.resolve(), {}
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        if here.is_relative_to(place.replace("\\040", " ") or "?"):
            kinds[len(place)] = kind
    kind = kinds[max(kinds)] if kinds else ""
    return kind if kind.startswith(_OVER_A_NETWORK) else None


def read_json(path: Path, repair: str = "Delete it and run the search again") -> Any:
    """The value in a JSON file of a run, or of another kind with another `repair`.

    Raises:
        PruneNasError: the file is missing or damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PruneNasError(f"{path} is missing. Run the search again to have it written") from None
    except ValueError as error:
        raise PruneNasError(f"{path} is damaged ({error}). {repair}") from None


def _create(path: Path, config: Config) -> Run:
    run = Run(path, config, {"schema": SCHEMA, "version": version("prune-nas"), "commit": _commit()})
    run.note(
        config=config.model_dump(mode="json"),
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        machine=machine(),
        phases=dict.fromkeys(PHASES, "waiting"),
    )
    return run


def _load(path: Path, config: Config) -> Run:
    record = read_json(path / "run.json")
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "config" not in record:
        made = record.get("version", "an unknown version") if isinstance(record, dict) else "something else"
        raise UsageError(f"{path}/run.json was written by {made} and cannot be read by {version('prune-nas')}")
    try:
        before = Config(**record["config"]).model_dump(
            mode="json"
        )  # a setting that is newer than the run is at its default
    except (TypeError, ValidationError) as error:
        raise PruneNasError(
            f"{path}/run.json is damaged: `config` cannot be read ({error}). Restore run.json from a copy, or use "
            "another --run"
        ) from error
    now = config.identity()
    different = [f"  {k}: {before.get(k)!r} there, {v!r} now" for k, v in now.items() if before.get(k) != v]
    if different:
        raise UsageError(
            f"{path} was started with another configuration:\n" + "\n".join(different) + "\nname another --run, "
            "or repeat the command that started it"
        )
    run = Run(path, config, record)
    asked = config.model_dump(mode="json")
    asked["trials"] = max(asked["trials"], before["trials"])
    asked["seeds"] = max(asked["seeds"], before["seeds"])
    for name in ("arms", "schedules", "cases"):
        asked[name] = list(dict.fromkeys([*before[name], *asked[name]]))
    run.note(config=asked)
    return run


def machine() -> Mapping[str, Any]:
    """What a reader of the results must know of this machine."""
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _commit() -> str:
    """The commit of the checkout that this code runs from; empty where it is none."""
    here = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(  # noqa: S603
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
