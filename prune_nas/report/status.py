"""How far a run has come, from its files: what `prune-nas status` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prune_nas.design.learning import Chance
from prune_nas.design.records import SCHEMA
from prune_nas.design.words import percent
from prune_nas.report.answers import answers, subject
from prune_nas.report.run_data import RunData


def status(run: RunData) -> dict[str, Any]:
    """Phases, counts, the best candidate so far and the epoch that was trained last.

    Returns:
        `schema, run, running` (a command works on it now), `phases`, `trials` (trainings of the study that ended),
        `finals` (final trainings that ended), `best` (of each budget, among the candidates that were trained longest,
        the one with the highest mean accuracy on validation, in [0, 1]; `number` is its first in `trials.csv`) and
        `latest` (the last epoch that was trained; None before the first).
    """
    running = _in_use(run.path / ".lock")  # asked before the files are read: a run that has ended since is shown ended
    return {
        "schema": SCHEMA,
        "run": str(run.path),
        "running": running,
        "phases": run.run.get("phases") or {},
        "trials": sum(row.state != "REPEAT" for row in run.trials),
        "finals": len(run.finals),
        "best": _best(run),
        "latest": asdict(run.curves[-1]) if run.curves else None,
    }


def lines(run: RunData, now: Mapping[str, Any]) -> list[str]:
    """What `status` says of the run, in words."""
    config = run.run.get("config") or {}
    asked = f"cases {', '.join(config['cases'])}" if config.get("cases") else f"budgets {' '.join(config['budget'])}"
    about = subject(run) or f"{config.get('model')} on {config.get('dataset')}"
    said = [
        f"{run.path}: {about}, {asked}",
        *(f"  {name}: {_state(state, now)}" for name, state in now["phases"].items()),
    ]
    if config.get("trials") and not config.get("cases"):
        said.append(
            f"  {now['trials']} trainings of the study finished (at most {config['trials']} trials per budget, "
            "then finalists)"
        )
        said += [f"  best under {budget}: {_best_words(run, one)}" for budget, one in now["best"].items()]
    said.append(f"  {now['finals']} final trainings finished")
    if last := now["latest"]:
        where = f" of {last['budget']}" if last["budget"] else ""
        said.append(
            f"  last: {_spoken(last['trial'])}{where}, epoch {last['epoch']}: {100 * last['val_accuracy']:.1f} % on "
            "validation"
        )
    over = all(state in ("done", "skipped") for state in now["phases"].values())
    if over:
        used = [f"Under {budget}: {answer[0]}" for budget, answer in answers(run)]
        said += [f"  The run is done. {' '.join(used)}".rstrip(), f"  Everything else: prune-nas report {run.path}"]
    else:
        idle = "The run is stopped. Repeat its command to continue."
        said.append("  The run is in progress." if now["running"] else f"  {idle}")
    return said


def _best_words(run: RunData, one: Mapping[str, Any]) -> str:
    """The best candidate, unless it is no better than guessing."""
    data = run.run.get("data") or {}
    chance = Chance(float(data.get("guessing", 0.0)), int(data.get("val", 1)))
    if not chance.is_beaten(one["value"]):
        return f"nothing learnt yet ({percent(one['value'])} on validation, guessing gives {percent(chance.guessing)})"
    return (
        f"{percent(one['value'])} on validation after {one['epochs']} epochs (n = {one['n']}, number {one['number']} "
        "in trials.csv)"
    )


def _state(state: str, now: Mapping[str, Any]) -> str:
    return "cut off" if state == "running" and not now["running"] else state


def _best(run: RunData) -> dict[str, dict[str, Any]]:
    """Budget -> the candidate with the highest mean, among those that were trained longest and on the most seeds."""
    found: dict[str, dict[str, Any]] = {}
    rows = run.frame("trials").dropna(subset="value")
    rows = rows[rows["state"] != "REPEAT"]
    for budget, own in rows.groupby("budget", sort=False):
        longest = own[own["epochs"] == own["epochs"].max()]
        named = {"number": ("number", "first"), "value": ("value", "mean"), "n": ("value", "size")}
        means = longest.groupby("widths", sort=False).agg(**named)
        first = means[means["n"] == means["n"].max()].sort_values("value", ascending=False, kind="stable").iloc[0]
        found[str(budget)] = {
            "number": int(first["number"]),
            "value": float(first["value"]),
            "epochs": int(own["epochs"].max()),
            "n": int(first["n"]),
        }
    return found


def _spoken(trial: str) -> str:
    """A training's name in `curves.csv` as one says it."""
    arm, _, rest = trial.partition("/")
    parts = rest.split("/")
    return f"{arm} {parts[0]} seed {parts[2]}" if len(parts) > 2 else trial


def _in_use(lock: Path) -> bool:
    """Whether a command holds the run's lock; a directory that cannot be written to is nobody's."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
