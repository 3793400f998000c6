"""The command line: a thin layer over the calls that Python users make.

Progress and messages go to stderr, results to stdout. Commands import what they need when they run, so that
`--help`, `plot`, `report` and `status` start without torch.
"""

# Typer reads these signatures at run time, so the annotations must not be postponed to strings.

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prune_nas.errors import PruneNasError, UsageError

app = typer.Typer(
    name="prune-nas",
    help="Find channel widths by pruning, turn them into design rules, and prove them by training from scratch.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

INTERRUPTED = 130
_RESUMABLE = "interrupted; a search goes on from here when its command is repeated"

Model = Annotated[str, typer.Option("--model", "-m", help="A network; `prune-nas models` lists them.")]
Dataset = Annotated[str, typer.Option("--dataset", "-d", help="A data set; `prune-nas datasets` lists them.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets are looked for and kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]


@app.command(epilog="Example: prune-nas search --model vgg16 --dataset digits --preset smoke")
def search(
    model: Annotated[str | None, typer.Option("--model", "-m", help="A network; see `prune-nas models`.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="See `prune-nas datasets`.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", "-b", help="macs=0.4, latency=3ms, or macs=0.2,params=0.05; may be repeated."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, laptop, standard, paper or auto.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory [default: artifacts/runs/...].")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of the same settings.")] = None,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    workers: Annotated[
        str | None, typer.Option(help="Trainings beside each other, a number [default: auto, one a CPU core].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of all workers together.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything that is random.")] = None,
    base_width: Annotated[float | None, typer.Option(help="Scales the network itself.")] = None,
    supernet_width: Annotated[float | None, typer.Option(help="Widens the supernet beyond the base.")] = None,
    space: Annotated[Path | None, typer.Option(help="A TOML file of floors, ties and the like; see README.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels.")] = None,
    train_size: Annotated[
        int | None, typer.Option(help="At most this many training images, a stratified subset.")
    ] = None,
    val_size: Annotated[
        int | None, typer.Option(help="At most this many validation images, cut from the training set.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="fast or paper.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    penalty: Annotated[str | None, typer.Option(help="l1, l1-macs, l1-params, l1-cost or none.")] = None,
    strength: Annotated[float | None, typer.Option(help="The penalty's lambda [default: by schedule].")] = None,
    selection: Annotated[str | None, typer.Option(help="per-cost or threshold.")] = None,
    supernet_epochs: Annotated[int | None, typer.Option(help="Epochs of the supernet.")] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates trained by the study, per budget.")] = None,
    trial_epochs: Annotated[int | None, typer.Option(help="Epochs of a trial.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Best trials (and uniform) that the study trains again for --epochs.")
    ] = None,
    finalist_seeds: Annotated[int | None, typer.Option(help="Seeds that the finalists are trained with.")] = None,
    latency_batch: Annotated[int | None, typer.Option(help="Images a forward pass when latency is measured.")] = None,
    latency_threads: Annotated[int | None, typer.Option(help="CPU threads when latency is measured.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a study begins no more trials.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, gp or random.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the finals (the base's).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of the finals.")] = None,
    randoms: Annotated[int | None, typer.Option(help="Random shapes a budget.")] = None,
    schedules: Annotated[str | None, typer.Option(help="scratch-e, scratch-b, with commas.")] = None,
    arms: Annotated[str | None, typer.Option(help="Arms of the finals, with commas [default: all].")] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search widths under a budget and compare them with every fair rival; the same command again resumes."""
    flags = {k: v for k, v in locals().items() if k not in ("run", "config", "quiet", "json_")}
    for name in ("schedules", "arms"):
        flags[name] = tuple(flags[name].split(",")) if flags[name] is not None else None
    flags["budget"] = tuple(budget or ())

    import torch

    from prune_nas.config import resolve
    from prune_nas.report.figures import draw
    from prune_nas.report.html import write_report
    from prune_nas.report.run_data import RunData
    from prune_nas.search.pipeline import search as work
    from prune_nas.search.progress import View

    automatic = "standard" if device not in ("cpu", "mps") and torch.cuda.is_available() else "laptop"
    settings = resolve(flags, file=config, automatic=automatic)
    path = run or Path("artifacts/runs") / settings.run_name
    work(settings, path, View(quiet=quiet))
    data = RunData(path)
    draw(data, kinds=None, out=path / "figures")
    page = write_report(path)
    if json_:
        _print_json(data.verdicts)
        return
    _print_results(data)
    typer.echo(f"report: {page}")


@app.command(epilog="Example: prune-nas inspect --model vgg16 --budget macs=0.2,params=0.05")
def inspect(
    model: Model,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Takes shape and classes from it.")] = None,
    input_: Annotated[
        str, typer.Option("--input", help="Channels x height x width; several inputs with commas.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Classes of the head.")] = 10,
    budget: Annotated[str | None, typer.Option("--budget", "-b", help="Show uniform widths at this budget.")] = None,
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
    from prune_nas.design.projection import project
    from prune_nas.nets.settings import parse_settings, read_settings
    from prune_nas.nets.tracing import trace

    parsed = Budget.parse(budget) if budget else None
    shape, *others = map(_shape, input_.split(","))
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
        _draw_space(space, figure)
    cost = space.cost(space.base)
    widths = project(space, {s.name: 1.0 for s in space.slots}, parsed.limits(space)) if parsed else None
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
        _print_json(result)
        return
    _print_space(space, widths, budget)


@app.command(epilog="Example: prune-nas train artifacts/runs/my-run/best.json --dataset digits --epochs 8")
def train(
    spec: Annotated[Path, typer.Argument(help="A spec such as a run's best.json.")],
    dataset: Dataset,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the network comes from, if the spec names Python code.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of scratch-e.")] = 20,
    recipe: Annotated[str, typer.Option(help="fast or paper.")] = "fast",
    schedule: Annotated[str, typer.Option(help="scratch-e or scratch-b.")] = "scratch-e",
    seeds: Annotated[int, typer.Option(help="Trainings, each with its own seed.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    train_size: Annotated[int | None, typer.Option(help="Train on a stratified subset.")] = None,
    val_size: Annotated[int | None, typer.Option(help="Validation images.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = Path("artifacts/runs/train"),
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train one spec from scratch; prints validation and test accuracy and saves the weights."""
    from prune_nas.search.progress import View
    from prune_nas.search.single import train_spec

    results = train_spec(
        spec,
        dataset,
        model=model,
        epochs=epochs,
        recipe_name=recipe,
        schedule=schedule,
        seeds=range(seed, seed + seeds),
        sizes=(train_size, val_size),
        device=device,
        precision=precision,
        out=out,
        data_dir=data_dir,
        view=View(quiet=quiet),
    )
    if json_:
        _print_json(results)
        return
    for row in results:
        typer.echo(
            f"seed {row['seed']}: {100 * row['val_accuracy']:.2f} % on validation, "
            f"{100 * row['test_accuracy']:.2f} % on test "
            f"({row['epochs']} epochs, {row['seconds']:.0f} s) -> {row['weights']}"
        )


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
        _print_json({"schema": 1, "formats": written})
        return
    for name, made in written.items():
        typer.echo(f"{name}: {', '.join(made['files'])} (outputs within {made['difference']:.1e} of the largest logit)")


@app.command(epilog="Example: prune-nas plot artifacts/runs/my-run --kind widths --format png")
def plot(
    run: RunDir,
    kind: Annotated[list[str] | None, typer.Option("--kind", "-k", help="Which figures [default: all].")] = None,
    format_: Annotated[list[str] | None, typer.Option("--format", "-f", help="svg, png or pdf.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: RUN/figures].")] = None,
) -> None:
    """Draw a run's figures from its tables."""
    from prune_nas.report.figures import draw
    from prune_nas.report.run_data import RunData

    for path in draw(
        RunData(run), kinds=kind or None, formats=tuple(format_ or ("svg", "png")), out=out or run / "figures"
    ):
        typer.echo(path)


@app.command(epilog="Example: prune-nas report artifacts/runs/my-run")
def report(run: RunDir, json_: Json = False) -> None:
    """Write a run's report.html anew and print its results."""
    from prune_nas.report.html import write_report
    from prune_nas.report.run_data import RunData

    page = write_report(run)
    data = RunData(run)
    if json_:
        _print_json(data.verdicts)
        return
    _print_results(data)
    typer.echo(f"report: {page}")


@app.command(epilog="Example: prune-nas status artifacts/runs/my-run")
def status(run: RunDir, json_: Json = False) -> None:
    """Say how far a run has come."""
    from prune_nas.report.run_data import RunData

    data = RunData(run)
    config, phases = data.run["config"], data.run["phases"]
    done = {"trials": sum(row.state != "REPEAT" for row in data.trials), "finals": len(data.finals)}
    if json_:
        _print_json({"schema": 1, "run": str(run), "phases": phases, **done})
        return
    typer.echo(f"{run}: {config['model']} on {config['dataset']}, budgets {'; '.join(config['budget'])}")
    for name, state in phases.items():
        typer.echo(f"  {name}: {state}")
    typer.echo(
        f"  {done['trials']} trainings of the study finished ({config['trials']} trials a budget, then finalists)"
    )
    typer.echo(f"  {done['finals']} final trainings finished")


@app.command(epilog="Example: prune-nas models")
def models(json_: Json = False) -> None:
    """List the built-in networks."""
    from prune_nas.nets.models import DESCRIPTIONS

    _print_listing(DESCRIPTIONS, json_=json_)


@app.command(epilog="Example: prune-nas datasets")
def datasets(json_: Json = False) -> None:
    """List the data sets."""
    from prune_nas.training.data import DATASETS

    _print_listing(DATASETS, json_=json_)


@app.command(epilog="Example: prune-nas doctor")
def doctor(json_: Json = False) -> None:
    """Say what this machine can do: devices, precision, data."""
    from prune_nas.search.doctor import examine

    findings = examine()
    _print_listing({k: str(v) for k, v in findings.items()} if not json_ else findings, json_=json_)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever goes wrong ends in one message on stderr."""
    try:
        app(None if arguments is None else list(arguments))
    except SystemExit as done:  # Typer has ended: with a result, or with its own message about the flags
        code = done.code if isinstance(done.code, int) else 1
        return _fail(_RESUMABLE, code) if code == INTERRUPTED else code
    except PruneNasError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(_RESUMABLE, INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; free some space or name another place, then repeat", 1)
    except Exception:
        traceback.print_exc()
        return _fail("this is a fault in prune-nas; please report it with the lines above", 1)
    return 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"prune-nas: {message}", err=True)
    return code


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--input must be channels x height x width such as 3x32x32; got {text!r}") from None
    if min(shape) < 1:
        raise UsageError(f"--input must be positive; got {text!r}")
    return shape


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))


def _print_listing(items: dict[str, Any], *, json_: bool) -> None:
    if json_:
        _print_json(items)
        return
    wide = max(map(len, items))
    for name, text in items.items():
        typer.echo(f"{name:<{wide}}  {text}")


def _print_results(data: Any) -> None:
    from prune_nas.report.tables import rich_results

    console = Console()
    console.print(rich_results(data.results))
    for item in data.verdicts:
        console.print(f"{item['budget']}: {item['headline']}", markup=False)
        for sentence in item["sentences"]:
            console.print(f"  {sentence}", markup=False)


def _draw_space(space: Any, path: Path) -> None:
    from prune_nas.design.files import write_bytes
    from prune_nas.errors import unknown
    from prune_nas.report.figures import FORMATS, style
    from prune_nas.report.figures.space import space as draw

    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise unknown("figure format", form, FORMATS)
    with style.styled():
        write_bytes(path, style.render(draw(space), form))


def _print_space(space: Any, widths: Any, budget: str | None) -> None:
    console = Console()
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
