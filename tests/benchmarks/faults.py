"""Damages each file of a small finished run in several ways, repeats what reads it, and tables what happened.

    python -m tests.benchmarks.faults [--out FILE.md]

A line is right if the commands end with 0 and what was found is as before, or end with a message that names the file.
A line is wrong if a traceback is printed, or if what was found changed without a word.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from prune_nas.cli import run as command
from prune_nas.cli import searching
from prune_nas.design.files import write_text
from prune_nas.design.records import Final, TrialRow, read_table
from tests.search.tiny import arguments

BIG = "9" * 400
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "last line torn": lambda content: content[:-9],
    "emptied": lambda content: b"",
    "random bytes": lambda content: bytes((i * 73 + 41) % 256 for i in range(2000)),
    "nested 100,000 deep": lambda content: b"[" * 100_000,
    "of schema 99": lambda content: content.replace(b'"schema": 1', b'"schema": 99'),
    "numbers of 400 digits": lambda content: content.replace(b"1", BIG.encode()),
    "NaN for numbers": lambda content: content.replace(b"0.", b"NaN").replace(b": 1", b": NaN"),
    "HTML for words": lambda content: content.replace(b"conv", b"<script>alert(1)</script>"),
    "paths for words": lambda content: content.replace(b"conv", b"../../../etc/"),
}


def found(run: Path) -> object:
    """What the run found, but for its seconds."""
    trials = [(r.number, r.state, r.value, r.widths) for r in read_table(run / "trials.csv", TrialRow)]
    return trials, [(r.arm, r.candidate, r.seed, r.test_accuracy) for r in read_table(run / "finals.csv", Final)]


def said(*words: str) -> tuple[int, str]:
    """The exit code and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(words)
    return code, err.getvalue()


def verdict(code: int, err: str, run: Path, before: object) -> str:
    """What happened, in words; WRONG first where it must not."""
    if "this is a fault in prune-nas" in err or "Traceback" in err:
        return "WRONG: traceback: " + err.strip().splitlines()[-2][:150]
    if code:
        last = [line for line in err.strip().splitlines() if line.startswith("prune-nas:")]
        return f"exit {code}: " + (last[-1] if last else err.strip().splitlines()[-1]).replace(str(run), "RUN")[:220]
    try:
        same = found(run) == before
    except Exception as error:
        return f"WRONG: ends with 0 and leaves {error}"
    return "goes on; the same was found" if same else "WRONG: goes on, and another thing was found"


def rows(run: Path, space: Path) -> Iterator[tuple[str, ...]]:
    """File, damage, and what `search`, `status` and `report` did about it."""
    before = found(run)
    names = sorted(
        str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.suffix not in (".svg", ".png", ".lock")
    )
    for name in names:
        done = set()
        for damage, change in DAMAGES.items():
            content = (run / name).read_bytes()
            changed = change(content)
            if name.startswith(".") or changed == content or changed in done:
                continue
            done.add(changed)
            results = []
            for words in (
                arguments(space / "run", **FEW),
                ["status", str(space / "run")],
                ["report", str(space / "run")],
            ):
                shutil.rmtree(space / "run", ignore_errors=True)
                shutil.copytree(run, space / "run")
                (space / "run" / name).write_bytes(changed)
                results.append(verdict(*said(*words), space / "run", before))
            yield name, damage, *results


FEW = {"arms": "found,uniform,inherited", "seeds": 1, "trials": 3}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "made"
        code, err = said(*arguments(run, **FEW))
        assert code == 0, err
        searching.report_run = lambda *paths, **flags: None  # `report` is a column of its own
        lines = ["| file | damage | `search` again | `status` | `report` |", "|---|---|---|---|---|"]
        for row in rows(run, Path(folder)):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if out is not None:
        write_text(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
