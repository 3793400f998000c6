"""The commands about rules: what one network taught, applied to another."""

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
    save_figure,
)
from prune_nas.cli.searching import announce_plan, perform
from prune_nas.errors import UsageError

Source = Annotated[
    str,
    typer.Argument(
        help="A run, a rule file, a published rule's name, a .csv of widths, or taper or uniform.", show_default=False
    ),
]
Kind = Annotated[
    str | None,
    typer.Option("--rule", help="stage-mean (default), depth-curve or quantised-linear, where the source is widths."),
]
SourceBudget = Annotated[
    str | None,
    typer.Option(help="Under which the source is pruned, whatever the target's budgets [default: as the target is]."),
]
Untrained = Annotated[
    bool,
    typer.Option(
        "--allow-untrained", help="Use a rule even if its source's supernet did not learn, so that it is noise."
    ),
]
SourceModel = Annotated[str | None, typer.Option(help="The network whose slots a .csv names.")]

_OF_TRAINING = (
    *("train_size", "precision", "strength", "supernet_epochs", "epochs", "seeds", "schedules", "arms", "seed"),
    *("steps", "optimizer", "batch", "lr"),
    *("device", "devices", "trials_per_device", "workers", "threads", "cache_images", "run", "dry_run"),
)


@app.command(epilog="Example: prune-nas transfer artifacts/runs/my-run --model vgg19 --dataset cifar100 -b params=0.1")
def transfer(
    source: Source,
    model: Model,
    dataset: Dataset,
    budget: Annotated[list[str] | None, typer.Option("--budget", "-b", help="As in search; may be repeated.")] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Train the arms and compare them; without it nothing is trained.")
    ] = False,
    rule: Kind = None,
    source_budget: SourceBudget = None,
    source_model: SourceModel = None,
    allow_untrained: Untrained = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="Without --evaluate: draw pattern, rule and widths into this file."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Without --evaluate: write the widths into this .csv.")] = None,
    base_width: BaseWidth = None,
    space: Annotated[Path | None, typer.Option(help="A TOML file of floors, ties and the like; see README.")] = None,
    image_size: ImageSize = None,
    selection: Annotated[str | None, typer.Option(help="How channels are chosen: per-cost or threshold.")] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, laptop, standard, paper or auto.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory of --evaluate [default: artifacts/runs/...].")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with any setting of search.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Train on a stratified subset.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Lambda of the target's own supernet, for guided, pruned.")
    ] = None,
    supernet_epochs: Annotated[int | None, typer.Option(help="Epochs of the target's own supernet.")] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of the finals.")] = None,
    schedules: Annotated[str | None, typer.Option(help="scratch-e, scratch-b, with commas.")] = None,
    arms: Annotated[
        str | None, typer.Option(help="Arms that are trained; without guided and pruned the target needs no supernet.")
    ] = None,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --evaluate: say what would be trained, how long, and stop.")
    ] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Apply what was found on one network to another, under any budget; with --evaluate, prove it."""
    flags = {
        "model": model,
        "dataset": dataset,
        "budget": budget,
        "base_width": base_width,
        "prior": source,
        "prior_budget": source_budget,
        "prior_model": source_model,
        "rule": rule,
        "allow_untrained": allow_untrained or None,
        "trials": 0,
        "finalists": 0,
        "image_size": image_size,
        "space": space,
        "selection": selection,
        "preset": preset,
        "train_size": train_size,
        "precision": precision,
        "strength": strength,
        "supernet_epochs": supernet_epochs,
        "epochs": epochs,
        "steps": steps,
        "optimizer": optimizer,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "data_dir": data_dir,
        "cache_images": cache_images,
        "seeds": seeds,
        "schedules": schedules,
        "arms": arms,
        "device": device,
        "workers": workers,
        "threads": threads,
        "devices": devices,
        "trials_per_device": trials_per_device,
        "storage": storage,
        "study": study,
    }
    if evaluate:
        for name, file in (("figure", figure), ("out", out)):
            if file is not None:
                raise UsageError(
                    f"--{name} is written without --evaluate, which has a run directory for such files; leave one out"
                )
        if dry_run:
            announce_plan(flags, run=run, config=config, quiet=quiet, json_=json_)
        else:
            perform(flags, run=run, config=config, figures=figures, quiet=quiet, json_=json_)
        return

    given = {**flags, "run": run, "dry_run": dry_run or None}
    given = {name: value for name, value in given.items() if value is not None}
    _widths(source, model, dataset, given, config, figure=figure, out=out, json_=json_)


def _widths(
    source: str,
    model: str,
    dataset: str,
    flags: dict[str, Any],
    file: Path | None,
    *,
    figure: Path | None,
    out: Path | None,
    json_: bool,
) -> None:
    """Print, write and draw what a source gives a network; nothing is trained."""
    from prune_nas.config import given, resolve
    from prune_nas.design.budget import Budget, prune_weights
    from prune_nas.search.prior import Source as Read
    from prune_nas.search.transfer import transfer as work

    if training := [name for name in flags if name in _OF_TRAINING]:
        raise UsageError(f"--{training[0].replace('_', '-')} is about trainings; add --evaluate, or leave it out")
    settings = given(flags, file=file)
    weights = prune_weights(Budget.parse(str(text)) for text in settings.get("budget", ()))
    about = {"rule": settings.get("rule"), "source-model": settings.get("prior_model"), "out": out,
             "selection": flags.get("selection"), "space": settings.get("space")}  # fmt: skip
    if weights and (name := next((name for name, value in about.items() if value is not None), None)):
        raise UsageError(f"--{name} is about widths; leave it out under a budget of weights")
    asked = resolve(flags, file=file)
    named = file is not None or bool(settings.keys() & {"base_width", "preset"})
    of_model: dict[str, Any] = {
        "base_width": asked.base_width if named else 1.0,
        "image_size": asked.image_size,
        "data_dir": asked.data_dir,
    }
    if weights:
        _plan(source, model, dataset, asked.budget, asked.prior_budget, of_model, figure=figure, json_=json_)
        return
    found = work(
        Read(source, asked.rule, asked.prior_budget, asked.prior_model, asked.selection, asked.allow_untrained),
        model,
        dataset,
        budgets=asked.budget,
        settings=asked.space,
        **of_model,
    )
    _show(found, source, figure=figure, out=out, json_=json_)
    if not named and not json_ and ":" not in model:
        typer.echo(
            "These are widths of the network at its full width. --evaluate trains a built-in network at the preset's "
            "width (laptop half, smoke a quarter): give both the same --base-width."
        )


def _show(found: Any, source: str, *, figure: Path | None, out: Path | None, json_: bool) -> None:
    """Print, write and draw the widths that a source gives another network."""
    if out is not None:
        found.write_widths(out)
    if figure is not None:
        _draw(found, source, figure, quiet=json_)
    if json_:
        print_json([target.to_dict() for target in found.targets])
        return
    base = found.space.cost(found.space.base)
    typer.echo(f"base {found.space.model}: {base.macs:,} macs, {base.params:,} params")
    said: set[str] = set()
    for target in found.targets:
        kind = target.prior.rule.kind
        named = kind if kind == source else f"{kind} from {source}"
        about = [f"{named}: {target.prior.rule.explain()}", target.remark]
        for line in about:
            if line and line not in said:
                typer.echo(line)
        said.update(about)
        typer.echo(f"{target.budget}: {target.macs:,} macs, {target.params:,} params")
        typer.echo("  " + ", ".join(f"{slot} {width}" for slot, width in target.widths.items()))


def _plan(
    source: str,
    model: str,
    dataset: str,
    budgets: Any,
    asked: str | None,
    of_model: Any,
    *,
    figure: Path | None,
    json_: bool,
) -> None:
    """Single weights: print and draw what a source's rules leave of a network."""
    from prune_nas.design.budget import Budget
    from prune_nas.report.figures.kernels import kernels, places
    from prune_nas.search.kernel_rules import plan

    wanted = Budget.parse(asked) if asked else None
    found = plan(source, model, dataset, [Budget.parse(text) for text in budgets], asked=wanted, **of_model)
    if figure is not None:
        frame = places([(each.budget, each.prior.rule) for each in found])
        save_figure(figure, lambda: kernels(frame), {"places": frame}, quiet=json_)
    if json_:
        print_json([each.to_dict() for each in found])
        return
    for each in found:
        typer.echo(f"{each.budget} from {source}: {each.prior.rule.explain()}")
        if each.remark:
            typer.echo(each.remark)
        typer.echo("  " + ", ".join(f"{layer} {100 * kept / of:.1f} %" for layer, (kept, of) in each.kept.items()))


def _draw(found: Any, source: str, path: Path, *, quiet: bool) -> None:
    from prune_nas.report.figures.transfer import Shown, tables
    from prune_nas.report.figures.transfer import transfer as figure

    shown = [Shown(t.budget, t.prior.rule, t.prior.patterns, t.widths) for t in found.targets]
    data, named = tables(found.space, shown), Path(source).name or source
    save_figure(
        path,
        lambda: figure(data.rules, data.patterns, data.widths, named, found.space.model),
        {"rules": data.rules, "patterns": data.patterns, "widths": data.widths},
        quiet=quiet,
    )


rules = typer.Typer(help="List and explain the published rules; fit new ones.", rich_markup_mode=None)
app.add_typer(rules, name="rules")


@rules.callback(invoke_without_command=True)
def list_rules(context: typer.Context, json_: Json = False) -> None:
    """List the rules that ship with this program, each in a sentence."""
    if context.invoked_subcommand is not None:
        return
    from prune_nas.design.kernels import kernel_mean_from_dict
    from prune_nas.search.prior import Source as Read
    from prune_nas.search.prior import published, read_prior
    from prune_nas.search.rundir import read_json

    found: dict[str, tuple[Any, Any]] = {}
    for name, path in published().items():
        data = read_json(path)
        of_kernels = data.get("kind") == "kernel-mean"
        rule = kernel_mean_from_dict(data, name) if of_kernels else read_prior(Read(name)).rule
        found[name] = rule, data.get("evidence", {})
    if json_:
        print_json(
            [
                {"schema": 1, "name": name, "kind": rule.kind, "explanation": rule.explain(), "evidence": evidence}
                for name, (rule, evidence) in found.items()
            ]
        )
        return
    for name, (rule, evidence) in found.items():
        typer.echo(f"{name} ({rule.kind}): {rule.explain()}")
        seeds = f" (n = {evidence['n']} seeds)" if evidence.get("results") and evidence["n"] > 1 else ""
        typer.echo(f"  {evidence.get('helped', 'no evidence is given')}{seeds}")
        if "did_not_help" in evidence:
            typer.echo(f"  where it did not help: {evidence['did_not_help']}")
    if not found:
        typer.echo("no rule is published yet; make one: prune-nas rules fit RUN -o FILE.json")


@rules.command(epilog="Example: prune-nas rules fit artifacts/runs/a artifacts/runs/b -o my-rule.json")
def fit(
    runs: Annotated[list[str], typer.Argument(help="Runs or .csv tables of widths of one kind of network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The rule file to write.")],
    kind: Kind = None,
    source_budget: Annotated[
        str | None, typer.Option(help="Under which every run is pruned [default: each run's first budget].")
    ] = None,
    source_model: SourceModel = None,
    allow_untrained: Untrained = False,
    json_: Json = False,
) -> None:
    """Fit one rule on the pruned widths of several runs, and say how far they agree."""
    from prune_nas.search.transfer import fit_rule

    made = fit_rule(runs, out, kind=kind, budget=source_budget, source_model=source_model, untrained=allow_untrained)
    if json_:
        print_json(made)
        return
    typer.echo(made["explanation"])
    typer.echo(made["evidence"]["stability"])
    typer.echo(f"rule: {out}")
