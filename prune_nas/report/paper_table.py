"""The table of a comparison in the layout of the paper, with its own numbers beside ours where it has such a row.

Published numbers (`published.csv`) are those of Liu et al. 2019: mean and deviation of five runs of 160 epochs on all
of CIFAR. Each is marked: `verified` was read in the authors' or a third party's files, `memory` was not and must be
checked against the paper before it is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from prune_nas.design.case_verdicts import conclusions, pairs_of
from prune_nas.design.files import write_text
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import percent

if TYPE_CHECKING:
    from rich.table import Table

SCHEDULES = ("fine-tune", "rewind", "scratch-e", "scratch-b")
COLUMNS = ("unpruned", *SCHEDULES)
MARKS = {"verified": "", "memory": "?"}
NAMES = {"unpruned": "Unpruned", "fine-tune": "Fine-tuned", "rewind": "Rewound"}
NOTE = (
    "Accuracies on the test split, %, mean and sample standard deviation over n seeds. Every seed trains, prunes and "
    "retrains a network of its own. Removed: share of channels, of residual blocks for sss-blocks, of weights for "
    "magnitude. Liu et al.: five runs of 160 epochs on all of CIFAR. ? = from memory, check it against the paper "
    "before quoting it."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """An accuracy in percent with its spread; `mark` is empty for ours."""

    mean: float
    std: float | None
    n: int
    mark: str = ""

    def __str__(self) -> str:
        if self.mark:
            return f"{self.mean:.2f} ± {self.std:.2f}{MARKS[self.mark]}"
        return percent(self.mean / 100, None if self.std is None else self.std / 100)


@dataclass(frozen=True, slots=True)
class Line:
    """A case: what it removed, what is left of macs and params, ours and the paper's cells by column."""

    method: str
    ratio: str
    removed: float
    macs: float
    params: float
    ours: Mapping[str, Cell]
    published: Mapping[str, Cell]


def lines(run: RunData) -> list[Line]:
    """A line a case, in the order of `finals.csv`."""
    config, table = run.run.get("config") or {}, run.results
    base, whole = table[table["arm"] == "base"], run.space and run.space.cost(run.space.base)
    unpruned = {"unpruned": _cell(base.iloc[0])} if len(base) else {}
    found = []
    for case in run.budgets:
        own = table[(table["budget"] == case) & (table["arm"] == "pruned")]
        if own.empty:
            continue
        method, _, ratio = case.partition("=")
        nets = [net for net in run.pruned if net.get("case") == case]
        left = own.iloc[0]
        found.append(
            Line(
                method,
                ratio,
                sum(float(net["removed"]) for net in nets) / len(nets) if nets else float("nan"),
                float(left["macs"]) / whole.macs if whole else float("nan"),
                float(left["params"]) / whole.params if whole else float("nan"),
                {**unpruned, **{str(row["schedule"]): _cell(row) for _, row in own.iterrows()}},
                published(str(config.get("model")), str(config.get("dataset")), method, ratio)
                if config.get("base_width") == 1
                else {},
            )
        )
    return found


def published(model: str, dataset: str, method: str, ratio: str) -> dict[str, Cell]:
    """Column -> the paper's cell; empty where it has no such row."""
    text = files("prune_nas.report").joinpath("published.csv").read_text(encoding="utf-8")
    frame = pd.read_csv(StringIO(text), dtype={"ratio": str})
    asked = {"model": model, "dataset": dataset, "method": method, "ratio": ratio}
    for name, value in asked.items():
        frame = frame[frame[name] == value]
    return {row["schedule"]: Cell(row["mean"], row["std"], 5, row["mark"]) for _, row in frame.iterrows()}


def _cell(row: pd.Series) -> Cell:
    std = None if pd.isna(row["std"]) else 100 * float(row["std"])
    return Cell(100 * float(row["test_accuracy"]), std, int(row["n"]))


def together(run: RunData) -> list[str]:
    """What all cases together say; those whose verdict is withheld have no say."""
    told = {verdict["budget"] for verdict in run.verdicts if verdict.get("comparisons")}
    return conclusions(pair for pair in pairs_of(run.finals) if pair.case in told)


def write_tables(run: RunData, out: Path) -> list[Path]:
    """Write `table.md`, `table.csv` and `table.tex` into `out`; nothing where the run compares no methods."""
    found = lines(run)
    if not found:
        return []
    texts = {"table.md": markdown(run, found), "table.csv": csv(found), "table.tex": latex(run, found)}
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def rows_of(found: Sequence[Line]) -> Iterator[list[str]]:
    """Header and cells as text, ours first and the paper's below where it has the case."""
    yield ["method", "ratio", "removed, %", "macs, %", "params, %", *(NAMES.get(c, c.title()) for c in COLUMNS)]
    for line in found:
        facts = [f"{100 * value:.1f}" for value in (line.removed, line.macs, line.params)]
        yield [line.method, line.ratio, *facts, *(str(line.ours.get(column, "")) for column in COLUMNS)]
        if line.published:
            yield ["Liu et al.", line.ratio, "", "", "", *(str(line.published.get(c, "")) for c in COLUMNS)]


def markdown(run: RunData, found: Sequence[Line]) -> str:
    """The table, the rivals' table and what all cases together say."""
    config, n = run.run.get("config") or {}, sorted({cell.n for line in found for cell in line.ours.values()})
    spread = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    said = together(run) or ["nothing: no case has a verdict yet, or nothing was learnt"]
    parts = [
        f"# Pruning methods on {config.get('model')}, {config.get('dataset')} ({spread})\n",
        _pipes(list(rows_of(found)), left=2),
        NOTE + "\n",
        "## From scratch, beside shapes that need no pruning\n",
        _pipes(list(rivals_of(run, found)), left=3),
        "## Over all cases\n",
        "".join(f"- {sentence}\n" for sentence in said),
        "Significant: p < 0.05 in a paired t-test, after Holm's correction for all pairs of this run.\n",
    ]
    return "\n".join(parts)


def rivals_of(run: RunData, found: Sequence[Line]) -> Iterator[list[str]]:
    """Header and cells as text: the pruned shape, and every arm beside it, trained from scratch."""
    schedules = ("scratch-e", "scratch-b")
    yield ["method", "ratio", "arm", "n", "macs", "params", *(name.title() for name in schedules)]
    table = run.results
    for line in found:
        own = table[(table["budget"] == f"{line.method}={line.ratio}") & table["schedule"].isin(schedules)]
        for arm in own["arm"].unique():
            cells = own[own["arm"] == arm].set_index("schedule")
            first = cells.iloc[0]
            costs = [f"{first['macs'] / 1e6:.2f}M", f"{first['params'] / 1e6:.3f}M"]
            both = [str(_cell(cells.loc[schedule])) if schedule in cells.index else "" for schedule in schedules]
            seeds = sorted({int(n) for n in cells["n"]})
            yield [line.method, line.ratio, arm, " to ".join(map(str, seeds)), *costs, *both]


def _pipes(rows: Sequence[Sequence[str]], left: int) -> str:
    rule = [":--"] * left + ["--:"] * (len(rows[0]) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))


def rich_lines(run: RunData) -> Table:
    """The table for a terminal of 80 columns: the cases, their macs, and the schedules."""
    from rich import box  # noqa: PLC0415 - the page and the figures do without
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in ("case", "macs", *(NAMES.get(c, c.title()) for c in COLUMNS)):
        table.add_column(name, justify="left" if name == "case" else "right", overflow="fold")
    for line in lines(run):
        cells = [str(line.ours.get(column, "")) for column in COLUMNS]
        table.add_row(*map(Text, [f"{line.method}={line.ratio}", f"{100 * line.macs:.0f} %", *cells]))
    return table


def csv(found: Sequence[Line]) -> str:
    """The same numbers one a line, for other programs: `source` is `ours`, or the published number's mark."""
    made = ["method,ratio,removed,macs_ratio,params_ratio,schedule,n,mean,std,source\n"]
    for line in found:
        for cells in (line.ours, line.published):
            for column in (c for c in COLUMNS if c in cells):
                cell = cells[column]
                facts = ("", "", "") if cell.mark else [f"{x:.6f}" for x in (line.removed, line.macs, line.params)]
                std = "" if cell.std is None else f"{cell.std:.4f}"
                own = [line.method, line.ratio, *facts, column, str(cell.n), f"{cell.mean:.4f}"]
                made.append(",".join([*own, std, cell.mark or "ours"]) + "\n")
    return "".join(made)


def latex(run: RunData, found: Sequence[Line]) -> str:
    """A `tabular` with booktabs' rules, ready for a paper."""
    head, *rows = [[_tex(cell) for cell in row] for row in rows_of(found)]
    config = run.run.get("config") or {}
    body = "\n".join(" & ".join(row) + r" \\" for row in rows)
    return (
        f"% {_tex(str(config.get('model')))} on {_tex(str(config.get('dataset')))}. {NOTE.replace('%', 'percent')}\n"
        f"\\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _tex(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r"$\pm$")
