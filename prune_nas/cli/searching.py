"""The commands that train."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

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
    Lr,
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
    report_run,
)


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
    cache_images: CacheImages = None,
    device: Device = None,
    devices: Devices = None,
    trials_per_device: TrialsPerDevice = None,
    workers: Workers = None,
    threads: Threads = None,
    storage: Storage = None,
    study: Study = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything that is random.")] = None,
    base_width: BaseWidth = None,
    supernet_width: Annotated[float | None, typer.Option(help="Widens the supernet beyond the base.")] = None,
    space: Annotated[Path | None, typer.Option(help="A TOML file of floors, ties and the like; see README.")] = None,
    image_size: ImageSize = None,
    train_size: Annotated[
        int | None, typer.Option(help="At most this many training images, a stratified subset.")
    ] = None,
    val_size: Annotated[
        int | None, typer.Option(help="At most this many validation images, cut from the training set.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="fast or paper.")] = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    prior: Annotated[
        str | None, typer.Option(help="Start from this rule (as `transfer` takes it), without a supernet.")
    ] = None,
    prior_budget: Annotated[
        str | None,
        typer.Option(
            help="Which of the prior's budgets lends its widths "
            "[default: a run is pruned anew under each of the search's; else its first]."
        ),
    ] = None,
    prior_model: Annotated[str | None, typer.Option(help="The network whose slots a .csv prior names.")] = None,
    rule: Annotated[str | None, typer.Option(help="Kind of rule that is fitted where the prior is widths.")] = None,
    allow_untrained: Annotated[
        bool | None,
        typer.Option("--allow-untrained", help="Use a prior even if its source's supernet did not learn."),
    ] = None,
    penalty: Annotated[
        str | None,
        typer.Option(
            help="Penalty on the supernet's BatchNorm scales: l1, l1-macs, l1-params, l1-cost or none [default: l1; "
            "none for a network without BatchNorm]."
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Lambda of the penalty [default: follows from how many channels it brings near zero]."),
    ] = None,
    selection: Annotated[str | None, typer.Option(help="per-cost or threshold.")] = None,
    supernet_epochs: Annotated[int | None, typer.Option(help="Epochs of the supernet [default: by preset].")] = None,
    supernet_steps: Annotated[
        int | None, typer.Option(help="Least steps of the supernet: epochs are added where images are few.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates trained by the study, per budget.")] = None,
    trial_epochs: Annotated[int | None, typer.Option(help="Epochs of a trial [default: by preset].")] = None,
    trial_steps: Annotated[int | None, typer.Option(help="Least steps of a trial.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Best trials (and uniform) that the study trains again for --epochs.")
    ] = None,
    finalist_seeds: Annotated[int | None, typer.Option(help="Seeds that the finalists are trained with.")] = None,
    search_cost: Annotated[
        float | None,
        typer.Option(help="Most that the supernet and a budget's study may cost, in trainings of the base."),
    ] = None,
    latency_batch: Annotated[int | None, typer.Option(help="Images a forward pass when latency is measured.")] = None,
    latency_threads: Annotated[int | None, typer.Option(help="CPU threads when latency is measured.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a study begins no more trials.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, gp or random.")] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of the finals.")] = None,
    randoms: Annotated[int | None, typer.Option(help="Random shapes a budget.")] = None,
    schedules: Annotated[str | None, typer.Option(help="scratch-e, scratch-b, with commas.")] = None,
    arms: Annotated[str | None, typer.Option(help="Arms of the finals, with commas [default: all].")] = None,
    figures: Figures = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, how long, and stop.")] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search widths under a budget and compare them with every fair rival; the same command again resumes."""
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

        report_run(done.path, partial(write_all, figures=figures), json_=json_)


@app.command(epilog="Example: prune-nas train artifacts/runs/my-run/best.json --dataset digits --epochs 8")
def train(
    spec: Annotated[Path, typer.Argument(help="A spec such as a run's best.json.")],
    dataset: Dataset,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the network comes from, if the spec names Python code.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of the unpruned network, and of scratch-e [default: as in the spec, else 20]."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="fast or paper [default: as in the spec, else fast].")] = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    threads: Threads = None,
    schedule: Annotated[
        str | None, typer.Option(help="scratch-e or scratch-b [default: as the spec was trained].")
    ] = None,
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
