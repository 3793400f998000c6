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
    study: Annotated[str, typer.Option(metavar="NAME", help="Name of the run, as its command printed it.")],
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="PRUNE_NAS_STORAGE",
            show_envvar=True,
            metavar="URL",
            help="postgresql://user:password@host/database. Better set PRUNE_NAS_STORAGE in the environment.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Your network as path/file.py:NAME, if the run's network is Python code.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", "-d", metavar="DATA", help="folder:DIR, if the folder has another place on this machine."
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="PATH", help="Folder of the checkpoints [default: the cache folder]."),
    ] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Seconds to wait until the run exists.")] = 600.0,
    trainings: Annotated[
        int | None,
        typer.Option(metavar="N", help="Leave after this number of trainings [default: at the end of the run]."),
    ] = None,
    leash: Annotated[bool, typer.Option("--leash", hidden=True)] = False,
    quiet: Quiet = False,
) -> None:
    """Train for a run of another process or machine.

    It ends when the run has ended.
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
    view.say(f"{study} has ended. Trainings that were finished here: {done}")


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _until_let_go() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not through a buffer, whose lock would be held at this process's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
