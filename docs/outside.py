"""Hooks of MkDocs: files from outside of docs/ join the site, and links to them lead there."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Pages of the navigation."""
SHOWN = {"recipes/*.yaml": "yaml", "examples/*.py": "python"}
"""Files that get a page each, which links lead to, by the language of their code."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!\w+:|#)[^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside docs/, under the paths that they have in the repository."""
    root = Path(config.config_file_path).parent
    for name in PAGES:
        text = (root / name).read_text(encoding="utf-8")
        files.append(
            File.generated(config, name, content=f"---\nsearch: {{boost: 0.2}}\n---\n{text}")
        )
    for pattern, language in SHOWN.items():
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            file = File.generated(config, f"{name}.md", content=shown(name, path, language))
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def shown(name: str, path: Path, language: str) -> str:
    """A page that shows a file, and that the search leaves out."""
    code = path.read_text(encoding="utf-8")
    return f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n````{language}\n{code}````\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links at the site's pages; a link to what the site lacks becomes its text."""
    source = page.file.src_uri
    place = source if source in PAGES else join("docs", source)

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = normpath(join(dirname(place), target)).removeprefix("docs/")
        for there in (path, f"{path}.md"):
            if files.get_file_from_path(there) is not None:
                return f"[{text}]({relpath(there, dirname(source) or '.')}{anchor})"
        return text

    return LINK.sub(led, markdown)
