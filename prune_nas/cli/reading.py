"""The commands that only read: runs, data sets, this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prune_nas.cli.common import Json, RunDir, app, print_json, print_listing, report_run
from prune_nas.errors import unknown


@app.command(epilog="Example: prune-nas plot artifacts/runs/my-run --kind widths --format png")
def plot(
    run: RunDir,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="NAMES",
            help="Kinds of figures, with commas: accuracy, widths, gamma, rule, study, parallel, curves, ledger. For "
            "`compare`: methods, kernels, stability [default: all that the run has].",
        ),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", metavar="NAMES", help="svg, png or pdf, with commas [default: svg,png]."),
    ] = None,
    theme: Annotated[
        str, typer.Option(metavar="NAME", help="light or dark. An SVG turns dark by itself on a dark page.")
    ] = "light",
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Another run to draw together with this run. Repeat the option for more."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Folder [default: RUN/figures].")] = None,
) -> None:
    """Draw the figures of a run, and write their data as CSV."""
    from prune_nas.report.figures import draw
    from prune_nas.report.run_data import RunData

    for path in draw(
        RunData(run),
        kinds=_parts(kind) or None,
        formats=_parts(format_) or ("svg", "png"),
        out=out or run / "figures",
        theme=theme,
        beside=[RunData(other) for other in compare or ()],
    ):
        typer.echo(path)


def _parts(given: list[str] | None) -> tuple[str, ...]:
    """What was given with commas, with repeated flags, or both."""
    return tuple(part for text in given or () for part in text.split(","))


@app.command(epilog="Example: prune-nas report artifacts/runs/my-run")
def report(
    run: RunDir,
    details: Annotated[bool, typer.Option("--details", help="Also print every comparison.")] = False,
    json_: Json = False,
) -> None:
    """Write report.html, and print the answer and the results."""
    from prune_nas.report.html import write_report

    report_run(run, write_report, json_=json_, details=details)


@app.command(epilog="Example: prune-nas status artifacts/runs/my-run --watch")
def status(
    run: RunDir,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until the run ends. Ctrl-C stops it.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Seconds between two readings.", min=0.1)] = 5.0,
    json_: Json = False,
) -> None:
    """Say how far a run is, also while it works.

    With --watch --json, a JSON line is printed whenever something changes.
    """
    import time

    from prune_nas.report import status as told
    from prune_nas.report.run_data import RunData

    console, before = Console(), ""
    while True:
        data = RunData(run)
        now = told.status(data)
        text = json.dumps(now, indent=None if watch else 1) if json_ else "\n".join(told.lines(data, now))
        if text != before:
            if watch and console.is_terminal and not json_:
                console.clear()
            typer.echo(text)
        before = text
        if not (watch and now["running"]):
            return
        time.sleep(every)


@app.command(epilog="Example: prune-nas schemas status")
def schemas(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a schema, such as status [default: all].")
    ] = None,
) -> None:
    """Print the JSON schemas of --json."""
    from importlib.resources import files

    text = files("prune_nas.cli").joinpath("schemas.json").read_text(encoding="utf-8")
    if name is None:
        typer.echo(text, nl=False)
        return
    known = json.loads(text)["$defs"]
    if name not in known:
        raise unknown("schema", name, known)
    print_json(known[name])


@app.command(epilog="Example: prune-nas datasets")
def datasets(json_: Json = False) -> None:
    """List the data sets."""
    from prune_nas.training.data import DATASETS

    print_listing(DATASETS, json_=json_)


@app.command(epilog="Example: prune-nas doctor")
def doctor(json_: Json = False) -> None:
    """Check this machine: devices, number formats, packages, data."""
    from prune_nas.search.doctor import examine

    findings = examine()
    print_listing({k: str(v) for k, v in findings.items()} if not json_ else findings, json_=json_)
