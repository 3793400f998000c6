"""The errors a user can meet, each with the exit code of the command line.

Inner code states the fact; every message names what must hold, what was given, and the repair.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20  # names in one message


class PruneNasError(Exception):
    """Something failed that the message explains; the command line prints it and leaves with `exit_code`."""

    exit_code = 1


class UsageError(PruneNasError):
    """A flag, a name, a file or a value that cannot be understood (exit code 2)."""

    exit_code = 2


class MissingError(PruneNasError):
    """Something this machine lacks: a data set, a device, an optional package (exit code 3)."""

    exit_code = 3


class BudgetError(PruneNasError):
    """A budget that no network of the space meets (exit code 4)."""

    exit_code = 4


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that is not in a list, with its three nearest neighbours, or with the list if it is short.

    Args:
        what: the kind of thing that was named, such as "model".
        name: the name that was given.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {listed}"
    return UsageError(f"there is no {what} {name!r}. {hint}")
