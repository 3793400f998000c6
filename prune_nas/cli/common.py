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
    help="Find channel widths by pruning, turn them into design rules, and prove them by training from scratch.",
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
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Find channel widths by pruning, turn them into design rules, and prove them by training from scratch."""


Model = Annotated[str, typer.Option("--model", "-m", help="A network; `prune-nas models` lists them.")]
Dataset = Annotated[str, typer.Option("--dataset", "-d", help="A data set; `prune-nas datasets` lists them.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets are looked for and kept.")]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Pixels that every image is brought to: 64, or height x width such as 64x48 [default: 32 for built-in "
        "networks and for digits; the published size for torchvision's and timm's; your own code with a folder of "
        "pictures needs it]."
    ),
]
BaseWidth = Annotated[
    float | None,
    typer.Option(
        help="Factor on all widths before the search; 1 is the network as it is [default: 1; a built-in network under "
        "smoke 0.25, under laptop 0.5]."
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        help="sgd, adamw or auto [default: auto, which tries both for some steps; sgd with --recipe paper or --lr]. "
        "Under a penalty sgd updates BatchNorm's parameters."
    ),
]
Batch = Annotated[int | None, typer.Option(help="Images per optimiser step [default: by recipe 64; smoke 32].")]
Lr = Annotated[
    float | None,
    typer.Option(help="Highest learning rate [default: sgd 0.1 at batch 64 and less for less, adamw 0.002]."),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Epochs of the unpruned network, and of every scratch-e training [default: by preset 8, 12, 40, 160, or "
        "more until --steps are reached]."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Least optimiser steps of the unpruned network: epochs are added where images are few [default: by preset "
        "240, 1500, 4000; 0 where --epochs is given]."
    ),
]
CacheImages = Annotated[
    bool | None,
    typer.Option("--cache-images", help="Decode a folder that is too large for memory once, not in every epoch."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Devices = Annotated[str | None, typer.Option(help="Several devices, with commas: cuda:0,cuda:1.")]
TrialsPerDevice = Annotated[int | None, typer.Option(help="Trainings beside each other on each device.")]
Workers = Annotated[
    str | None,
    typer.Option(
        help="Trainings beside each other, a number [default: auto, one a CPU core up to eight, or one a device]; "
        "with --storage 0 leaves all to other machines."
    ),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads of all workers together.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="postgresql://user:password@host/database: share the trainings out to `prune-nas worker` anywhere; better "
        "in the environment, as PRUNE_NAS_STORAGE."
    ),
]
Study = Annotated[str | None, typer.Option(help="The run's name in the storage [default: the run directory's].")]
Figures = Annotated[
    bool, typer.Option("--figures/--no-figures", help="Draw them at the end; `plot` and `report` can later.")
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
    more = "" if details else f"; every comparison: prune-nas report {path} --details"
    typer.echo(f"report: {page}{more}")


def read_shape(text: str) -> tuple[int, ...]:
    """The shape in a text such as 3x32x32.

    Raises:
        UsageError: it is none.
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--input must be channels x height x width such as 3x32x32; got {text!r}") from None
    if min(shape) < 1:
        raise UsageError(f"--input must be positive; got {text!r}")
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
