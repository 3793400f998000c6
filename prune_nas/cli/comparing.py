"""The command that compares pruning methods."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prune_nas.cli.common import (
    BaseWidth,
    Batch,
    CacheImages,
    Config,
    DataDir,
    Dataset,
    Device,
    Devices,
    DryRun,
    Epochs,
    Figures,
    ImageSize,
    Json,
    Model,
    Optimizer,
    Precision,
    Preset,
    Quiet,
    Run,
    Seed,
    Space,
    Steps,
    Storage,
    Study,
    Threads,
    TrainSize,
    TrialsPerDevice,
    ValSize,
    Workers,
    app,
    print_json,
)
from prune_nas.errors import UsageError

METHODS, RATIOS = "l1-norm,slimming,sss,magnitude", "0.5"


@app.command(epilog="Example: prune-nas compare -m vgg11 -d digits --preset smoke --methods l1-norm,slimming")
def compare(
    model: Model,
    dataset: Dataset,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="l1-norm, thinet, regression, slimming, sss, sss-blocks, magnitude, with commas "
            f"[default: {METHODS}].",
        ),
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES", help="Shares to remove, with commas, or letters such as A of l1-norm [default: 0.5]."
        ),
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(
            metavar="CASES", help="Single cases instead of --methods and --ratios, such as l1-norm=A,slimming=0.7."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seeds: each trains, prunes and retrains a network [default: 3, paper 5]."),
    ] = None,
    schedules: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="fine-tune, rewind, scratch-e, scratch-b, with commas [default: all]."),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="pruned, guided, uniform, taper, random, base [default: all but guided]."),
    ] = None,
    preset: Preset = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="fast, or paper: as published, on all images [default: fast].")
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    optimizer: Optimizer = None,
    fine_tune_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs of fine-tuning [default: a quarter of --epochs].")
    ] = None,
    scratch_b_cap: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Limit of scratch-b: so many times the epochs of scratch-e. The paper takes 2 on ImageNet "
            "[default: no limit].",
        ),
    ] = None,
    scratch_b_tuning: Annotated[
        bool | None, typer.Option("--scratch-b-tuning", help="Add the epochs of fine-tuning to scratch-b.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(metavar="LAMBDA", help="Fixed strength of L1 on gamma [default: follows from its effect]."),
    ] = None,
    sss_strength: Annotated[
        float | None,
        typer.Option(
            metavar="LAMBDA", help="Strength of the penalty on the scaling factors of sss [default: by schedule]."
        ),
    ] = None,
    randoms: Annotated[
        int | None, typer.Option(metavar="N", help="Random networks per case and seed, as rivals.")
    ] = None,
    base_width: BaseWidth = None,
    space: Space = None,
    train_size: TrainSize = None,
    val_size: ValSize = None,
    image_size: ImageSize = None,
    batch: Batch = None,
    lr: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Highest learning rate. Fine-tuning takes a hundredth [default: 0.1]."),
    ] = None,
    precision: Precision = None,
    run: Run = None,
    config: Config = None,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    trials_per_device: TrialsPerDevice = None,
    workers: Workers = None,
    threads: Threads = None,
    storage: Storage = None,
    study: Study = None,
    data_dir: DataDir = None,
    cache_images: CacheImages = None,
    figures: Figures = True,
    dry_run: DryRun = False,
    gpu_macs: Annotated[
        float | None,
        typer.Option(
            min=1.0, metavar="N", help="Macs per second of your GPU, for the estimate of --dry-run [default: 2e12]."
        ),
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Compare pruning methods, and print the paper's table."""
    own = ("methods", "ratios", "run", "config", "figures", "dry_run", "gpu_macs", "quiet", "json_")
    flags = {name: value for name, value in locals().items() if name not in own and name != "own"}

    from prune_nas.config import DEFAULT_CASES, resolve

    if cases is not None and (methods or ratios):
        raise UsageError("--cases names methods and ratios. Leave --methods and --ratios out")
    for name in ("cases", "schedules", "arms", "devices"):
        flags[name] = tuple(flags[name].split(",")) if flags[name] is not None else None
    grid = _grid(methods or METHODS, ratios or RATIOS) if methods or ratios else DEFAULT_CASES
    if methods or ratios:
        flags["cases"] = grid

    import torch

    automatic = "standard" if device not in ("cpu", "mps") and torch.cuda.is_available() else "laptop"
    from prune_nas.search.subject import settled

    settings = settled(resolve(flags, file=config, automatic=automatic, cases=grid))
    if dry_run:
        from prune_nas.search import plan

        found = plan.dry_run(settings, gpu_macs or plan.GPU)
        if json_:
            print_json(found.to_dict())
        else:
            typer.echo("\n".join(found.lines()))
        return

    from prune_nas.search.compare import compare as work
    from prune_nas.search.progress import View
    from prune_nas.search.together import follows

    if follows(settings):
        return
    path = run or Path("artifacts/runs") / settings.run_name
    work(settings, path, View(quiet=quiet))

    from prune_nas.report.html import write_all
    from prune_nas.report.paper_table import write_tables
    from prune_nas.report.run_data import RunData

    data = RunData(path)
    written = write_tables(data, path)
    page = write_all(data, figures=figures)
    if json_:
        print_json(data.verdicts)
        return
    _show(data)
    for file in (*written, page):
        typer.echo(f"written: {file}")


def _grid(methods: str, ratios: str) -> tuple[str, ...]:
    """Every method at every ratio."""
    return tuple(f"{method}={ratio}" for method in methods.split(",") for ratio in ratios.split(","))


def _show(data: Any) -> None:
    """Print the paper's table and what all cases together say."""
    from prune_nas.report.paper_table import rich_lines, together

    console = Console()
    console.print(rich_lines(data))
    for sentence in together(data):
        console.print(f"- {sentence}", markup=False)
