"""README, guide and results pages are written in short sentences; help, messages and verdicts have no semicolon."""

import ast
import re
from pathlib import Path

import pytest
import typer

from prune_nas.cli import app
from tests.prose import measure, sentences

HOME = Path(__file__).resolve().parents[1]
PAGES = [HOME / "README.md", HOME / "CHANGELOG.md", *sorted((HOME / "prune_nas/guide").glob("*.md")),
         *sorted((HOME / "artifacts/results").glob("*.md"))]  # fmt: skip
MEAN, TENTH, MOST = 16, 26, 35
COMMANDS = sorted(typer.main.get_command(app).commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(HOME).as_posix())
def test_sentences_are_short(page):
    found = measure(page.read_text())
    assert found.mean < MEAN, found
    assert found.tenth < TENTH, found
    assert found.most <= MOST, found


def test_the_readme_is_one_page():
    assert (HOME / "README.md").stat().st_size <= 10_240


TEXT = """# A heading is not measured, however long it is and whatever else it holds

One two three. Four `code with words` five,
and [a link](https://x.y/z) six! *Seven* eight:

- An item, see Liu et al. 2017.
- Another one
  of two lines.

| a table | is not |
|---|---|

```sh
nor is code
```
"""


def test_what_is_measured():
    assert sentences(TEXT) == [
        "One two three.",
        "Four `code` five, and link six!",
        "*Seven* eight:",
        "An item, see Liu et al 2017.",
        "Another one of two lines.",
    ]
    assert measure(TEXT)[:3] == (4.6, 7, 7)
    assert measure("") == (0, 0, 0, "", 0)


def test_ninety_of_a_hundred_sentences_are_no_longer_than_the_tenth():
    text = "\n\n".join(" ".join(["Word"] * count) + "." for count in range(1, 101))
    assert (measure(text).tenth, measure(text).most) == (90, 100)


def literals(path):
    """The string literals of a Python file, docstrings left out; `{}` stands for what an f-string fills in."""
    tree = ast.parse(path.read_text())
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


DRAWN = re.compile("report/html.py|nets/export")  # style sheets, the text of a Python file


def test_messages_have_full_stops_and_no_semicolons():
    package = HOME / "prune_nas"
    paths = [path for path in package.rglob("*.py") if not DRAWN.search(path.as_posix())]
    found = {(path.name, text) for path in paths for text in literals(path) if re.search(r"\w[^\n]*; [\w`'{-]", text)}
    assert {one for one in found if one[1] not in ("{}; {}", "{}: {}; {}")} == set()


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["rules", "fit"]], ids=" ".join)
def test_help_has_no_semicolons_and_no_python_types(cli, command):
    code, out, _ = cli(*command, "--help")
    assert code == 0
    options = out.partition("Options:")[2].replace("[default: 5.0; x>=0.1]", "")
    assert not re.search(r"; \w|<(?:str|int|float|path|list)", options), options
