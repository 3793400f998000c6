"""The commands that train."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

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
    Lr,
    Optimizer,
    OptionalDataset,
    OptionalModel,
    Precision,
    Preset,
    Quiet,
    Run,
    Schedules,
    Seed,
    Seeds,
    Selection,
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
    report_run,
)


@app.command(epilog="Example: prune-nas search --model vgg16 --dataset digits --preset smoke")
def search(
    model: OptionalModel = None,
    dataset: OptionalDataset = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="BUDGET",
            help="Limit: macs=0.4, params=1M, latency=3ms, or several at once, such as macs=0.2,params=0.05. Repeat "
            "the option for further budgets [default: macs=0.4].",
        ),
    ] = None,
    preset: Preset = None,
    run: Run = None,
    config: Config = None,
    data_dir: DataDir = None,
    cache_images: CacheImages = None,
    device: Device = None,
    devices: Devices = None,
    trials_per_device: TrialsPerDevice = None,
    workers: Workers = None,
    threads: Threads = None,
    storage: Storage = None,
    study: Study = None,
    precision: Precision = None,
    seed: Seed = None,
    base_width: BaseWidth = None,
    supernet_width: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="Widths of the supernet / widths of the network [default: 1]."),
    ] = None,
    space: Space = None,
    image_size: ImageSize = None,
    train_size: TrainSize = None,
    val_size: ValSize = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="fast (one cycle) or paper (as published) [default: fast, but paper with that preset]."
        ),
    ] = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Start from this rule, without a supernet: a run, a rule file, a published rule, or taper.",
        ),
    ] = None,
    prior_budget: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="Use the rule of this budget of --prior [default: a run is pruned again for each --budget, a rule "
            "file gives its first].",
        ),
    ] = None,
    prior_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Network of the widths in a .csv given as --prior.")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Rule that is fitted to widths of --prior: stage-mean, depth-curve or quantised-linear [default: "
            "stage-mean].",
        ),
    ] = None,
    allow_untrained: Annotated[
        bool | None,
        typer.Option("--allow-untrained", help="Use a rule even if the supernet of its source did not learn."),
    ] = None,
    penalty: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Penalty on the supernet: l1, l1-macs, l1-params, l1-cost or none [default: l1, but none without "
            "BatchNorm].",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(metavar="LAMBDA", help="Fixed strength of the penalty [default: follows from its effect]."),
    ] = None,
    selection: Selection = None,
    supernet_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs of the supernet [default: by preset 6, 6, 20, 80].")
    ] = None,
    supernet_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Smallest number of optimiser steps of the supernet [default: by preset 200, 800, 2000]."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Largest number of short trainings per budget [default: by preset 6, 12, 24, 24]. 0 leaves the "
            "study out.",
        ),
    ] = None,
    trial_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs of a trial [default: by preset 2, 4, 8, 32].")
    ] = None,
    trial_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Smallest number of optimiser steps of a trial [default: by preset 60, 400, 800]."
        ),
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Largest number of trials that are trained again in full, beside uniform scaling "
            "[default: 3, smoke 2].",
        ),
    ] = None,
    finalist_seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Largest number of seeds per finalist [default: 2].")
    ] = None,
    search_cost: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Largest compute of supernet and study per budget, in trainings of the unpruned network [default: 2].",
        ),
    ] = None,
    latency_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Batch size when latency is measured [default: 1].")
    ] = None,
    latency_threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads when latency is measured [default: all].")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Begin no trial after this time, per budget [default: none]."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="Optuna sampler: tpe, gp or random [default: tpe].")
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    seeds: Seeds = None,
    randoms: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random networks per budget, as rivals [default: 3, smoke and laptop 2]."),
    ] = None,
    schedules: Schedules = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Networks of the final comparison, with commas [default: all but uniform@macs and the like]. "
            "`prune-nas guide search` lists them.",
        ),
    ] = None,
    figures: Figures = True,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search widths under a budget and test them.

    The same command resumes a run that was stopped.
    """
    own = ("run", "config", "figures", "dry_run", "quiet", "json_")
    flags = {name: value for name, value in locals().items() if name not in own and name != "own"}
    if not dry_run:
        perform(flags, run=run, config=config, figures=figures, quiet=quiet, json_=json_)
        return

    announce_plan(flags, run=run, config=config, quiet=quiet, json_=json_)


def announce_plan(flags: dict[str, Any], *, run: Path | None, config: Path | None, quiet: bool, json_: bool) -> None:
    """Print what a search with these settings would still train."""
    from prune_nas.api import plan_search

    found = plan_search(run, quiet=quiet, config=config, **flags)
    if json_:
        print_json(found.to_dict())
    else:
        typer.echo("\n".join(found.lines()))


def perform(
    flags: dict[str, Any], *, run: Path | None, config: Path | None, figures: bool = True, quiet: bool, json_: bool
) -> None:
    """Search with these settings, draw the figures if asked for, write the report, and print the results."""
    from prune_nas.api import run_search

    done = run_search(run, quiet=quiet, config=config, **flags)
    if done is not None:
        from prune_nas.report.html import write_all  # here, since matplotlib keeps the first training waiting

        if figures and not quiet:
            typer.echo("drawing the figures and the report", err=True)
        report_run(done.path, partial(write_all, figures=figures), json_=json_)


@app.command(epilog="Example: prune-nas train artifacts/runs/my-run/deploy.json --dataset digits --epochs 8")
def train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Spec, such as the deploy.json of a run.")],
    dataset: Dataset,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Your network as path/file.py:NAME, if the spec names Python code."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Epochs of the unpruned network, and of scratch-e [default: as in the spec, else 20]."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="fast or paper [default: as in the spec, else fast].")
    ] = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    threads: Threads = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="NAME", help="scratch-e or scratch-b [default: as the spec was trained].")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Number of trainings, each with another seed.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="First seed.")] = 0,
    train_size: TrainSize = None,
    val_size: ValSize = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps or auto.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="Number format: fp32, bf16, fp16 or auto.")] = "auto",
    out: Annotated[Path, typer.Option(metavar="PATH", help="Folder of the weights.")] = Path("artifacts/runs/train"),
    data_dir: DataDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train a network of a spec from scratch.

    Prints validation and test accuracy, and saves the weights.
    """
    import torch

    from prune_nas.search.progress import View
    from prune_nas.search.single import train_spec

    if threads is not None:
        torch.set_num_threads(threads)
    results = train_spec(
        spec,
        dataset,
        model=model,
        settings={"recipe": recipe, "optimizer": optimizer, "batch": batch, "lr": lr, "epochs": epochs},
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
        print_json(results)
        return
    for row in results:
        typer.echo(
            f"seed {row['seed']}: {100 * row['val_accuracy']:.2f} % on validation, "
            f"{100 * row['test_accuracy']:.2f} % on test "
            f"({row['epochs']} epochs, {row['seconds']:.0f} s) -> {row['weights']}"
        )
