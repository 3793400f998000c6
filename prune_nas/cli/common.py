"""What the commands share: the application, the options that several of them take, and how results are printed."""

# Typer reads signatures at run time, so annotations must not be postponed to strings.

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prune_nas.errors import UsageError, unknown

app = typer.Typer(
    name="prune-nas",
    help="Make an image classifier smaller: choose the width of every layer, and train it from scratch.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from prune_nas import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Make an image classifier smaller: choose the width of every layer, and train it from scratch."""


_MODEL = typer.Option(
    "--model",
    "-m",
    metavar="MODEL",
    help="Network: a name of `prune-nas models`, torchvision:NAME, timm:NAME, path/file.py:NAME or "
    "package.module:NAME.",
)
_DATASET = typer.Option(
    "--dataset",
    "-d",
    metavar="DATA",
    help="Images: cifar10, cifar100, digits, folder:DIR, hf:NAME, path/file.py:NAME or package.module:NAME.",
)
Model = Annotated[str, _MODEL]
OptionalModel = Annotated[str | None, _MODEL]
Dataset = Annotated[str, _DATASET]
OptionalDataset = Annotated[str | None, _DATASET]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Size of the job: smoke, laptop, standard or paper [default: standard with CUDA, else laptop].",
    ),
]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with any of these settings.")]
Run = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run directory [default: a new one below artifacts/runs, named by the settings]."),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Random seed of split, weights and search [default: 0].")]
Seeds = Annotated[
    int | None,
    typer.Option(metavar="N", help="Final trainings per network, each with another seed [default: 3, paper 5]."),
]
Schedules = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Final trainings: scratch-e (the same epochs), scratch-b (the same compute), with commas [default: "
        "scratch-e, paper both].",
    ),
]
Selection = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How scores become widths: per-cost or threshold [default: per-cost]."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Number format: fp32, bf16, fp16 or auto [default: auto, the fastest on this machine]."
    ),
]
Space = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML file with bounds on widths. `prune-nas guide networks` explains it."),
]
TrainSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Largest number of training images, the same share of each class [default: by preset 1000, 10000, all].",
    ),
]
ValSize = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Largest number of validation images, cut from the training set [default: by preset]."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the trainings, estimate the time, train nothing.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the data sets [default: $PRUNE_NAS_DATA, else the user's cache]."),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Size in pixels of all images: 64, or height x width such as 64x48 [default: 32 for built-in networks and "
        "for digits, the published size for torchvision and timm]. Your code with your pictures needs it.",
    ),
]
BaseWidth = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        help="Multiply all widths before the search. 1 keeps them [default: 1, for a built-in network "
        "smoke 0.25, laptop 0.5].",
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="sgd, adamw or auto [default: auto, which tries both for some steps, but sgd with --recipe paper or "
        "--lr]. Under a penalty sgd updates BatchNorm's parameters.",
    ),
]
Batch = Annotated[
    int | None, typer.Option(metavar="N", help="Batch size: images per optimiser step [default: 64, smoke 32].")
]
Lr = Annotated[
    float | None,
    typer.Option(
        metavar="RATE", help="Highest learning rate [default: sgd 0.1, less for batches below 64, adamw 0.002]."
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Epochs of the unpruned network and of every scratch-e training [default: by preset 8, 12, 40, 160, or "
        "more until --steps are reached].",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Smallest number of optimiser steps of the unpruned network. A small folder gets more epochs "
        "[default: by preset 240, 1500, 4000, and 0 with --epochs].",
    ),
]
CacheImages = Annotated[
    bool | None,
    typer.Option("--cache-images", help="Decode a folder that is too large for memory once, into the cache."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps or auto [default: auto].")]
Devices = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Several devices, with commas, such as cuda:0,cuda:1.")
]
TrialsPerDevice = Annotated[
    int | None, typer.Option(metavar="N", help="Trainings at the same time per device [default: 1].")
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Trainings at the same time [default: one per GPU, else one per CPU core, at most 8]. With --storage, 0 "
        "trains nothing here.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads of all workers together [default: all cores].")
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database that shares the trainings with `prune-nas worker`: postgresql://user:password@host/database. "
        "Better set PRUNE_NAS_STORAGE in the environment.",
    ),
]
Study = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the run in --storage [default: the name of the run directory]."),
]
Figures = Annotated[
    bool, typer.Option("--figures/--no-figures", help="Draw figures at the end. `plot` and `report` draw them later.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    typer.echo(json.dumps(value, indent=1))


def print_listing(items: dict[str, Any], *, json_: bool) -> None:
    """Print names and what they are, in two columns or as JSON."""
    if json_:
        print_json(items)
        return
    wide = max(map(len, items))
    for name, text in items.items():
        typer.echo(f"{name:<{wide}}  {text}")


def report_run(path: Path, write: Callable[[Any], Path], *, json_: bool, details: bool = False) -> None:
    """Have `write` make a page of the run's `RunData` and return its path; print the answers, then the table.

    Args:
        path: of the run directory.
        write: makes the page.
        json_: print the verdicts as JSON instead.
        details: print every sentence of the verdicts, too.
    """
    from prune_nas.report.answers import boxes
    from prune_nas.report.run_data import RunData
    from prune_nas.report.tables import rich_results

    data = RunData(path)
    page = write(data)
    if json_:
        print_json(data.verdicts)
        return
    console = Console()
    for box in boxes(data):
        console.print(box)
    console.print(rich_results(data.results))
    if details:
        for item in data.verdicts:
            console.print(f"{item['budget']}: {item['headline']}", markup=False)
            for sentence in item["sentences"]:
                console.print(f"  {sentence}", markup=False)
    more = "" if details else f". Every comparison: prune-nas report {path} --details"
    typer.echo(f"report: {page}{more}")


def read_shape(text: str) -> tuple[int, ...]:
    """The shape in a text such as 3x32x32.

    Raises:
        UsageError: it is none.
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--input must be channels x height x width such as 3x32x32. Got {text!r}") from None
    if min(shape) < 1:
        raise UsageError(f"--input must be positive. Got {text!r}")
    return shape


def save_figure(path: Path, draw: Callable[[], Any], data: dict[str, Any], *, quiet: bool) -> None:
    """Draw a figure into a file of the kind that its ending names, with its data frames as CSV beside it, by name.

    The paths are printed unless `quiet`.

    Raises:
        UsageError: the ending is no figure's.
    """
    from prune_nas.design.files import write_bytes, write_text
    from prune_nas.report.figures import FORMATS, style

    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise unknown("figure format", form, FORMATS)
    with style.styled():
        write_bytes(path, style.render(draw(), form))
    for name, frame in data.items():
        write_text(path.with_name(f"{path.name}.{name}.csv"), frame.to_csv(index=False, lineterminator="\n"))
    if not quiet:
        typer.echo(f"figure: {path}, its data: {', '.join(f'{path}.{name}.csv' for name in data)}")
