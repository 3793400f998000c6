"""Three words for three states: better or worse, equivalent, undecided. Words that blur them are nowhere."""

import json
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
BLURRED = re.compile(r"\b(?:level with|(?:told|tell) apart|within (?:the )?noise|not told from)\b", re.IGNORECASE)
KINDS = {".py", ".md", ".html", ".json", ".toml", ".ipynb", ".cff"}
PLACES = ("README.md", "CHANGELOG.md", "prune_nas", "search_spaces", "notebooks", "tests", "artifacts/results",
          "artifacts/rules")  # fmt: skip


def texts():
    for place in PLACES:
        path = HOME / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in KINDS and file != Path(__file__).resolve():
                yield file.relative_to(HOME), file.read_text()


def blurred(text):
    return BLURRED.findall(re.sub(r"[\s#>*_]+", " ", text))


def test_no_text_blurs_whether_something_is_decided():
    assert {str(path): found for path, text in texts() if (found := blurred(text))} == {}


@pytest.mark.parametrize("text", ["it is level\n  with the taper", "are *not told\n# apart*", "Within noise of it"])
def test_a_blurred_word_is_found_across_lines(text):
    assert blurred(text)


def test_no_published_verdict_is_in_the_words_of_before():
    for path in sorted((HOME / "artifacts/results").glob("*/verdict*.json")):
        for verdict in json.loads(path.read_text()):
            for sentence in (verdict["headline"], *verdict["sentences"]):
                assert not re.search(r"\b(?:beats?|loses to|ahead of|as good as)\b", sentence), (path, sentence)
