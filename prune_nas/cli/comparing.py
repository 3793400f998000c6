"""The command that compares pruning methods."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prune_nas.cli.common import (
    BaseWidth,
    Batch,
    CacheImages,
    DataDir,
    Dataset,
    Device,
    Devices,
    Epochs,
    Figures,
    ImageSize,
    Json,
    Model,
    Optimizer,
    Quiet,
    Steps,
    Storage,
    Study,
    Threads,
    TrialsPerDevice,
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
            help=f"l1-norm, thinet, regression, slimming, sss, sss-blocks, magnitude, with commas [default: {METHODS}]."
        ),
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Shares that go, with commas, or letters such as A of l1-norm [default: 0.5]."),
    ] = None,
    cases: Annotated[
        str | None, typer.Option(help="In place of both: l1-norm=A,slimming=0.7 and the like, with commas.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks that are trained, pruned and trained again.")] = None,
    schedules: Annotated[
        str | None, typer.Option(help="fine-tune, rewind, scratch-e, scratch-b, with commas [default: all].")
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="pruned, guided, uniform, taper, random, base [default: all but guided].")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, laptop, standard, paper or auto.")] = None,
    recipe: Annotated[str | None, typer.Option(help="fast; or paper: everything as published, on all images.")] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    optimizer: Optimizer = None,
    fine_tune_epochs: Annotated[
        int | None, typer.Option(help="Epochs of fine-tuning [default: a quarter, as 40 of 160].")
    ] = None,
    scratch_b_cap: Annotated[
        float | None, typer.Option(help="scratch-b lasts at most so many times the epochs; 2 as on ImageNet.")
    ] = None,
    scratch_b_tuning: Annotated[
        bool | None, typer.Option("--scratch-b-tuning", help="Add the epochs of fine-tuning to scratch-b.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Lambda of L1 on gamma [default: by schedule].")] = None,
    sss_strength: Annotated[
        float | None, typer.Option(help="Lambda on the scaling factors of sss [default: by schedule].")
    ] = None,
    randoms: Annotated[int | None, typer.Option(help="Random shapes a case and seed.")] = None,
    base_width: BaseWidth = None,
    space: Annotated[Path | None, typer.Option(help="A TOML file of floors, ties and the like; see README.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Train on a stratified subset.")] = None,
    val_size: Annotated[int | None, typer.Option(help="At most this many validation images.")] = None,
    image_size: ImageSize = None,
    batch: Batch = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; fine-tuning takes a hundredth.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory [default: artifacts/runs/...].")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of the same settings.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything that is random.")] = None,
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, how long, and stop.")] = False,
    gpu_macs: Annotated[
        float | None, typer.Option(min=1.0, help="Macs a second of your GPU, for the estimate of --dry-run.")
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Prune by several methods, train what is left under the paper's schedules, and print the paper's table."""
    own = ("methods", "ratios", "run", "config", "figures", "dry_run", "gpu_macs", "quiet", "json_")
    flags = {name: value for name, value in locals().items() if name not in own and name != "own"}

    from prune_nas.config import DEFAULT_CASES, resolve

    if cases is not None and (methods or ratios):
        raise UsageError("--cases names methods and ratios; leave --methods and --ratios out")
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
