"""The documentation site: builds strictly, needs nothing from elsewhere, has every page."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Pages of the site that lie outside docs/."""


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


def test_every_page_is_in_the_navigation():
    pages = {*DOCS.rglob("*.md")} - {*(DOCS / "results" / "pico").rglob("*")}
    named = re.findall(r"([\w./]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted({*OUTSIDE, *(str(page.relative_to(DOCS)) for page in pages)})
