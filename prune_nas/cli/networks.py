"""The commands about networks: what is free in them, and how they leave."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prune_nas.cli.common import (
    BaseWidth,
    DataDir,
    ImageSize,
    Json,
    Model,
    app,
    print_json,
    print_listing,
    read_shape,
    save_figure,
)
from prune_nas.errors import UsageError


@app.command(epilog="Example: prune-nas inspect --model vgg16 --budget macs=0.2,params=0.05")
def inspect(
    model: Model,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", "-d", metavar="DATA", help="Data set that gives the number of classes and the image size."
        ),
    ] = None,
    image_size: ImageSize = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="Shape of the input: channels x height x width, such as 3x64x64. Several inputs: with commas.",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of classes [default: those of the data set, else those of the network]."
        ),
    ] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--budget", "-b", metavar="NAMES", help="Show uniform scaling under this budget."),
    ] = None,
    base_width: BaseWidth = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Count a built-in network at this preset's width: smoke, laptop, standard, paper."
        ),
    ] = None,
    space_file: Annotated[
        Path | None,
        typer.Option(
            "--space", metavar="PATH", help="TOML file with bounds on widths. `prune-nas guide networks` explains it."
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw which layers share a width into this .svg, .png or .pdf file."),
    ] = None,
    data_dir: DataDir = None,
    json_: Json = False,
) -> None:
    """Show layers, stages and cost of a network.

    Nothing is trained. With a latency budget the network is timed.
    """
    from prune_nas.config import width_of
    from prune_nas.design.budget import Budget
    from prune_nas.design.projection import uniform_widths
    from prune_nas.nets.settings import parse_settings, read_settings
    from prune_nas.nets.tracing import trace

    if len(budgets or ()) > 1:
        raise UsageError(f"inspect shows a single budget. For both bounds at once: -b {','.join(budgets or ())}")
    budget = budgets[0] if budgets else None
    parsed = Budget.parse(budget) if budget else None
    shapes, known_classes = _shapes(model, dataset, image_size, input_, data_dir)
    settings = parse_settings(read_settings(space_file), space_file.name) if space_file else None
    width = base_width or width_of(preset, model)
    traced = trace(
        model,
        input_shape=shapes[0],
        other_inputs=shapes[1:],
        classes=classes or known_classes,
        base_width=width,
        settings=settings,
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
            "base_width": width,
            "input_shape": list(space.input_shape),
            "classes": space.classes,
            "macs": cost.macs,
            "params": cost.params,
            "slots": [
                {"name": s.name, "stage": s.stage, "depth": s.depth, "ceiling": s.ceiling, "floor": s.floor,
                 "multiple": s.multiple, "groups": s.groups, "layers": list(s.layers)} for s in space.slots
            ],
            "frozen": [{"dimension": f.dimension, "reason": f.reason} for f in space.frozen],
            "notes": list(traced.notes),
        }  # fmt: skip
        if widths is not None:
            fit = space.cost(widths)
            result |= {"widths": dict(widths), **{f"budget_{kind}": value for kind, value in fit._asdict().items()}}
        print_json(result)
        return
    _print_space(space, width, widths, budget)
    for note in traced.notes:
        typer.echo(note)


def _shapes(
    model: str, dataset: str | None, image_size: str | None, inputs: str | None, data_dir: Path | None
) -> tuple[list[tuple[int, ...]], int | None]:
    """The shapes of the network's inputs, and the data set's number of classes.

    Raises:
        UsageError: two options name a shape, or none does and neither network nor data set has a size.
    """
    from prune_nas.design.sizes import Size
    from prune_nas.search.subject import image_size as usual_size
    from prune_nas.training.data import outline

    if inputs and image_size:
        raise UsageError("--input and --image-size both name a shape. Leave one of them out")
    about = outline(dataset, data_dir=data_dir) if dataset else None
    if inputs:
        return [read_shape(text) for text in inputs.split(",")], about and about.classes
    size = Size.parse(image_size) if image_size else usual_size(model, dataset, about)
    return [(3, *size)], about and about.classes


@app.command(epilog="Example: prune-nas export artifacts/runs/my-run/deploy.json --format python,onnx")
def export(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="Spec with weights beside it, such as the deploy.json of a run.")
    ],
    format_: Annotated[
        str, typer.Option("--format", "-f", metavar="NAME", help="state, python, onnx, pt2, with commas.")
    ] = "python",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder [default: <spec>-exported beside the spec].")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Your network as path/file.py:NAME, if the spec names Python code."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Write a network for other programs.

    Each file is loaded again, and its outputs are compared with the network's.
    """
    from prune_nas.nets.export.write import export as write
    from prune_nas.nets.export.write import preprocessing_of
    from prune_nas.nets.specs import read_spec

    written = write(spec, out or spec.with_name(f"{spec.stem}-exported"), format_.split(","), model=model)
    feeding = preprocessing_of(read_spec(spec))
    if json_:
        print_json({"schema": 1, "formats": written, "preprocessing": feeding and feeding.to_dict()})
        return
    for name, made in written.items():
        typer.echo(f"{name}: {', '.join(made['files'])} (outputs within {made['difference']:.1e} of the largest logit)")
    if feeding is not None:
        typer.echo(feeding.sentence())


_SOURCES = {
    "torchvision:NAME": "a classification network of torchvision, such as torchvision:resnet18",
    "timm:NAME": "a network of timm, such as timm:resnet50 (pip install 'prune-nas[timm]')",
    "FILE.py:NAME": "your class or function, such as net.py:MyNet. In a package: package.module:NAME",
}


@app.command(epilog="Example: prune-nas models")
def models(json_: Json = False) -> None:
    """List the networks: built-in, torchvision, timm, your code."""
    from prune_nas.nets.models import DESCRIPTIONS

    print_listing(DESCRIPTIONS if json_ else {**DESCRIPTIONS, **_SOURCES}, json_=json_)


def _draw_space(space: Any, path: Path, *, quiet: bool) -> None:
    from prune_nas.report.figures.space import layers
    from prune_nas.report.figures.space import space as draw

    frame = layers(space)
    save_figure(path, lambda: draw(frame, space.model), {"layers": frame}, quiet=quiet)


_WIDE = 240  # columns of a table that goes to a file or another program, where nothing need be cut


def _print_space(space: Any, base_width: float, widths: Any, budget: str | None) -> None:
    from prune_nas.design.subject import width_words

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
    shapes = ", ".join("x".join(map(str, shape)) for shape in (space.input_shape, *space.other_inputs))
    named = f"{space.model}, {width_words(base_width)}, input {shapes}, {space.classes} classes"
    typer.echo(f"{named}: {cost.macs:,} macs (conv and linear layers, one image), {cost.params:,} params")
    if widths:
        fit = space.cost(widths)
        time = "" if fit.latency is None else f", {fit.latency:.3g} ms"
        typer.echo(f"uniform at {budget}: {fit.macs:,} macs, {fit.params:,} params{time}")
    for item in space.frozen:
        typer.echo(f"frozen: {item.dimension} ({item.reason})")
