"""The guide is complete: every page is a topic, is printed as it is, and is linked from README."""

import re
from pathlib import Path

import pytest

from prune_nas.cli.guiding import TOPICS

HOME = Path(__file__).resolve().parents[1]
PAGES = HOME / "prune_nas" / "guide"


def test_every_page_is_a_topic_and_linked_from_readme():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(TOPICS)
    linked = re.findall(r"\(prune_nas/guide/(\w+)\.md\)", (HOME / "README.md").read_text())
    assert linked == list(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_printed_as_it_is(cli, topic):
    code, out, _ = cli("guide", topic)
    assert (code, out) == (0, (PAGES / f"{topic}.md").read_text())


def test_without_a_topic_the_topics_are_listed(cli):
    code, out, _ = cli("guide")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[: len(TOPICS)]] == list(TOPICS)
    assert "networks  Your network and your images" in out


def test_an_unknown_topic_is_answered_with_the_nearest(cli):
    code, _, err = cli("guide", "network")
    assert (code, "Did you mean networks" in err) == (2, True)


def test_topics_that_pages_and_code_name_exist():
    texts = [*HOME.glob("*.md"), *(HOME / "prune_nas").rglob("*.py"), *(HOME / "prune_nas").rglob("*.md")]
    named = {topic for path in texts for topic in re.findall(r"prune-nas guide (\w+)", path.read_text())}
    assert named - {"TOPIC"} <= set(TOPICS)
