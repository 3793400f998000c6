"""The command line: a thin layer over the calls that Python users make.

Progress and messages go to stderr, results to stdout. Commands import what they need when they run, so that
`--help`, `plot`, `report` and `status` start without torch.
"""

import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import typer

from prune_nas.cli import comparing, guiding, networks, reading, searching, transferring, working
from prune_nas.cli.common import app
from prune_nas.errors import PruneNasError

INTERRUPTED = 130
_BUDGET = re.compile(r"(macs|params|latency|weights)=[\d.]")
_EACH = "Give every budget its -b: -b macs=0.2 -b params=0.1. For both bounds at once: -b macs=0.2,params=0.1"
_RESUMABLE = "Interrupted. Repeat the command to continue: finished trainings stay finished."


_ORDER = (
    "search",
    "inspect",
    "transfer",
    "rules",
    "compare",
    "train",
    "export",
    "plot",
    "report",
    "status",
    "worker",
    "guide",
)
app.registered_commands.sort(
    key=lambda one: (
        (*_ORDER, "z").index(getattr(one.callback, "__name__", "z"))
        if getattr(one.callback, "__name__", "z") in _ORDER
        else len(_ORDER)
    )
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; the signal to terminate is taken as Ctrl-C is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = run(arguments)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A thread of torch.distributed that lets go of its last tensor while Python ends aborts the process, one time
        # in some tens, and destroy_process_group does not end those threads.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever goes wrong ends in one message on stderr."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if _loose_budget(given):
        return _fail(_EACH, 2)
    try:
        app(given)
    except SystemExit as done:  # Typer has ended: with a result, or with its own message about the flags
        code = done.code if isinstance(done.code, int) else 1
        return _fail(_RESUMABLE, code) if code == INTERRUPTED else code
    except PruneNasError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(_RESUMABLE, INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        return 1
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return _fail(f"{error.filename}: {error.strerror}. Name another place.", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{where}{error.strerror or error}. Free some space or name another place, then repeat the command.", 1
        )
    except Exception as error:
        return _unforeseen(error)
    return 0


def _unforeseen(error: Exception) -> int:
    """What an error that no other branch knows ends in: an interruption, a full memory, or a fault of ours."""
    if _was_interrupted(error):  # and what then cleaned up raised an error of its own
        return _fail(_RESUMABLE, INTERRUPTED)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's on a CPU
        return _fail("The memory is full. Take a smaller --base-width, --batch or --image-size.", 1)
    traceback.print_exception(error)
    return _fail("This is a fault in prune-nas. Please report it with the lines above.", 1)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error was raised while an interruption was handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _loose_budget(arguments: Sequence[str]) -> bool:
    """Whether a budget stands without its flag. Typer would speak of an unexpected argument."""
    return any(
        _BUDGET.match(text) and not before.startswith("-") and not Path(text).exists()
        for before, text in pairwise(arguments)
    )


def _fail(message: str, code: int) -> int:
    typer.echo(f"prune-nas: {message}", err=True)
    return code


__all__ = ["app", "comparing", "guiding", "main", "networks", "reading", "run", "searching", "transferring", "working"]
