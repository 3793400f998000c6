"""The answers of a run, for a terminal and for the page: a box per budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prune_nas.design.answer import Answer
from prune_nas.report.run_data import RunData

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.text import Text


def answers(run: RunData) -> Iterator[tuple[str, list[str]]]:
    """Each budget with the lines of its answer; a run without answers, as of pruning methods, has none."""
    for verdict in run.verdicts:
        found: dict[str, Any] | None = verdict.get("answer")
        if found:
            yield str(verdict.get("budget", "")), Answer.from_dict(found).lines(str(run.path))


def subject(run: RunData) -> str:
    """What the run is about: the network, its width and size, and the images; empty where the run does not say."""
    from prune_nas.design.subject import Subject  # noqa: PLC0415 - only here

    try:
        return str(Subject.from_dict(run.run["subject"]))
    except (KeyError, TypeError, ValueError):
        return ""


def boxes(run: RunData) -> Iterator[Panel | Text]:
    """The answers for a terminal: a line with the subject of the run, then a box per budget."""
    from rich.panel import Panel  # noqa: PLC0415 - the page does without
    from rich.text import Text  # noqa: PLC0415

    found = list(answers(run))
    if found and (about := subject(run)):
        yield Text(about)
    for budget, lines in found:
        yield Panel(Text("\n".join(lines)), title=Text(f"Under {budget}"), title_align="left")
