"""What benchmarks share that keep a line a result, so that a run that was cut off goes on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from prune_nas.design.evidence import interval

Row = dict[str, Any]
GROUP = ("model", "width", "budget", "images", "epochs")


def parser(about: str | None) -> argparse.ArgumentParser:
    """The arguments that say which network, budget and length, where the results go, or that a table is wanted."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--table", type=Path)
    made.add_argument("--data-dir", type=Path)
    made.add_argument("--out", type=Path)
    made.add_argument("--model", default="vgg16")
    made.add_argument("--width", type=float, default=0.25)
    made.add_argument("--budget", default="macs=0.2")
    made.add_argument("--images", type=int, default=2500)
    made.add_argument("--epochs", type=int, default=10)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--seeds", default="0,1,2")
    return made


def read(path: Path) -> list[Row]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has(rows: Iterable[Row], key: Mapping[str, Any]) -> bool:
    """Whether a result is there already."""
    return any(key.items() <= row.items() for row in rows)


def keep(path: Path, rows: Iterable[Row], name: str) -> None:
    """Add every result as it comes, and say so; `name` is the column that tells them apart."""
    for row in rows:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        sys.stdout.write(f"{row[name]} seed {row['seed']}: test {row['test']:.4f} in {row['seconds']:.0f} s\n")
        sys.stdout.flush()


def groups(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The results of each network, budget and length, in the order of their first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    return found


def ranked(rows: Iterable[Row], name: str) -> Iterator[tuple[str, list[Row], str]]:
    """(name, its results, the cells `n | test | minus uniform`), the best mean first; differences paired by seed."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row[name], []).append(row)
    even = {row["seed"]: row["test"] for row in kinds.get("uniform", ())}
    for kind, own in sorted(kinds.items(), key=lambda item: -fmean(row["test"] for row in item[1])):
        tests = [100 * row["test"] for row in own]
        spread = f" +- {stdev(tests):.1f}" if len(tests) > 1 else ""
        pairs = [row["test"] - even[row["seed"]] for row in own if row["seed"] in even]
        yield kind, own, f"{len(own)} | {fmean(tests):.1f}{spread} | {'' if kind == 'uniform' else difference(pairs)}"


def difference(pairs: list[float]) -> str:
    """A mean difference in points with its 95 % interval, where there are enough."""
    if not pairs:
        return ""
    bounds = interval(pairs)
    span = "" if bounds is None else f" [{100 * bounds[0]:+.1f}, {100 * bounds[1]:+.1f}]"
    return f"{100 * fmean(pairs):+.1f}{span}"
