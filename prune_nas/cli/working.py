"""The command of a cluster's machines."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from prune_nas.cli.common import DataDir, Quiet, app


@app.command(epilog="Example: prune-nas worker --storage postgresql://me@db/nas --study vgg16-cifar10")
def worker(
    study: Annotated[str, typer.Option(help="The run's name, as its command printed it.")],
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="PRUNE_NAS_STORAGE",
            show_envvar=True,
            help="postgresql://user:password@host/database; in the environment it stays out of sight.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Allows a network that is Python code, and says where it is.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Where a folder: data set lies on this machine.")
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where checkpoints are kept [default: the cache folder].")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the run to be there.")] = 600.0,
    trainings: Annotated[int | None, typer.Option(help="Leave after so many.")] = None,
    leash: Annotated[bool, typer.Option("--leash", hidden=True)] = False,
    quiet: Quiet = False,
) -> None:
    """Train for a running search, comparison or transfer from another process or machine, until it has ended.

    Ctrl-C or SIGTERM gives the training in hand back to the others.
    """
    import platformdirs

    from prune_nas.errors import UsageError
    from prune_nas.search.cluster.briefing import Place
    from prune_nas.search.cluster.worker import work
    from prune_nas.search.progress import View

    if storage is None:
        raise UsageError("name the database with --storage or PRUNE_NAS_STORAGE")
    signal.signal(signal.SIGTERM, _stop)
    if leash:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
        threading.Thread(target=_until_let_go, daemon=True).start()
    view = View(quiet=quiet)
    try:
        done = work(
            storage,
            study,
            Place(model, dataset, data_dir, device, threads),
            folder or platformdirs.user_cache_path("prune-nas", appauthor=False) / "worker",
            say=view.say,
            wait=wait,
            most=trainings,
            leashed=leash,
        )
    except KeyboardInterrupt:
        if not leash:
            raise
        return
    view.say(f"{study} has ended; {done} trainings were finished here")


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _until_let_go() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not through a buffer, whose lock would be held at this process's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
