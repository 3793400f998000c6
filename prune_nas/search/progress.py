"""What a person sees while work goes on: bars on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_QUIET_SECONDS = 30  # between lines where nothing can be redrawn


class View:
    """Progress of phases; one at a time."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Write to stderr; only warnings if `quiet`."""
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._said = -math.inf
        self._unsaid = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)

    @contextlib.contextmanager
    def phase(self, title: str, total: int, unit: str = "epochs") -> Iterator[Bar]:
        """A bar over `total` epochs of training, or other units, in all."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        with _Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title, total=total, note="")
            yield Bar(self, progress, task, title, total, unit)
        if self._unsaid:
            self.say(self._unsaid)
            self._unsaid = ""

    def plainly(self, text: str) -> None:
        """A line now and then, and the last of a phase, where there is no terminal."""
        if self.console.is_terminal:
            return
        self._unsaid = text
        if time.monotonic() - self._said >= _QUIET_SECONDS:
            self._said = time.monotonic()
            self.say(text)
            self._unsaid = ""


class _Progress(Progress):
    """Bars with the present training below, in a line of its own: beside a bar it would take the numbers' room."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, then the note of the last of them."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks[-1:]:
            if note := task.fields["note"]:
                yield Text(f"  {note}", style="dim", no_wrap=True, overflow="ellipsis")


class Bar:
    """One phase's progress."""

    def __init__(self, view: View, progress: Progress, task: TaskID, title: str, total: int, unit: str) -> None:
        """Made by `View.phase`."""
        self._view, self._progress, self._task, self._title, self._unit = view, progress, task, title, unit
        self.done, self._total = 0, total
        self._best: tuple[float, str] | None = None

    def advance(self, note: str) -> None:
        """One more epoch, or other unit, is done; `note` says of what, and how it stands."""
        self.done += 1
        if self._best is not None:
            note = f"{note} (best so far {100 * self._best[0]:.1f} %: {self._best[1]})"
        self._progress.update(self._task, advance=1, note=note)
        self._view.plainly(f"{self._title}, {self.done} of {self._total} {self._unit}: {note}")

    def ended(self, accuracy: float | None, who: str) -> None:
        """A training has ended with that accuracy on validation; the highest is shown with whatever comes next."""
        if accuracy is not None and (self._best is None or accuracy > self._best[0]):
            self._best = accuracy, who

    def skip(self, epochs: int) -> None:
        """`epochs` fewer are to be done than was thought, since a training failed."""
        self._total -= epochs
        self._progress.update(self._task, total=self._total)
