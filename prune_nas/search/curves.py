"""`curves.csv`: every epoch of every training of a run."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path

from prune_nas.design.files import write_text
from prune_nas.design.records import Curve, read_table, write_table


class Curves:
    """`curves.csv`, a line an epoch, appended as it ends.

    An epoch that is reported again, as by a training that goes on from a checkpoint before it, is not written twice.
    One that comes out otherwise is of a training that began anew: its own epochs take the place of those before.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a crash cut off is dropped."""
        self._path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            whole, _, _ = path.read_text().rpartition("\n")
            write_text(path, whole + "\n" if whole else "")
        self._rows = {(row.budget, row.trial, row.epoch): row for row in read_table(path, Curve)}

    def add(self, row: Curve) -> None:
        """Append one epoch."""
        before = self._rows.get((row.budget, row.trial, row.epoch))
        if before is not None and _learned(before) == _learned(row):
            return
        if before is not None:
            mine = {(row.budget, row.trial, epoch) for epoch in range(row.epoch, 1 + self._last(row))}
            self._rows = {key: one for key, one in self._rows.items() if key not in mine}
            write_table(self._path, Curve, list(self._rows.values()))
        self._rows[row.budget, row.trial, row.epoch] = row
        if not self._path.exists() or not self._path.stat().st_size:
            write_table(self._path, Curve, [row])  # at once whole, for who reads it meanwhile
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, [field.name for field in fields(Curve)], lineterminator="\n").writerow(asdict(row))

    def _last(self, row: Curve) -> int:
        return max(epoch for budget, trial, epoch in self._rows if (budget, trial) == (row.budget, row.trial))


def _learned(row: Curve) -> tuple[float, float]:
    return row.train_loss, row.val_accuracy
