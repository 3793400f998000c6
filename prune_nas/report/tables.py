"""The tables of a run: numbers in a data frame, the same as text, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from prune_nas.design import ledger
from prune_nas.design.evidence import RANDOM_BEST, summarise
from prune_nas.design.records import KEPT, Expense, Final

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

ARMS = (
    "base",
    "found",
    "pruned",
    "guided",
    "transferred",
    "uniform",
    "uniform@macs",
    "uniform@params",
    "uniform@latency",
    "taper",
    "random",
    RANDOM_BEST,
    "inherited",
)
SCHEDULES = ("scratch-e", "scratch-b", "fine-tune", "rewind")
COLUMNS = (
    "budget",
    "arm",
    "schedule",
    "n",
    "epochs",
    "macs",
    "params",
    "val_accuracy",
    "test_accuracy",
    "std",
    "train_macs",
    "candidate",
)
EXPENSES = ("budget", "phase", "arm", "trainings", "train_macs", "seconds", "share")
HEADERS = {
    "val_accuracy": "val, %",
    "test_accuracy": "test, %",
    "train_macs": "train macs",
    "share": "share of macs",
    "seconds": "time",
}
TEXT = frozenset({"budget", "arm", "schedule", "phase"})
_SUFFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def results(finals: Iterable[Final]) -> pd.DataFrame:
    """One line for each budget, arm and schedule, arms in the order of `ARMS`.

    Accuracies are in [0, 1]; `std` is NaN at n = 1.
    """
    frame = pd.DataFrame([asdict(line) for line in summarise(finals)], columns=list(COLUMNS))
    frame["std"] = frame["std"].astype(float)
    order = pd.DataFrame(
        {
            "budget": frame["budget"].map(_ranks(("", *frame["budget"]))),
            "arm": frame["arm"].map(_ranks((*ARMS, *sorted(frame["arm"])))),
            "schedule": frame["schedule"].map(_ranks((*SCHEDULES, *sorted(frame["schedule"])))),
        }
    )
    rows = order.sort_values(["budget", "arm", "schedule"], kind="stable").index
    return frame.loc[rows].reset_index(drop=True)


def merged(frame: pd.DataFrame) -> pd.DataFrame:
    """`results` with one line for arms that are one network, trained once: `found = uniform`."""
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, row in enumerate(frame.to_dict("records")):
        alone = row["candidate"] == "" or row["schedule"] in KEPT
        own = number if alone else row["candidate"]
        key = tuple(map(str, (row.get("run"), row["budget"], row["schedule"], row["epochs"], own)))
        if key in lines:
            lines[key]["arm"] += f" = {row['arm']}"
        else:
            lines[key] = {str(name): value for name, value in row.items()}
    return pd.DataFrame(list(lines.values()), columns=list(frame.columns)).drop(columns="candidate")


def ledger_table(expenses: Iterable[Expense]) -> pd.DataFrame:
    """One line for each budget, phase and arm with its share of all training macs, and a last line for the total."""
    frame = pd.DataFrame([asdict(item) for item in ledger.total(expenses)], columns=list(EXPENSES[:-1]))
    numbers = ["trainings", "train_macs", "seconds"]
    frame[numbers] = frame[numbers].astype(float)  # the macs of many long trainings overflow 64 bits
    total = frame[numbers].sum()
    frame.loc[len(frame)] = {"budget": "", "phase": "total", "arm": "", **total}
    frame["share"] = frame["train_macs"] / max(1, total["train_macs"])
    return frame.astype({"trainings": int})


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` as text, ready for a reader: `std` joins the test accuracy, counts get a unit, columns a heading."""
    text = frame.drop(columns="candidate", errors="ignore").astype(object).copy()
    for name in frame.columns.intersection(["macs", "train_macs"]):
        text[name] = [quantity(value) for value in frame[name]]
    if "params" in frame:
        text["params"] = [millions(value) for value in frame["params"]]
    if "val_accuracy" in frame:
        text["val_accuracy"] = [f"{100 * value:.1f}" for value in frame["val_accuracy"]]
    if "test_accuracy" in frame:
        text["test_accuracy"] = [percent(*pair) for pair in zip(frame["test_accuracy"], frame["std"], strict=True)]
    if "seconds" in frame:
        text["seconds"] = [duration(value) for value in frame["seconds"]]
    if "share" in frame:
        text["share"] = [f"{100 * value:.1f} %" for value in frame["share"]]
    return text.drop(columns="std", errors="ignore").astype(str).rename(columns=HEADERS)


def markdown(frame: pd.DataFrame) -> str:
    """`results` or `ledger_table` as a Markdown table."""
    text = formatted(frame)
    rule = [":--" if name in TEXT else "--:" for name in text]
    rows = [list(text.columns), rule, *text.to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def rich_results(frame: pd.DataFrame) -> Group:
    """What `results` returns for a terminal of 80 columns: a table a budget, each with the base's lines on top."""
    from rich.console import Group  # noqa: PLC0415 - the page and the figures do without

    frame = merged(frame)
    base = frame[frame["budget"] == ""]
    budgets = [budget for budget in frame["budget"].unique() if budget] or [""]
    tables = []
    for budget in budgets:
        lines = frame[frame["budget"] == budget]
        lines = pd.concat([base, lines]) if budget else lines
        tables.append(rich_table(lines.drop(columns=["budget", "val_accuracy"]), budget))
    return Group(*tables)


def rich_table(frame: pd.DataFrame, title: str = "") -> Table:
    """Any of the tables above for the terminal."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    text = formatted(frame)
    table = Table(title=Text(title), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in text:
        table.add_column(str(name), justify="left" if name in TEXT else "right", overflow="fold")
    for row in text.to_numpy().tolist():
        table.add_row(*map(Text, row))  # Text, since a name with [brackets] is no markup
    return table


def quantity(value: float) -> str:
    """A count with three digits and a unit: 15.6M, 4.09G."""
    for unit, suffix in _SUFFIXES:
        if value >= unit:
            return f"{_three_digits(value / unit)}{suffix}"
    return f"{value:.0f}"


def millions(value: float) -> str:
    """A number of parameters, in millions: 0.73M; below a hundred thousand in thousands."""
    return f"{value / 1e6:.2f}M" if value >= 1e5 else quantity(value)


def percent(value: float, std: float | None = None) -> str:
    """An accuracy in percent with its spread, if it has one: 78.2 ± 0.4."""
    return f"{100 * value:.1f}" if std is None or pd.isna(std) else f"{100 * value:.1f} ± {100 * std:.1f}"


def duration(seconds: float) -> str:
    """A time as one reads it: 42 s, 3 min, 1 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _ranks(names: Iterable[str]) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}
