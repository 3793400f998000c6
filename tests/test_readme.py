"""Every code block of README, guide and results: Python is run; commands are parsed, and run if they train nothing."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from safetensors.torch import save_file

from prune_nas.cli import app
from prune_nas.cli.guiding import TOPICS
from prune_nas.nets.tracing import trace
from tests.search.tiny import arguments

GUIDE = [Path("prune_nas/guide") / f"{topic}.md" for topic in TOPICS]
TEXTS = [path.read_text() for path in (Path("README.md"), *GUIDE, Path("artifacts/results/README.md"))]
BLOCKS = [block for text in TEXTS for block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    words
    for language, text in BLOCKS
    if language == "sh"
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
    for part in line.split(";")
    for words in [shlex.split(part, comments=True)]
    if "prune-nas" in words
]
READS = ("guide", "schemas", "status", "plot", "report", "models", "datasets", "doctor", "export", "inspect", "rules")


def test_every_block_is_of_a_kind_that_is_tested():
    assert {language for language, _ in BLOCKS} == {"sh", "python", "yaml", "bibtex", "text"}
    assert len(COMMANDS) > 50
    assert len(PYTHON) == 3


def test_the_lines_of_python_do_what_they_say(searched):
    scope = {}
    for text in PYTHON:
        exec(text.replace("artifacts/runs/X", str(searched)), scope)  # noqa: S102
    assert not scope["network"].training
    assert scope["table"]["test_accuracy"].mean() > 0.5
    net = scope["net"].space
    for widths in (scope["pruned"], scope["found"]):
        cost = net.cost(widths)
        assert cost.macs <= 0.3 * net.cost(net.base).macs
        assert cost.params <= 0.2 * net.cost(net.base).params
    assert "of stage 1" in scope["rule"].explain()
    parameters = sum(p.numel() for p in scope["small"].parameters())
    assert parameters <= 0.2 * scope["other"].space.cost(scope["other"].space.base).params


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_the_command_line_s(words, monkeypatch):
    """Names, flags and their kinds; where a value is of a closed set, the command itself says so when it starts."""
    given = words[words.index("prune-nas") + 1 :]
    if given[0] == "worker":
        monkeypatch.setenv("PRUNE_NAS_STORAGE", "postgresql://db/x")
    command = typer.main.get_command(app)
    with command.make_context("prune-nas", list(given)) as context:
        name, own, rest = command.resolve_command(context, given)
        own.make_context(name, rest)


@pytest.fixture
def mine(searched, tmp_path):
    """A run of `net.py:MyNet`, as far as `export` looks at it, with the code beside it."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef MyNet(num_classes=10):\n    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), "
        "nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    run = shutil.copytree(searched, tmp_path / "runs" / "mine")
    spec = json.loads((run / "deploy.json").read_text())
    traced = trace(f"{tmp_path}/net.py:MyNet", input_shape=tuple(spec["input_shape"]), classes=spec["classes"])
    spec |= {"model": "net.py:MyNet", "widths": dict(traced.space.base), "base_width": 1.0}
    (run / "deploy.json").write_text(json.dumps(spec))
    save_file(traced.build(traced.space.base, seed=0).state_dict(), run / "deploy.safetensors")


@pytest.mark.parametrize("text", sorted({" ".join(words[words.index("prune-nas") + 1 :]) for words in COMMANDS
                                         if words[words.index("prune-nas") + 1] in READS}))  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_commands_that_train_nothing_run(text, searched, cli, tmp_path, monkeypatch):
    (tmp_path / "artifacts").symlink_to(Path("artifacts").resolve())
    runs = tmp_path / "runs"
    for name in "XYAB":
        shutil.copytree(searched, runs / name)
    given = [word.replace("artifacts/runs", str(runs)) for word in text.split()]
    if "--source-budget" in given:
        pytest.skip("needs runs of single weights. Tests/search/test_sparsity.py fits such a rule")
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*given)
    assert code == 0, err


def test_arguments_of_the_tests_are_flags():
    assert arguments("x")[0] == "search"
