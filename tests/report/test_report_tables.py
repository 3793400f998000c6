import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from prune_nas.report import tables
from prune_nas.report.run_data import RunData


@pytest.fixture(scope="module")
def finals(run_path):
    return RunData(run_path).finals


def line(frame, budget, arm, schedule="scratch-e"):
    rows = frame[(frame["budget"] == budget) & (frame["arm"] == arm) & (frame["schedule"] == schedule)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_columns_and_the_order_of_arms(finals):
    frame = tables.results(finals)
    assert tuple(frame.columns) == tables.COLUMNS
    assert frame["arm"].tolist()[:11] == [
        "base", "found", "found", "pruned", "guided", "uniform", "uniform", "taper", "random",
        "random (best)", "inherited",
    ]  # fmt: skip
    assert frame["schedule"].tolist()[1:3] == ["scratch-e", "scratch-b"]
    assert frame["budget"].tolist() == [""] + ["macs=0.2"] * 10 + ["macs=0.4,params=0.2"] * 10


def test_numbers_are_those_of_a_calculation_by_hand(finals):
    found = line(tables.results(finals), "macs=0.2", "found")
    assert found["n"] == 3
    assert found["test_accuracy"] == pytest.approx(0.790)  # 0.785, 0.790, 0.795
    assert found["val_accuracy"] == pytest.approx(0.792)
    assert found["std"] == pytest.approx(0.005)
    assert found["train_macs"] == 3 * found["macs"] * 10_000 * 20


def test_random_is_the_median_and_its_best_is_chosen_by_validation(finals):
    frame = tables.results(finals)
    assert line(frame, "macs=0.2", "random")["test_accuracy"] == pytest.approx(0.760)
    assert line(frame, "macs=0.2", "random (best)")["test_accuracy"] == pytest.approx(0.765)


def test_one_seed_has_no_spread(finals):
    frame = tables.results(row for row in finals if row.seed == 12)
    assert set(frame["n"]) == {1}
    assert frame["std"].isna().all()
    assert "79.0 |" in tables.markdown(frame)
    assert "±" not in tables.markdown(frame)


def test_no_finals_make_an_empty_table():
    assert tables.results([]).empty


def test_markdown_has_a_line_for_each_row_and_escapes_pipes(finals):
    text = tables.markdown(tables.results([replace(row, arm="a|b") for row in finals[:3]]))
    header, rule, row = text.splitlines()
    assert header.startswith("| budget | arm | schedule | n |")
    assert rule.startswith("| :-- | :-- | :-- | --: |")
    assert "a\\|b" in row
    assert "82.0 ± 0.5" in row
    assert "78.7M | 3.68M" in row


def test_the_terminal_shows_a_table_a_budget_within_80_columns(finals):
    file = io.StringIO()
    Console(file=file, width=80).print(tables.rich_results(tables.results(finals)))
    text = file.getvalue()
    assert text.count("82.0 ± 0.5       47.2T") == 2  # the base, in each table
    assert "…" not in text
    assert sum("random (best)" in row for row in text.splitlines()) == 2


def test_markup_in_a_name_is_shown_and_not_obeyed(finals):
    file = io.StringIO()
    frame = tables.results([replace(row, arm="[red]x") for row in finals[:3]])
    Console(file=file, width=80).print(tables.rich_results(frame))
    assert "[red]x" in file.getvalue()


def test_the_ledger_adds_up(run_path):
    frame = tables.ledger_table(RunData(run_path).ledger)
    assert tuple(frame.columns) == tables.EXPENSES
    assert frame["train_macs"].tolist() == [3 * 10**13, 10**13, 10**13, 5 * 10**13]
    assert frame["trainings"].tolist() == [1, 12, 3, 16]
    assert frame["seconds"].tolist() == [600, 400, 80, 1080]
    assert frame["share"].tolist() == pytest.approx([0.6, 0.2, 0.2, 1.0])
    assert "18 min" in tables.markdown(frame)


def test_an_empty_ledger_is_a_total_of_nothing():
    frame = tables.ledger_table([])
    assert frame["phase"].tolist() == ["total"]
    assert frame["train_macs"].tolist() == [0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (640, "640"), (56_400, "56.4k"), (15_580_000, "15.6M"), (4_089_000_000, "4.09G"), (4.7e13, "47.0T")],
)
def test_quantities(value, text):
    assert tables.quantity(value) == text


def test_params_percent_and_time():
    assert tables.millions(732_000) == "0.73M"
    assert tables.millions(56_400) == "56.4k"
    assert tables.percent(0.7824, 0.0041) == "78.2 ± 0.4"
    assert tables.percent(0.7824, math.nan) == tables.percent(0.7824) == "78.2"
    assert [tables.duration(s) for s in (42, 200, 4800)] == ["42 s", "3 min", "1 h 20 min"]
