"""Hooks of MkDocs: files from outside of docs/ join the site, and links to them lead there."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!\w+:|#)[^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, under the paths that they have in the repository."""
    for name in PAGES:
        files.append(File.generated(config, name, content=Path(name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links at the site's pages; a link to what the site lacks becomes its text."""
    source = page.file.src_uri
    place = source if source in PAGES else join("docs", source)

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = normpath(join(dirname(place), target)).removeprefix("docs/")
        if files.get_file_from_path(path) is None:
            return text
        return f"[{text}]({relpath(path, dirname(source) or '.')}{anchor})"

    return LINK.sub(led, markdown)
