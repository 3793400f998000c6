"""The commands about rules: what one network taught, applied to another."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prune_nas.cli.common import (
    BaseWidth,
    Batch,
    CacheImages,
    Config,
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
    Workers,
    app,
    print_json,
    save_figure,
)
from prune_nas.cli.searching import announce_plan, perform
from prune_nas.errors import UsageError, unknown

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Where the rule comes from: a run directory, a rule file (.json), a table of widths (.csv), a published "
        "rule (`prune-nas rules`), taper or uniform.",
        show_default=False,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--rule",
        metavar="NAME",
        help="Rule that is fitted to widths: stage-mean, depth-curve or quantised-linear [default: stage-mean].",
    ),
]
SourceBudget = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Prune the source under this budget [default: under each --budget]."),
]
Untrained = Annotated[
    bool,
    typer.Option("--allow-untrained", help="Use a rule even if the supernet of its source did not learn."),
]
SourceModel = Annotated[str | None, typer.Option(metavar="NAME", help="Network of the widths in a .csv.")]

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
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="BUDGET",
            help="Limit, as in `search`. Repeat the option for further budgets [default: macs=0.4].",
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Train the widths and their rivals, and compare them.")
    ] = False,
    rule: Kind = None,
    source_budget: SourceBudget = None,
    source_model: SourceModel = None,
    allow_untrained: Untrained = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Without --evaluate: draw pattern, rule and widths into this .svg, .png or .pdf."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Without --evaluate: write the widths into this .csv.")
    ] = None,
    base_width: BaseWidth = None,
    space: Space = None,
    image_size: ImageSize = None,
    selection: Selection = None,
    preset: Preset = None,
    run: Run = None,
    config: Config = None,
    train_size: TrainSize = None,
    precision: Precision = None,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="LAMBDA",
            help="Fixed strength of the penalty on this network's supernet, for the arms guided and pruned.",
        ),
    ] = None,
    supernet_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Epochs of this network's supernet, for the arms guided and pruned [default: by preset]."
        ),
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    optimizer: Optimizer = None,
    batch: Batch = None,
    lr: Lr = None,
    seeds: Seeds = None,
    schedules: Schedules = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Networks of the final comparison, with commas [default: all but uniform@macs and the like]. Without "
            "guided and pruned no supernet is trained.",
        ),
    ] = None,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --evaluate: list the trainings, estimate the time, train nothing.")
    ] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Apply a rule to another network.

    With --evaluate the widths are trained and compared with rivals.
    """
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
                    f"--{name} is written without --evaluate, which has a run directory for such files. Leave one out"
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
        raise UsageError(f"--{training[0].replace('_', '-')} needs --evaluate. Without it nothing is trained")
    settings = given(flags, file=file)
    weights = prune_weights(Budget.parse(str(text)) for text in settings.get("budget", ()))
    about = {"rule": settings.get("rule"), "source-model": settings.get("prior_model"), "out": out,
             "selection": flags.get("selection"), "space": settings.get("space")}  # fmt: skip
    if weights and (name := next((name for name, value in about.items() if value is not None), None)):
        raise UsageError(f"--{name} is about widths. Leave it out under a budget of weights")
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
            "These widths are for the full network. --evaluate narrows a built-in network by the preset (laptop half, "
            "smoke a quarter). To train these widths, give it --base-width 1."
        )


def _show(found: Any, source: str, *, figure: Path | None, out: Path | None, json_: bool) -> None:
    """Print, write and draw the widths that a source gives another network."""
    if out is not None:
        found.write_widths(out)
        if not json_:
            typer.echo(f"widths: {out}")
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
        about = [f"{named}, before it is scaled onto the budget: {target.prior.rule.explain()}", *target.remarks]
        for line in about:
            if line and line not in said:
                typer.echo(line)
        said.update(about)
        shares = f"{100 * target.macs / base.macs:.0f} %", f"{100 * target.params / base.params:.0f} %"
        typer.echo(f"{target.budget}: {target.macs:,} macs ({shares[0]}), {target.params:,} params ({shares[1]})")
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
        kept, of = (sum(counts) for counts in zip(*each.kept.values(), strict=True))
        typer.echo(f"{model}: {kept:,} of {of:,} weights of convolutions stay ({100 * kept / of:.1f} %)")
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


class _Named(TyperGroup):
    """The commands of `rules`; the name of a published rule in a command's place is explained."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named first.

        Raises:
            UsageError: it is a rule's name, or nothing that is known.
        """
        from prune_nas.search.prior import published

        if args[0] not in self.commands and not args[0].startswith("-"):
            if args[0] in published():
                raise UsageError(
                    f"{args[0]} is a published rule. `prune-nas rules` says what it is. To apply the rule: prune-nas "
                    f"transfer {args[0]} --model MODEL --dataset DATA --budget BUDGET"
                )
            raise unknown("command or rule", args[0], [*self.commands, *published()])
        return super().resolve_command(ctx, args)


rules = typer.Typer(cls=_Named, help="List the published rules, or fit a rule.", rich_markup_mode=None)
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
    if old := [name for name, (_, evidence) in found.items() if evidence.get("old_recipe")]:
        typer.echo(
            f"Networks of {', '.join(old)} were trained by an old recipe: they started from the initial values of "
            "Network Slimming's code."
        )
    if found:
        typer.echo("To apply a rule: prune-nas transfer NAME --model MODEL --dataset DATA --budget BUDGET")
    else:
        typer.echo("No rule is published yet. Make a rule: prune-nas rules fit RUN -o FILE.json")


@rules.command(epilog="Example: prune-nas rules fit artifacts/runs/a artifacts/runs/b -o my-rule.json")
def fit(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs or .csv tables of widths of one kind of network.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="The rule file to write.")],
    kind: Kind = None,
    source_budget: Annotated[
        str | None,
        typer.Option(metavar="BUDGET", help="Under which every run is pruned [default: each run's first budget]."),
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
