"""Fetching a file of known checksum from whichever of its mirrors answers."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock

from prune_nas.errors import MissingError

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that have come and the bytes there are (0 if the server does not say)."""

_CHUNK = 1 << 20
_ATTEMPTS = 5  # at one mirror, each continuing where the last one broke off


def fetch(urls: Sequence[str], target: Path, md5: str, *, progress: Progress, timeout: float = 20.0) -> None:
    """Download `target` unless it is there; processes that ask for it at the same time wait for one of them.

    What has come stays in `<target>.part` if the connection breaks, and the next attempt, at any mirror or in any
    later run, goes on from there.

    Args:
        urls: mirrors of the same bytes, tried in order.
        target: the file; its folder is made.
        md5: the checksum that decides whether the file is the right one.
        progress: told of every mebibyte.
        timeout: seconds that a server may be silent.

    Raises:
        MissingError: no mirror gave the file; says why for each.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with FileLock(f"{target}.lock"):
        if target.exists():
            return
        failures = []
        for url in urls:
            failure = _from_mirror(url, part, md5, progress, timeout)
            if failure is None:
                part.replace(target)
                return
            failures.append(f"{url}: {failure}")
    raise MissingError(f"could not download {target.name}: {'; '.join(failures)}")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex: what the data sets' authors publish, against damage and not against malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def show_progress(done: int, total: int) -> None:
    """Keep one line on a terminal's stderr up to date; a log file is spared."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:.0f}" if total else ""
        sys.stderr.write(f"\rfetching or decoding: {done / 1e6:.0f}{share} MB" + ("\n" if done == total else ""))
        sys.stderr.flush()


def _from_mirror(url: str, part: Path, md5: str, progress: Progress, timeout: float) -> str | None:
    """Complete `part` from one mirror; returns why that failed."""
    failure = ""
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        try:
            _append(url, part, progress, timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = str(error) or type(error).__name__
            if _size(part) <= before:
                return failure
            time.sleep(0.2 * attempt)
            continue
        found = md5_of(part)
        if found == md5:
            return None
        part.unlink()
        failure = f"wrong checksum (md5 {found}, not {md5})"
        if not before:
            return failure
        # The bytes that were there before may be what is wrong: once more from the start.
    return failure


def _append(url: str, part: Path, progress: Progress, timeout: float) -> None:
    """Add what is missing from `part`, or everything if the server cannot continue a file."""
    have = _size(part)
    headers = {"User-Agent": "prune-nas", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the addresses are constants of this package
    try:
        reply = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing: the checksum says whether it is right
        raise
    with reply:
        continues = reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if continues else 0
        length = int(reply.headers.get("Content-Length") or 0)
        total = done + length if length else 0
        with part.open("ab" if continues else "wb") as file:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if done < total:
        raise ConnectionError(f"the connection broke after {done} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
