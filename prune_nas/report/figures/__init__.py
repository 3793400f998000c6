"""The figures of a run: how they become files, each with its data beside it.

A new kind is a file here with a function that takes data frames and returns a Figure, and a line in `of_run.MAKERS`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from prune_nas.design.files import write_bytes, write_text
from prune_nas.errors import PruneNasError, UsageError, unknown
from prune_nas.report.answers import subject
from prune_nas.report.figures import style
from prune_nas.report.figures.compare import side_by_side
from prune_nas.report.figures.of_run import KINDS, MAKERS, Drawing, kinds_of
from prune_nas.report.run_data import RunData

FORMATS = ("svg", "png", "pdf")
THEMES = ("light", "dark")
log = logging.getLogger(__name__)

Made = tuple[list[Drawing], list[str]]
"""Drawings, and a line for each kind that lacks its data."""


def draw(
    run: RunData,
    kinds: Sequence[str] | None,
    formats: Sequence[str] = ("svg", "png"),
    *,
    out: Path | str,
    theme: str = "light",
    beside: Sequence[RunData] = (),
) -> list[Path]:
    """Write figures into the directory `out`; a kind that lacks its data is left out with a line in the log.

    Args:
        run: the run to draw.
        kinds: some of `KINDS`; all by default.
        formats: some of `FORMATS`.
        out: where to; made if it is missing.
        theme: light, or dark, which adds `-dark` to the names. A light SVG turns dark by itself on a dark page.
        beside: other runs; what is drawn then is all of them over each other.

    Returns:
        The figures' files, kind by kind; each has its data beside it, as CSV.

    Raises:
        UsageError: a kind, a format or a theme that does not exist.
        PruneNasError: the run has the data of none of the kinds.
    """
    for form in formats:
        if form not in FORMATS:
            raise unknown("figure format", form, FORMATS)
    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    made = side_by_side([run, *beside], kinds) if beside else make(run, kinds)
    if not made[0]:
        repair = "" if beside else ". Finish the run by repeating its command"
        raise PruneNasError(f"nothing was drawn: {'. '.join(made[1])}{repair}")
    return save(made, formats, out=out, dark=theme == "dark")


def save(made: Made, formats: Sequence[str] = ("svg", "png"), *, out: Path | str, dark: bool = False) -> list[Path]:
    """Write figures that `make` made into the directory `out`, and log what is missing; returns the figures' files."""
    (drawings, notes), out = made, Path(out)
    for note in notes:
        log.warning(note)
    paths = []
    for drawing in drawings:
        if dark:
            style.darken(drawing.figure)
        for form in formats:
            path = out / f"{drawing.name}{'-dark' if dark else ''}.{form}"
            twin = drawing.svg if "svg" in formats else None
            write_bytes(path, drawing.svg if form == "svg" else style.render(drawing.figure, form, twin=twin))
            paths.append(path)
        write_text(out / f"{drawing.name}.csv", drawing.data.to_csv(index=False, lineterminator="\n"))
    return paths


def make(run: RunData, kinds: Sequence[str] | None = None) -> Made:
    """The figures of some of `KINDS` (all that fit the run by default), and a line for each whose data the run lacks.

    Raises:
        UsageError: a kind that does not exist, or that runs of this sort do not have.
    """
    drawings: list[Drawing] = []
    notes = []
    about = subject(run)
    fitting = kinds_of(run)
    for kind in fitting if kinds is None else kinds:
        if kind not in MAKERS:
            raise unknown("figure", kind, KINDS)
        if kind not in fitting:
            raise UsageError(f"a run such as {run.path} has no figure of {kind}. It has {', '.join(fitting)}")
        needs, maker = MAKERS[kind]
        try:
            with style.styled():
                made = list(maker(run))
        except KeyError as error:
            raise PruneNasError(
                f"{run.path}: its tables and its space.json name different slots ({error} is not in both). Restore "
                "the changed file from a copy"
            ) from error
        for drawing in made if about else ():
            style.note(drawing.figure, about)
        drawings += made
        if not made:
            notes.append(f"no figure of {kind}: the run has no {needs} yet")
    return drawings, notes


__all__ = ["FORMATS", "KINDS", "THEMES", "Drawing", "draw", "make", "save"]
