"""`curves.csv`: every epoch of every training of a run."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path

from prune_nas.design.files import write_text
from prune_nas.design.records import Curve, read_table


class Curves:
    """`curves.csv`, a line an epoch, appended as it ends; an epoch that is reported again is not written twice."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a crash cut off is dropped."""
        self._path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            whole, _, _ = path.read_text().rpartition("\n")
            write_text(path, whole + "\n" if whole else "")
        self._seen = {(row.budget, row.trial, row.epoch) for row in read_table(path, Curve)}

    def add(self, row: Curve) -> None:
        """Append one epoch."""
        if (row.budget, row.trial, row.epoch) in self._seen:
            return
        self._seen.add((row.budget, row.trial, row.epoch))
        new = not self._path.exists() or not self._path.stat().st_size
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Curve)], lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(asdict(row))
