"""Networks of one's own that cannot be searched: one message, with the line or the name, and the repair."""

import pytest

from tests.search.tiny import arguments

FILE = """
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.two, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x)).relu()).mean((2, 3)))


class Looks(Small):
    def forward(self, x):
        x = self.one(x)
        if x.mean() > 0:  # depends on the data
            x = x.relu()
        return self.head(x.mean((2, 3)))


class Bare(Small):
    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


class Stuck(Small):
    def forward(self, x):
        return self.head(torch.roll(self.two(self.norm(torch.roll(self.one(x), 1, 1))), 1, 1).mean((2, 3)))


class Shared(Small):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.three = nn.Conv2d(16, 16, 3, padding=1)
        self.three.weight = self.two.weight

    def forward(self, x):
        return self.head(self.three(self.two(self.norm(self.one(x)).relu())).mean((2, 3)))


class Flat(Small):
    def __init__(self, classes=10):
        super().__init__(classes)
        self.head = nn.Linear(16 * 32 * 32, classes)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x)).relu()).flatten(1))


class Raises(Small):
    def __init__(self, classes=10):
        raise RuntimeError("no weights at hand")


class Hidden(Small):
    def forward(self, x):
        x = self.norm(self.one(x)).relu()
        if self.training:
            x = x.reshape(len(x), 16, 16, 16)
        return self.head(self.two(x).mean((2, 3)))


class Classes(Small):
    def __init__(self):
        super().__init__(7)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Looks", r"cannot trace .*mine.py:Looks.*mine.py:20: if x.mean() > 0.*write both sides with torch.where"),
        (
            "Stuck",
            "has no free width (one: meets an operation that the tracer does not follow: roll at roll (mine.py:32)",
        ),
        ("Shared", "one parameter under two names, two.weight and three.weight. Call one module twice"),
        ("Flat", "does not run on an input of shape 3x16x16"),
        ("Raises", "raised RuntimeError: no weights at hand"),
        ("Hidden", "mine.py:63: x = x.reshape(len(x), 16, 16, 16)"),
        ("Classes", "must give a tensor of shape (10,)"),
        ("Smal", "mine.py:Small?"),
    ],
)
def test_one_message_and_nothing_begun(file, cli, tmp_path, name, message):
    run = tmp_path / "run"
    code, out, err = cli(*arguments(run, model=f"{file}:{name}", base_width=1))
    assert (code, out) == (2, "")
    said = " ".join(err.split())
    for part in message.split(".*"):
        assert part in said
    assert "Traceback" not in err
    assert not run.exists()


def test_a_penalty_that_was_asked_for_needs_a_gamma(file, cli, tmp_path):
    code, _, err = cli(*arguments(tmp_path / "run", model=f"{file}:Bare", base_width=1, penalty="l1"))
    assert (code, "Use --penalty none" in " ".join(err.split())) == (2, True)


def test_a_file_that_raises_on_import_is_named_with_its_line(cli, tmp_path):
    (tmp_path / "broken.py").write_text("import torch\nraise ValueError('not today')\n")
    code, _, err = cli(*arguments(tmp_path / "run", model=f"{tmp_path / 'broken.py'}:Net"))
    assert code == 2
    assert "ValueError: not today" in err
    assert "broken.py:2" in " ".join(err.split())


def test_without_a_norm_it_is_scored_by_its_weights(file, cli, tmp_path):
    run = tmp_path / "run"
    changes = {"model": f"{file}:Bare", "base_width": 1, "penalty": "none", "arms": "found,uniform", "seeds": 1}
    code, _, err = cli(*arguments(run, **changes, trials=2))
    assert code == 0, err
    assert (run / "report.html").exists()
