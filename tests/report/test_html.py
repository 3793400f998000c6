import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from prune_nas.errors import UsageError
from prune_nas.report.figures import Drawing
from prune_nas.report.html import SECTIONS, page, write_report
from prune_nas.report.run_data import RunData

VOID = {"meta", "img", "br"}


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures are made and not rendered, which takes most of the time."""
    monkeypatch.setattr(Drawing, "svg", b"<svg/>")


class Outline(HTMLParser):
    """Tags in order, with a check that they nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    @classmethod
    def of(cls, text):
        outline = cls()
        outline.feed(text)
        assert outline.open == []
        return outline.tags


@pytest.fixture(scope="module")
def text(run_path):
    return page(RunData(run_path))


def test_the_verdict_comes_first(text):
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [name for name, _ in SECTIONS]
    assert headings[:3] == ["Answer", "Comparisons", "Results"]
    assert "The found network is better than uniform scaling by 0.8 points (95 % CI 0.2 to 1.4, n = 3)." in text
    assert "uniform scaling (scratch-b): 82.2 % validation accuracy, 15.6M macs, 0.73M params." in text


def test_the_head_says_which_network_and_which_images(text):
    assert "vgg16, 0.5 of its width, 32x32" in text
    assert "cifar10, 45,000 training, 5,000 validation, 10,000 test images, 10 classes" in text
    assert "<title>prune-nas: vgg16 (0.5 of its width, 32x32) on cifar10</title>" in text


def test_the_answer_has_six_lines_a_budget(text, run_path):
    boxes = re.findall('<div class="answer"><h3>Under (.*?)</h3><ul>(.*?)</ul></div>', text)
    assert [budget for budget, _ in boxes] == ["macs=0.2", "macs=0.4,params=0.2"]
    for _, items in boxes:
        lines = re.findall("<li>(.*?)</li>", items)
        assert len(lines) == 6
        assert str(run_path / "budgets/deploy.json") in lines[0]
        assert lines[-1].startswith("Next: prune-nas export")


def test_every_part_is_there(text):
    assert "79.0 ± 0.5" in text
    assert "Keep 57 %, 31 %, 17 % of stages 0, 1, 2." in text
    assert "Gamma separates: 41 % of channels lie below 0.01." in text
    assert "30.0T" in text
    assert "recipe.epochs" in text
    assert "prune-nas train" in text
    assert "supernet: done · study: done · finals: running" in text
    assert "the share falls by a constant factor" in text
    assert "uniform@macs" not in text  # the glossary speaks of this run's arms


def test_it_is_well_formed_and_loads_and_runs_nothing(text):
    tags = Outline.of(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert len(images) == 14
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") and len(attrs["alt"]) > 40 for attrs in images)
    outside = re.sub(r'src="data:[^"]*"', "", text)
    assert "http" not in outside
    assert "url(" not in outside
    assert "prefers-color-scheme: dark" in outside


@pytest.mark.usefixtures("blank_figures")
def test_whatever_comes_from_files_is_escaped(tmp_path, write_fake_run):
    evil = "<script>alert('x')</script>"
    path = write_fake_run(tmp_path / "run", model=evil)
    run = json.loads((path / "run.json").read_text())
    run["config"]["dataset"] = run["data"]["name"] = run["device"] = run["phases"]["study"] = evil
    run["config"][evil] = [evil]
    run["diagnosis"] |= {"penalty": evil, "sentences": [evil]}
    (path / "run.json").write_text(json.dumps(run))
    verdict = {"budget": evil, "headline": evil, "sentences": [evil]}
    verdict["deploy"] = {"arm": evil, "schedule": evil, "val_accuracy": 0.5, "macs": 1, "params": 1}
    (path / "verdict.json").write_text(json.dumps([verdict]))
    (path / "rule.json").write_text(json.dumps([{"budget": evil, "kind": evil, "explanation": evil}]))
    for name in ("finals.csv", "ledger.csv", "trials.csv", "widths.csv"):
        file = path / name
        file.write_text(file.read_text().replace("macs=0.2,", f"{evil},").replace("found", evil))
    text = page(RunData(path))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    Outline.of(text)


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(
    "name",
    [
        "space.json", "scores.safetensors", "widths.csv", "trials.csv", "curves.csv", "finals.csv", "ledger.csv",
        "verdict.json", "best.json", "rule.json",
    ],
)  # fmt: skip
def test_any_file_may_be_missing(tmp_path, write_fake_run, name):
    path = write_fake_run(tmp_path / "run")
    (path / name).unlink()
    Outline.of(page(RunData(path)))


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1, "version": "0.1.0", "config": {"model": "m", "dataset": "d"}}')
    path = write_report(RunData(tmp_path))
    assert path == tmp_path / "report.html"
    text = path.read_text()
    Outline.of(text)
    assert "No verdict yet" in text
    assert text.count("no figure of") == 8


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(UsageError):
        write_report(RunData(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_report_imports_neither_torch_nor_optuna():
    code = (
        "import sys, prune_nas.report as r; assert not {'pandas', 'matplotlib'} & set(sys.modules);"
        "import prune_nas.report.html, prune_nas.report.tables, prune_nas.report.figures, prune_nas.report.run_data;"
        "heavy = {'torch', 'torchvision', 'optuna', 'matplotlib.pyplot'} & set(sys.modules);"
        "rooms = [m for m in sys.modules if m.startswith(tuple(f'prune_nas.{r}' for r in"
        " ('nets', 'training', 'pruning', 'search')))];"
        "assert not heavy and not rooms, (heavy, rooms)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_latency_says_where_it_was_measured(text):
    assert '<td class="number">2.35</td>' in text or '<td class="number">2.34</td>' in text
    assert "cpu, 2 threads, float32, batch 1" in text


@pytest.mark.usefixtures("blank_figures")
def test_masks_are_no_widths(tmp_path, write_fake_run):
    run = write_fake_run(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["config"]["budget"] = ["weights=0.05"]
    record.pop("diagnosis", None)
    (run / "run.json").write_text(json.dumps(record))
    text = page(RunData(run))
    assert "Single weights are masked" in text
    assert "the supernet has not finished" not in text
    assert "the same number of weights, spread evenly at random" in text
    assert "all layers keep the same share" not in text
