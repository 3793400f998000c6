"""How long the sentences of a Markdown text are.

    python -m tests.prose README.md prune_nas/guide/*.md artifacts/results/*.md

Paragraphs and list items count. Headings, tables, code and captions of pictures do not. Code within a line counts as a
word, and so does a link.
"""

import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_END = re.compile(r"(?<=[.!?:])[*_\")]*\s+(?=[*_\"(\[`]*[A-Z0-9`])")
_ABBREVIATED = re.compile(r"\b(?:et al|e\.g|i\.e|vs|cf)\.")


class Measured(NamedTuple):
    """Words per sentence: mean, 90th percentile, largest number; the longest sentence; the number of sentences."""

    mean: float
    tenth: int
    most: int
    longest: str
    sentences: int


def sentences(markdown: str) -> list[str]:
    """The sentences of the paragraphs and list items."""
    text = _FENCE.sub("\n\n", re.sub(r"^---\n.*?^---\n", "", markdown, count=1, flags=re.DOTALL | re.MULTILINE))
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", "link", re.sub(r"`[^`]+`", "`code`", text))
    text = _ABBREVIATED.sub(lambda found: found[0].replace(".", ""), text)
    blocks: list[str] = []
    for line in text.splitlines():
        bare = line.strip().lstrip("> ")
        if not bare or bare.startswith(("#", "|", "<")) or set(bare) <= set("-=*_ "):
            blocks.append("")
        elif re.match(r"([-*+]|\d+\.) ", bare):
            blocks.append(re.sub(r"^([-*+]|\d+\.) ", "", bare))
        elif blocks and blocks[-1]:
            blocks[-1] += f" {bare}"
        else:
            blocks.append(bare)
    return [part for block in blocks if block for part in _END.split(block) if words(part)]


def words(sentence: str) -> list[str]:
    """The words of a sentence: what has a letter or a digit in it."""
    return [word for word in sentence.split() if re.search(r"\w", word)]


def measure(markdown: str) -> Measured:
    """The lengths of a text's sentences."""
    found = sorted((len(words(one)), one) for one in sentences(markdown))
    counts = [count for count, _ in found] or [0]
    longest = found[-1][1] if found else ""
    tenth = counts[math.ceil(0.9 * len(counts)) - 1]
    return Measured(sum(counts) / len(counts), tenth, counts[-1], longest, len(found))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = measure(Path(name).read_text())
        lengths = f"mean {found.mean:.1f}, 90 % within {found.tenth}, longest {found.most} words"
        sys.stdout.write(f"{name}: {lengths}, {found.sentences} sentences\n    {found.longest}\n")
