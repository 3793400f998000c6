"""The report page in a real browser, as its readers have it: phone and desk, light and dark, on paper, no network."""

import base64
import io
import os
import shutil

import pytest
from PIL import Image

from prune_nas.report.html import write_report
from prune_nas.report.run_data import RunData
from tests.report.oracles import contrast

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
WIDTHS = (400, 1400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        reason = "no headless browser (apt-get install chromium chromium-driver)"
        if os.environ.get("PRUNE_NAS_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = selenium.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "proxy-server=127.0.0.1:9",
                     f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    opened = selenium.Chrome(options, selenium.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def page(browser, run_path, tmp_path_factory):
    """The page of the realistic run, opened."""
    folder = shutil.copytree(run_path, tmp_path_factory.mktemp("browser") / "run")
    path = write_report(RunData(folder))
    assert path.stat().st_size < 3_000_000
    browser.get(path.as_uri())
    return browser


def shown(page, width, scheme):
    """Show the page at a width and in a colour scheme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"media": "screen", "features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_runs_over_the_edge_and_the_console_is_silent(page, width, scheme):
    shown(page, width, scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.get_log("browser") == []
    assert page.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 100 && i.alt)")
    wider = "return [...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
    wider += "getComputedStyle(e).overflowX == 'auto' && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80))"
    assert page.execute_script(wider) == []  # what scrolls can be reached by keyboard


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(page, scheme):
    shown(page, 1400, scheme)
    script = """
        const back = getComputedStyle(document.body).backgroundColor;
        return [...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType == 3 &&
            n.data.trim())).map(e => [getComputedStyle(e).color, back])"""
    pairs = {tuple(pair) for pair in page.execute_script(script)}
    assert len(pairs) >= 2
    assert min(contrast(*pair) for pair in pairs) >= 4.5  # WCAG 2, AA


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_the_page_s_colours(page, scheme):
    shown(page, 1400, scheme)
    page.execute_script("document.images[0].scrollIntoView()")
    image = page.find_element("css selector", "img")
    pixels = Image.open(io.BytesIO(image.screenshot_as_png)).convert("RGB")
    corner = pixels.getpixel((3, pixels.height - 3))
    assert (max(corner) < 60) == (scheme == "dark")
    assert (min(corner) > 240) == (scheme == "light")
    least, most = pixels.convert("L").getextrema()
    assert most - least > 180  # there are words on it


def test_every_section_can_be_reached_by_its_link(page):
    shown(page, 400, "light")
    links = page.find_elements("css selector", "nav a")
    assert len(links) == len(page.find_elements("css selector", "section")) >= 10
    targets = [link.get_attribute("hash")[1:] for link in links]
    assert all(page.find_elements("id", target) for target in targets)


def test_on_paper_no_line_is_cut(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )  # A4 less its margins
    assert page.execute_script("return document.documentElement.scrollWidth") <= 720
    printed = base64.b64decode(
        page.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.7})["data"]
    )
    assert printed.startswith(b"%PDF")
    assert 2 < printed.count(b"/Type /Page\n") < 30
