"""Write what is derived of published runs anew: python -m tests.benchmarks.rederive [RUN...]

Verdicts, answers, figures, reports and the tables of the receipts follow from `run.json`, `space.json` and a run's
tables. After the code that draws or words them has changed, this brings the published ones up to date. Nothing is
trained or measured.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prune_nas.design.answer import Timing, answer
from prune_nas.design.budget import Budget
from prune_nas.design.case_verdicts import unless_untrained, verdicts
from prune_nas.design.cases import Net
from prune_nas.design.files import write_json
from prune_nas.design.learning import Chance
from prune_nas.design.preprocessing import Preprocessing
from prune_nas.design.records import Expense, Final, read_table
from prune_nas.design.sizes import Size
from prune_nas.design.space import Space, Widths
from prune_nas.design.subject import Subject
from prune_nas.design.verdict import about_floors, about_shape, search_cost, verdict
from prune_nas.report.html import write_all
from prune_nas.report.run_data import RunData
from prune_nas.search.conclusion import place, saved
from tests.benchmarks.publish import results_of, verdicts_of

RESULTS = Path("artifacts/results")
OLD = (
    "Old recipe: these networks started from the initial values of Network Slimming's code and were padded with zeros. "
    "A quarter-width VGG-16 of 5,000 images, brought to a fifth of its macs by the taper, ended at 70.6 ± 0.8 % with "
    "that recipe and ends at 72.6 ± 0.8 % now (64 epochs, n = 3). How the networks compare was not measured again."
)


def published() -> list[Path]:
    """Every published run directory."""
    return sorted(path.parent for path in RESULTS.rglob("run.json"))


def rederive(path: Path, *, old: bool) -> None:
    """Bring one run directory up to date; `old` marks it as trained by the old recipe."""
    record = json.loads((path / "run.json").read_text())
    space = Space.from_dict(json.loads((path / "space.json").read_text()))
    finals, data, config = read_table(path / "finals.csv", Final), record["data"], record["config"]
    classes = data["classes"]
    data.setdefault("guessing", 1 / len(classes))
    images = data["train"], data["val"], data.get("test", 0)
    subject = Subject.of(space, config["base_width"], config["dataset"], images)
    record |= {"subject": subject.to_dict(), "remark": OLD if old else ""}
    write_json(path / "run.json", record)
    before = json.loads((path / "verdict.json").read_text())
    chance = Chance(data["guessing"], data["val"])
    cases = config.get("cases")
    said = _of_cases(path, cases, finals, chance) if cases else _of_budgets(path, record, space, finals, chance, before)
    write_json(path / "verdict.json", said)
    _respec(path, data, space)
    _renew_rules(path)
    shutil.rmtree(path / "figures", ignore_errors=True)
    run = RunData(path)
    write_all(run)
    _receipt(path, run, old=old)


def _of_cases(path: Path, cases: Iterable[str], finals: list[Final], chance: Chance) -> list[dict[str, Any]]:
    nets = [Net.from_dict(one) for one in json.loads((path / "pruned.json").read_text())["nets"]]
    before = {one["budget"]: one for one in json.loads((path / "verdict.json").read_text())}
    uneven = {case: one["non_uniformity"] for case, one in before.items()}
    said = verdicts(finals, nets, uneven, {case: {} for case in cases})
    return [unless_untrained(one, finals, chance) for one in said]


def _of_budgets(
    path: Path,
    record: Mapping[str, Any],
    space: Space,
    finals: list[Final],
    chance: Chance,
    before: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    said = []
    expenses = read_table(path / "ledger.csv", Expense)
    candidates = _candidates(path)
    for number, old in enumerate(before):
        budget, subject = old["budget"], old["subject"]
        limits = Budget.parse(budget).limits(space) if not budget.startswith("weights") else None
        shapes = candidates.get(budget, {})
        within = {row.arm for row in finals if row.budget == budget}
        if limits is not None:
            within = {arm for arm, all_ in shapes.items() if all(limits.admits(space.cost(w)) for w in all_)}
            within |= {"inherited"} if "pruned" in within else set()
        one = verdict(budget, limits or _Unbound(), finals, within, {}, subject, chance=chance)
        if subject in shapes:
            own = shapes[subject][0]
            one["sentences"] += [about_shape([own[s] / space.base[s] for s in space.base], subject)]
            one["sentences"] += about_floors(space, own)
        if subject == "transferred":
            job = SimpleNamespace(
                space=space,
                setting=SimpleNamespace(data=SimpleNamespace(train=range(record["data"]["train"]))),
                config=SimpleNamespace(**record["config"]),
            )
            one["headline"] = f"{saved(job, finals)}{one['headline']}"
        latency = old.get("latency") or {}
        answered = answer(
            one,
            finals,
            Subject.from_dict(record["subject"]),
            file=f"{place('deploy', number)}.json",
            keeps={arm: [ws[0][s] / space.base[s] for s in space.base] for arm, ws in shapes.items()},
            timings={arm: Timing(float(m["median_ms"]), float(m["iqr_ms"])) for arm, m in latency.items()},
            search=search_cost(budget, expenses),
            noise="",
            model="",
        )
        said.append({**one, "latency": latency, "answer": answered.to_dict(str(path))})
    return said


class _Unbound:
    """Limits of single weights: nothing that macs or params bound."""

    bounds = (("weights", 0.0),)


def _candidates(path: Path) -> dict[str, dict[str, list[Widths]]]:
    """Budget -> arm -> its candidates, from `widths.csv`."""
    if not (path / "widths.csv").exists():
        return {}
    with (path / "widths.csv").open() as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, list[Widths]]] = {}
    for budget, lines_ in groupby(rows, key=lambda row: row["budget"]):
        lines, arms = list(lines_), found.setdefault(budget, {})
        for column in list(lines[0])[5:]:
            if column != "base" and lines[0][column]:
                widths = Widths({row["slot"]: int(row[column]) for row in lines})
                arms.setdefault("random" if column.startswith("random") else column, []).append(widths)
    return found


def _respec(path: Path, data: Mapping[str, Any], space: Space) -> None:
    """Specs that tell how an image is fed to their network."""
    fed = Preprocessing(
        Size(*space.input_shape[-2:]), tuple(data["mean"]), tuple(data["std"]), tuple(data["classes"])
    ).to_dict()
    for file in path.rglob("*.json"):
        spec = json.loads(file.read_text())
        if isinstance(spec, dict) and {"widths", "input_shape", "source"} <= set(spec):
            spec.pop("normalisation", None)
            write_json(file, {**spec, "preprocessing": fed})


def _renew_rules(path: Path) -> None:
    """Rules that say that their supernet learnt; that of every published run did."""
    file = path / "rule.json"
    if file.exists():
        rules = json.loads(file.read_text())
        write_json(file, [{**rule, "learnt": True, "warning": ""} for rule in rules])


def _receipt(path: Path, run: RunData, *, old: bool) -> None:
    """The receipt with new tables and verdicts between what was written by hand."""
    text = (path / "README.md").read_text()
    start = min(i for i in (text.find("\n## Results"), text.find("\n## Pruning")) if i >= 0) + 1
    head, tail = text[:start].rstrip(), text[text.index("\n## Ledger") + 1 :]
    lines = [line for line in head.splitlines() if not line.startswith("- Old recipe:")]
    lines += [f"- {OLD}"] * old
    (path / "README.md").write_text("\n".join([*lines, "", *results_of(run), *verdicts_of(run), tail]))


if __name__ == "__main__":
    for one in [Path(name) for name in sys.argv[1:]] or published():
        record_ = json.loads((one / "run.json").read_text())
        rederive(one, old=bool(record_.get("remark")) or "optimizer" not in record_["config"])
        sys.stdout.write(f"{one}\n")
