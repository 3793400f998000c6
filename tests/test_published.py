"""What is published under artifacts/results holds together: figures, data, links."""

import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image

from prune_nas.report.figures.style import TWIN

HOME = Path(__file__).resolve().parents[1]
RESULTS = HOME / "artifacts/results"
DRAWN = sorted(RESULTS.rglob("figures/*.svg"))


def test_there_are_figures():
    assert len(DRAWN) > 50


@pytest.mark.parametrize("svg", DRAWN, ids=lambda path: "/".join(path.relative_to(RESULTS).with_suffix("").parts))
def test_png_and_svg_are_of_one_drawing_with_its_data_beside_it(svg):
    with Image.open(svg.with_suffix(".png")) as png:
        assert png.info[TWIN] == hashlib.sha256(svg.read_bytes()).hexdigest()
    assert svg.with_suffix(".csv").stat().st_size > 0


@pytest.mark.parametrize("page", [HOME / "README.md", *sorted(RESULTS.rglob("*.md"))], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link
