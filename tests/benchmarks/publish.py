"""Keep a run's results without its weights, with a receipt: python -m tests.benchmarks.publish RUN TARGET "COMMAND"...

The target is a run directory again: a search that names it with --run goes on from there, and trains the supernet
again only if the inherited arm is asked for.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from prune_nas.design.files import write_json
from prune_nas.report import paper_table
from prune_nas.report.html import write_all
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import ledger_table, markdown, merged

LEFT_OUT = ("weights", "origins", "starts", "checkpoints", ".lock")
SCORES = "scores.safetensors"


def _weights(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in LEFT_OUT or (name.endswith(".safetensors") and name != SCORES)}


def publish(run: Path, target: Path, commands: list[str]) -> None:
    """Copy the tables, figures and report of `run` to `target` and write `README.md` with the receipt."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run, target, ignore=_weights)
    record = json.loads((target / "run.json").read_text())
    record["config"]["data_dir"] = None  # a place on the machine that ran it
    write_json(target / "run.json", record)
    write_all(RunData(target))
    (target / "README.md").write_text(receipt(RunData(run), commands))


def receipt(data: RunData, commands: list[str]) -> str:
    """The commands, commit, versions, machine, n and spread, the results, the verdicts and the ledger."""
    record, seeds = data.run, sorted({row.seed for row in data.finals})
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"# {record['config']['model']} on {record['config']['dataset']}, preset {record['config']['preset']}",
        "",
        "```sh",
        *commands,
        "```",
        "",
        f"- commit {record.get('commit', 'unknown')}",
        "- versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()),
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; trained in "
        f"{', then '.join([*record['precision'].get('before', ()), record['precision']['name']])} on "
        f"{record['device']}",
        f"- data: {record['data']['train']} training, {record['data']['val']} validation and "
        f"{record['data'].get('test', 0)} test images; fingerprint {record['data']['fingerprint']}",
        f"- finals: seeds {', '.join(map(str, seeds))}; accuracies are mean and sample standard deviation over n seeds",
        "",
        *results_of(data),
        *verdicts_of(data),
    ]
    lines += ["## Ledger", "", markdown(ledger_table(data.ledger)), ""]
    return "\n".join(lines)


def results_of(data: RunData) -> list[str]:
    """The tables, in the paper's layout where methods were compared."""
    compared = paper_table.lines(data) if data.pruned else []
    tables = paper_table.markdown(data, compared).replace("# Pruning", "## Pruning", 1) if compared else ""
    return [tables] if tables else ["## Results", "", markdown(merged(data.results)), ""]


def verdicts_of(data: RunData) -> list[str]:
    """Every verdict, and where a network may be used its answer."""
    lines = ["## Verdicts", ""]
    for verdict in data.verdicts:
        found = verdict.get("answer") or {}
        lines += [f"**{verdict['budget']}**: {verdict['headline']}", ""]
        if found:
            lines += [f"> {' '.join(found[name] for name in ('use', 'test', 'cost', 'sure', 'search'))}", ""]
        lines += [*(f"- {sentence}" for sentence in verdict["sentences"]), ""]
    return lines


if __name__ == "__main__":
    publish(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
