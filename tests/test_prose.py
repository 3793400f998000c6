"""README, guide and results pages are written in short sentences; help, messages and verdicts have no semicolon."""

from pathlib import Path

import pytest

from tests.prose import measure, sentences

HOME = Path(__file__).resolve().parents[1]
PAGES = [HOME / "README.md", HOME / "CHANGELOG.md", *sorted((HOME / "prune_nas/guide").glob("*.md")),
         *sorted((HOME / "artifacts/results").glob("*.md"))]  # fmt: skip
MEAN, TENTH, MOST = 16, 26, 35


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
