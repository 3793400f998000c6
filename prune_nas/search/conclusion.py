"""From a run's records to its conclusions: widths, rules, ledger, verdict, the best network, report and figures.

Everything here is derived: deleting any of these files and running the search again writes it anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prune_nas.design import rules
from prune_nas.design.answer import Timing, answer
from prune_nas.design.arms import Key, training_of
from prune_nas.design.evidence import by_arm
from prune_nas.design.files import write_json, write_text
from prune_nas.design.ledger import total, train_macs
from prune_nas.design.records import SCHEMA, Expense, Final, TrialRow, read_table, write_table
from prune_nas.design.space import Space, Widths
from prune_nas.design.subject import Subject
from prune_nas.design.verdict import about_floors, about_shape, search_cost, verdict
from prune_nas.design.words import percent
from prune_nas.errors import PruneNasError
from prune_nas.nets.models.sources import runs_code
from prune_nas.nets.settings import read_settings
from prune_nas.search import timing
from prune_nas.search.finals import weights_of
from prune_nas.search.prior import HAND, Prior, remarks
from prune_nas.search.rundir import read_json
from prune_nas.search.setup import recipe_of

if TYPE_CHECKING:
    from prune_nas.search.experiment import Experiment
    from prune_nas.search.kernel_rules import KernelPrior
    from prune_nas.search.pipeline import Search
    from prune_nas.search.rundir import Run


def conclude(run: Run, job: Search) -> None:
    """Write every derived table and JSON file of a run whose phases have ended."""
    finals = read_table(run.file("finals.csv"), Final)
    expenses = spent(job, finals)
    write_table(run.file("ledger.csv"), Expense, expenses)
    write_widths(run, job.space, job.arms)
    noise = noise_of(run)
    if job.rules:
        about = {"learnt": not noise, "warning": noise}
        rules_ = [{"budget": b, **rules.to_dict(fit), **about} for b, fit in job.rules.items()]
        write_json(run.file("rule.json"), rules_)
    before = {one["budget"]: one["latency"] for one in _verdicts_before(run)}
    verdicts = [
        _verdict(job, number, finals, expenses, noise, before.get(budget, {})) for number, budget in enumerate(job.arms)
    ]
    write_json(run.file("verdict.json"), verdicts)
    write_nets(job, verdicts, finals)


def noise_of(run: Run) -> str:
    """That the run's supernet did not learn, in a sentence; empty where it did, or where there is none."""
    found = run.record.get("diagnosis") or {}
    if found.get("learnt", True):
        return ""
    accuracy, guessing = (percent(found[name]) for name in ("accuracy", "guessing"))
    return (
        f"The supernet did not learn ({accuracy}, guessing gives {guessing}), so the widths that are read from it "
        "(pruned, guided, inherited) are noise."
    )


def _verdicts_before(run: Run) -> list[dict[str, Any]]:
    """The verdicts that an earlier command wrote; none where the file is damaged or not there."""
    try:
        return [one for one in read_json(run.file("verdict.json")) if {"budget", "latency"} <= one.keys()]
    except (PruneNasError, AttributeError, TypeError):
        return []


def _verdict(
    job: Search, number: int, finals: list[Final], expenses: Sequence[Expense], noise: str, before: Mapping[str, Any]
) -> dict[str, Any]:
    """The verdict of one budget, by its number, with the answer in front; `before` are latencies of an earlier one."""
    budget, candidates = list(job.arms.items())[number]
    limits, space = job.limits[budget], job.space
    within = {arm for arm, all_ in candidates.items() if all(limits.admits(space.cost(w)) for w in all_)}
    failed = failures(job, budget, finals)
    said = verdict(budget, limits, finals, within, failed, job.subject, chance=job.setting.data.chance, noise=noise)
    if said["learnt"]:
        said["sentences"] += _about_widths(job, budget, candidates)
        if job.subject == "transferred":
            said["headline"] = f"{saved(job, finals)}{said['headline']}"
            said["sentences"] += about_prior(job.priors[budget], space, finals)
    measured, notes = timing.facts(
        job.traced, candidates, job.subject, dict(limits.bounds).get("latency"), job.conditions, before, job.view
    )
    answered = answer(
        said,
        finals,
        Subject.from_dict(job.run.record["subject"]),
        file=f"{place('deploy', number)}.json",
        keeps={arm: [ws[0][s] / space.base[s] for s in space.base] for arm, ws in candidates.items()},
        timings={arm: Timing(float(one["median_ms"]), float(one["iqr_ms"])) for arm, one in measured.items()},
        search=search_cost(budget, expenses),
        noise=noise,
        model=space.model if runs_code(space.model) else "",
    )
    notes = notes if said["learnt"] else []
    facts = {**said, "sentences": [*said["sentences"], *notes], "latency": measured}
    return {**facts, "answer": answered.to_dict(str(job.run.path))}


def _about_widths(job: Search, budget: str, candidates: Mapping[str, Sequence[Widths]]) -> list[str]:
    """How uneven the subject's widths are, and where floors decide them."""
    own, base = candidates[job.subject][0], job.space.base
    uneven = about_shape([own[slot] / base[slot] for slot in base], job.subject)
    return [uneven, *about_floors(job.space, own)]


def place(name: str, number: int) -> str:
    """The name of a network's files: the first budget's as it is, the others' in a folder."""
    return name if number == 0 else f"{name}/{number + 1}"


def write_nets(job: Experiment, verdicts: Sequence[dict[str, Any]], finals: list[Final]) -> None:
    """Write `best` and `deploy` of every budget: the spec and the weights of the subject, and of what to use.

    Where nothing is to be used, because nothing learnt, there is no `deploy`.
    """
    for i, said in enumerate(verdicts):
        nets = {"best": (said["subject"], "")}
        if chosen := said["deploy"]:
            nets["deploy"] = chosen["arm"], chosen["schedule"]
        else:
            for ending in ("json", "safetensors"):
                job.run.file(f"{place('deploy', i)}.{ending}").unlink(missing_ok=True)
        for name, (arm, schedule) in nets.items():
            rows = [r for key, rows in by_arm(finals).items() if _is(key, said["budget"], arm, schedule) for r in rows]
            _write_net(job, said, rows, place(name, i))


def saved(job: Experiment, finals: list[Final]) -> str:
    """What a transferred rule saves, in words."""
    base = next((row.train_macs for row in finals if row.arm == "base"), 0)
    if not base:
        return ""
    widest = job.space.cost(job.space.widest).macs
    supernet = train_macs(widest, len(job.setting.data.train), job.config.supernet_epochs)
    trainings = supernet / base
    return (
        f"The transferred rule saves training a supernet of this network, {trainings:.1f} trainings of the unpruned "
        "network. "
    )


def about_prior(prior: Prior | KernelPrior, space: Space, finals: list[Final]) -> list[str]:
    """What must be said of a transferred rule, and what its source cost."""
    said = remarks(prior, space)
    base = next((row.train_macs for row in finals if row.arm == "base"), 0)
    if prior.source in HAND:
        return [*said, "The rule was made by hand: no network was trained for it."]
    if not prior.spent:
        return [*said, "The cost of the source's supernet is not known, and not in the ledger."]
    cost = f"{prior.spent / base:.1f} trainings of this base" if base else f"{prior.spent / 1e9:,.3g}G training macs"
    return [*said, f"The source's supernet cost {cost}, once, however many networks its rules are used for."]


def spent(job: Experiment, finals: list[Final]) -> list[Expense]:
    """The ledger of a run: one expense for each budget, phase and arm."""
    return total(_expenses(job.run, len(job.setting.data.train), finals))


def _expenses(run: Run, images: int, finals: list[Final]) -> Iterator[Expense]:
    if probe := run.record.get("probe"):
        yield Expense("", "probe", "", 1, probe["train_macs"], probe["seconds"])
    supernet = run.record.get("supernet")
    if supernet:
        yield Expense("", "supernet", "", 1, supernet["train_macs"], supernet["seconds"])
    for origin in run.record.get("origins", {}).values():
        yield Expense("", "supernet", origin["name"], 1, origin["train_macs"], origin["seconds"])
    for row in read_table(run.file("trials.csv"), TrialRow):
        trainings = 0 if row.state == "REPEAT" else 1
        yield Expense(row.budget, "study", "", trainings, train_macs(row.macs, images, row.epochs), row.seconds)
    seen = set()
    for final in finals:
        training = training_of(final)
        if training in seen:  # an arm of the same widths shares this training
            yield Expense(final.budget, "finals", final.arm, 0, 0, 0.0)
            continue
        seen.add(training)
        yield Expense(final.budget, "finals", final.arm, 1, final.train_macs, final.seconds)
    for failure in run.record.get("failures", {}).values():
        spent = train_macs(failure["macs"], images, failure["epochs"])
        yield Expense(failure["budget"], "finals", failure["arm"], int(spent > 0), spent, failure["seconds"])


def failures(job: Experiment, budget: str, finals: Iterable[Final]) -> dict[str, str]:
    """Which trainings of a budget's arms, or of the base, failed and were not made up for, and why."""
    own, done = job.candidates(), {(row.budget, row.arm, training_of(row)) for row in finals}
    return {
        f"{one['arm']} {one['schedule']} seed {one['seed']} ({one['candidate']})": one["error"]
        for one in job.run.record.get("failures", {}).values()
        if one["budget"] == ""
        or (one["budget"] == budget and one["candidate"] in own.get(budget, {}).get(one["arm"], ()))
        if (one["budget"], one["arm"], Key(*one["training"])) not in done
    }


def write_widths(run: Run, space: Space, arms: Mapping[str, Mapping[str, Sequence[Widths]]]) -> None:
    """Write `widths.csv`: budget -> arm -> candidates, the base beside them."""
    lines: list[list[Any]] = []
    for budget, candidates in arms.items():
        named = _named(space, candidates)
        header = ["budget", "slot", "stage", "depth", "ceiling", *named]
        if not lines:
            lines.append(header)
        columns = lines[0][5:]
        lines[0] += [arm for arm in named if arm not in columns]
        for slot in space.slots:
            cells = [named[arm][slot.name] if arm in named else "" for arm in lines[0][5:]]
            lines.append([budget, slot.name, slot.stage, round(slot.depth, 4), slot.ceiling, *cells])
    if not lines:  # where single weights went alone, there are no widths
        return
    widest = len(lines[0])
    text = "\n".join(",".join(map(_cell, [*line, *[""] * (widest - len(line))])) for line in lines)
    write_text(run.file("widths.csv"), text + "\n")


def _named(space: Space, candidates: Mapping[str, Sequence[Widths]]) -> dict[str, Widths]:
    """Arm -> widths, several candidates numbered; the inherited arm has the pruned one's."""
    named = {"base": space.base}
    for arm, widths in candidates.items():
        if arm == "inherited":
            continue
        named |= {arm: widths[0]} if len(widths) == 1 else {f"{arm}{i + 1}": w for i, w in enumerate(widths)}
    return named


def _cell(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if "," in text else text


def _is(key: tuple[str, str, str], budget: str, arm: str, schedule: str) -> bool:
    return key[:2] == (budget, arm) and schedule in ("", key[2])


def _training(job: Experiment, best: Final | None) -> dict[str, Any]:
    """By which settings a network was trained, `epochs` being the base's; `prune-nas train` goes by them."""
    recipe = recipe_of(job.config, job.config.epochs)
    return {
        "recipe": job.config.recipe,
        "optimizer": recipe.optimizer,
        "lr": recipe.lr,
        "batch": recipe.batch,
        "epochs": recipe.epochs,
        "schedule": "scratch-b" if best and best.schedule == "scratch-b" else "scratch-e",
        "precision": job.setting.precision.name,
    }


def _write_net(job: Experiment, said: dict[str, Any], rows: list[Final], name: str) -> None:
    """Write `<name>.json`, the spec of the rows' network, and `<name>.safetensors`: its seed best on validation."""
    run, budget = job.run, said["budget"]
    best = max(rows, key=lambda row: row.val_accuracy, default=None)
    widths = job.widths_of(budget, best.candidate if best else None)
    cost = job.space.cost(widths)
    spec = {
        "schema": SCHEMA,
        "model": job.space.model,
        "base_width": job.config.base_width,
        "input_shape": list(job.space.input_shape),
        "classes": job.space.classes,
        "settings": read_settings(job.config.space) if job.config.space else {},
        "widths": dict(widths),
        "macs": cost.macs,
        "params": cost.params,
        **job.about_weights(budget),
        "preprocessing": job.setting.data.preprocessing.to_dict(),
        "training": _training(job, best),
        "source": {
            "run": run.path.name,
            "budget": budget,
            "arm": best.arm if best else said["subject"],
            "seed": best.seed if best else None,
            "schedule": best.schedule if best else None,
            "val_accuracy": best.val_accuracy if best else None,
        },
    }
    write_json(run.file(f"{name}.json"), spec)
    target = run.file(f"{name}.safetensors")
    weights = run.file("weights") / weights_of(training_of(best)) if best else None
    if weights is None or not weights.exists():  # never trained, or published without weights
        target.unlink(missing_ok=True)
        return
    temporary = target.with_suffix(".part")
    shutil.copyfile(weights, temporary)
    temporary.replace(target)
