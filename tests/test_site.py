"""The documentation site: builds strictly, needs nothing from elsewhere, has every page."""

import inspect
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, is_dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dograph
import dograph.mixers
from dograph.experiments.mixer_list import describe_mixers, shipped_mixers

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Pages of the site that lie outside docs/."""


FIRST = "return document.querySelector('.md-search-result__link')?.href"
"""What the search shows first."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as anyone builds it: warnings, e.g. of dead links or anchors, are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser loads for a page without being asked to."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        loads = tag != "a" and not (tag == "link" and given.get("rel") in ("canonical", "next"))
        if loads:
            self.addresses += [given[name] for name in ("src", "href", "data") if given.get(name)]


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        assert not [each for each in loaded.addresses if "//" in each], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), (
            style
        )


@pytest.mark.slow
def test_every_page_is_in_the_site_s_search(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")]:
        assert f'"{page.relative_to(DOCS).with_suffix(".html")}' in index, page


@pytest.mark.slow
def test_the_search_works_from_disk(site):
    """A browser gives pages from disk no worker: `docs/javascripts/iframe-worker.js` serves."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (shutil.which("chromium") and (driver := shutil.which("chromedriver"))):
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1400,1000"):
        options.add_argument(f"--{flag}")
    service = webdriver.chrome.service.Service(driver)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get((site / "index.html").as_uri() + "?q=cap+epochs")
        deadline = time.monotonic() + 60
        while not (found := browser.execute_script(FIRST)) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        browser.quit()
    assert "/limits.html" in found


def test_every_page_is_in_the_navigation():
    pages = {*DOCS.rglob("*.md")} - {*(DOCS / "results" / "pico").rglob("*")}
    named = re.findall(r"([\w./]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted({*OUTSIDE, *(str(page.relative_to(DOCS)) for page in pages)})


def test_every_public_name_is_in_the_reference():
    pages = [page for page in (DOCS / "reference").glob("*.md") if page.stem != "index"]
    shown = {page: re.findall(r"^::: dograph\.(\w+)$", page.read_text(), re.M) for page in pages}
    assert sorted(name for names in shown.values() for name in names) == sorted(dograph.__all__)
    index = (DOCS / "reference" / "index.md").read_text()
    for page, names in shown.items():
        row = next(line for line in index.splitlines() if f"]({page.name})" in line)
        assert re.findall(r"`(\w+)`", row) == names, f"docs/reference/index.md's row of {page.name}"


def header(page):
    """The rows of a method's page by their labels, each a list."""
    rows = {}
    for label, text in re.findall(r"^\| \*\*(.*?)\*\* \| (.*) \|$", page.read_text(), re.M):
        rows.setdefault(label, []).append(text)
    return rows


def defaults(mixer):
    """A mixer's arguments that have a default, as its page shows them."""
    for name, parameter in inspect.signature(mixer).parameters.items():
        value = parameter.default
        flat = {name: value}
        if is_dataclass(value):
            flat = {f"{name}.{key}": each for key, each in asdict(value).items()}
        for key, each in flat.items():
            if each not in (None, inspect.Parameter.empty):
                yield f"{key}={each:g}" if isinstance(each, float) else f"{key}={each}"


METHODS = [page for page in sorted((DOCS / "methods").glob("*.md")) if "Mixer" in header(page)]


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_a_methods_page_says_what_its_mixers_say(page):
    described = {each.name: each for each in describe_mixers(shipped_mixers())}
    rows = header(page)
    names = re.findall(r"`(\w+)`", rows["Mixer"][0])
    recipes = {recipe for name in names if name != "Fixed" for recipe in described[name].recipes}
    assert set(re.findall(r"`(\w+)`", rows["Recipes"][0])) == recipes
    for name in names:
        label = f"`{name}`: " if len(rows["Acts on"]) > 1 else ""
        assert f"{label}{described[name].acts_on}" in rows["Acts on"]
        assert f"{label}{described[name].costs}" in rows["Costs"]
    shown = re.findall(r"`([\w.]+=[^`]+)`", " ".join(rows["Defaults"]))
    mixers = [getattr(dograph.mixers, name) for name in names]
    assert sorted(shown) == sorted(each for mixer in mixers for each in defaults(mixer))


def test_every_mixer_has_a_page():
    named = [name for page in METHODS for name in re.findall(r"`(\w+)`", header(page)["Mixer"][0])]
    assert sorted([*named, "ByLevel", "Phases"]) == sorted(
        each.__name__ for each in shipped_mixers()
    )
