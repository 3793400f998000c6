"""The paper's own numbers, as they stand in paper.md, and how they are marked."""

from importlib.resources import files

import pandas as pd
import pytest

from prune_nas.report.paper_table import Cell, Line, _tex, csv, published


def test_published_rows():
    """Spot checks against paper.md, section 2, with the marks it gives them."""
    a = published("resnet56", "cifar10", "l1-norm", "A")
    assert a["unpruned"] == Cell(93.14, 0.12, 5, "verified")
    assert a["fine-tune"] == Cell(92.97, 0.17, 5, "memory")
    assert a["scratch-b"] == Cell(93.09, 0.14, 5, "verified")
    assert str(a["fine-tune"]) == "92.97 ± 0.17?"
    slim = published("vgg19", "cifar100", "slimming", "0.5")
    assert [slim[c].mean for c in ("unpruned", "fine-tune", "scratch-e", "scratch-b")] == [72.63, 72.32, 71.94, 73.08]
    assert published("vgg19", "cifar10", "magnitude", "0.95")["scratch-b"].std == 0.18
    assert published("vgg16", "digits", "l1-norm", "A") == {}


def test_every_published_row_is_whole_and_marked():
    text = files("prune_nas.report").joinpath("published.csv")
    frame = pd.read_csv(str(text), dtype={"ratio": str})
    assert set(frame["mark"]) == {"verified", "memory"}
    whole = frame.groupby(["dataset", "model", "method", "ratio"])["schedule"].apply(set)
    assert all(schedules == {"unpruned", "fine-tune", "scratch-e", "scratch-b"} for schedules in whole)
    assert frame["mean"].between(68, 96).all()
    assert frame["std"].between(0.03, 0.6).all()
    methods = frame[frame["schedule"] != "unpruned"]
    assert set(methods["method"]) == {"l1-norm", "slimming", "magnitude"}


def test_csv_keeps_sources_apart():
    line = Line(
        "l1-norm",
        "A",
        0.1,
        0.9,
        0.8,
        {"scratch-e": Cell(50.0, None, 1)},
        {"scratch-e": Cell(92.96, 0.26, 5, "verified")},
    )
    rows = csv([line]).splitlines()
    assert rows[1].endswith("scratch-e,1,50.0000,,ours")
    assert rows[2].endswith("scratch-e,5,92.9600,0.2600,verified")


@pytest.mark.parametrize(("text", "written"), [("a_b", r"a\_b"), ("1 ± 2", r"1 $\pm$ 2"), ("5 %", r"5 \%")])
def test_tex(text, written):
    assert _tex(text) == written
