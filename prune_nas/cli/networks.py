"""The commands about networks: what is free in them, and how they leave."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prune_nas.cli.common import DataDir, Json, Model, app, print_json, print_listing, read_shape, save_figure
from prune_nas.errors import UsageError


@app.command(epilog="Example: prune-nas inspect --model vgg16 --budget macs=0.2,params=0.05")
def inspect(
    model: Model,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Takes shape and classes from it.")] = None,
    input_: Annotated[
        str, typer.Option("--input", help="Channels x height x width; several inputs with commas.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Classes of the head.")] = 10,
    budgets: Annotated[
        list[str] | None, typer.Option("--budget", "-b", help="Show uniform widths at this budget.")
    ] = None,
    base_width: Annotated[float, typer.Option(help="Scales the network itself.")] = 1.0,
    space_file: Annotated[
        Path | None, typer.Option("--space", help="A TOML file of floors, ties and the like.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the space into this .svg, .png or .pdf file.")] = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Show a network's slots, stages and cost, and uniform widths at a budget; trains nothing, may measure latency."""
    from prune_nas.design.budget import Budget
    from prune_nas.design.projection import uniform_widths
    from prune_nas.nets.settings import parse_settings, read_settings
    from prune_nas.nets.tracing import trace

    if len(budgets or ()) > 1:
        raise UsageError(f"inspect shows one budget; both at once are one, too: -b {','.join(budgets or ())}")
    budget = budgets[0] if budgets else None
    parsed = Budget.parse(budget) if budget else None
    shape, *others = map(read_shape, input_.split(","))
    if dataset:
        from prune_nas.training.data import load

        data = load(dataset, data_dir=data_dir)
        shape, classes = data.input_shape, len(data.classes)
    settings = parse_settings(read_settings(space_file), space_file.name) if space_file else None
    traced = trace(
        model, input_shape=shape, other_inputs=others, classes=classes, base_width=base_width, settings=settings
    )
    space = traced.space
    if parsed and parsed.bounds_latency:
        from prune_nas.search.progress import View
        from prune_nas.search.timing import here

        space = here(traced, parsed, View())
    if figure:
        _draw_space(space, figure, quiet=json_)
    cost = space.cost(space.base)
    widths = uniform_widths(space, parsed.limits(space)) if parsed else None
    if json_:
        result: dict[str, Any] = {
            "schema": 1,
            "model": space.model,
            "input_shape": list(space.input_shape),
            "macs": cost.macs,
            "params": cost.params,
            "slots": [
                {"name": s.name, "stage": s.stage, "depth": s.depth, "ceiling": s.ceiling, "floor": s.floor,
                 "multiple": s.multiple, "groups": s.groups, "layers": list(s.layers)} for s in space.slots
            ],
            "frozen": [{"dimension": f.dimension, "reason": f.reason} for f in space.frozen],
        }  # fmt: skip
        if widths is not None:
            fit = space.cost(widths)
            result |= {"widths": dict(widths), **{f"budget_{kind}": value for kind, value in fit._asdict().items()}}
        print_json(result)
        return
    _print_space(space, widths, budget)


@app.command(epilog="Example: prune-nas export artifacts/runs/my-run/best.json --format state,python")
def export(
    spec: Annotated[Path, typer.Argument(help="A spec with weights beside it, such as a run's best.json.")],
    format_: Annotated[str, typer.Option("--format", "-f", help="state, python, onnx, pt2, with commas.")] = "python",
    out: Annotated[Path | None, typer.Option(help="Folder [default: <spec>-exported beside the spec].")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the network comes from, if the spec names Python code.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a found network for other programs, each file checked against the network's own outputs."""
    from prune_nas.nets.export.write import export as write

    written = write(spec, out or spec.with_name(f"{spec.stem}-exported"), format_.split(","), model=model)
    if json_:
        print_json({"schema": 1, "formats": written})
        return
    for name, made in written.items():
        typer.echo(f"{name}: {', '.join(made['files'])} (outputs within {made['difference']:.1e} of the largest logit)")


@app.command(epilog="Example: prune-nas models")
def models(json_: Json = False) -> None:
    """List the built-in networks."""
    from prune_nas.nets.models import DESCRIPTIONS

    print_listing(DESCRIPTIONS, json_=json_)


def _draw_space(space: Any, path: Path, *, quiet: bool) -> None:
    from prune_nas.report.figures.space import layers
    from prune_nas.report.figures.space import space as draw

    frame = layers(space)
    save_figure(path, lambda: draw(frame, space.model), {"layers": frame}, quiet=quiet)


_WIDE = 240  # columns of a table that goes to a file or another program, where nothing need be cut


def _print_space(space: Any, widths: Any, budget: str | None) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    table = Table(box=None)
    table.add_column("slot", no_wrap=True)
    grouped = any(slot.groups > 1 for slot in space.slots)
    shared = any(slot.layers != (slot.name,) for slot in space.slots)
    numbers = [
        "depth",
        "ceiling",
        "floor",
        "multiple",
        *(["groups"] if grouped else []),
        *(["uniform"] if widths else []),
    ]
    for name in ["stage", *numbers, *(["layers"] if shared else [])]:
        table.add_column(name, justify="right" if name in numbers else "left")
    for slot in space.slots:
        cells = [slot.name, space.stage_names[slot.stage], f"{slot.depth:.2f}", slot.ceiling, slot.floor, slot.multiple]
        cells += [slot.groups if slot.groups > 1 else ""] if grouped else []
        cells += [widths[slot.name]] if widths else []
        cells += [" ".join(slot.layers)] if shared else []
        table.add_row(*map(str, cells))
    console.print(table)
    cost = space.cost(space.base)
    typer.echo(f"{space.model}: {cost.macs:,} macs (conv and linear, batch 1), {cost.params:,} params")
    if widths:
        fit = space.cost(widths)
        time = "" if fit.latency is None else f", {fit.latency:.3g} ms"
        typer.echo(f"uniform at {budget}: {fit.macs:,} macs, {fit.params:,} params{time}")
    for item in space.frozen:
        typer.echo(f"frozen: {item.dimension} ({item.reason})")
