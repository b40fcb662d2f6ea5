"""The environment corpus: the text in the installed Python distributions.

Seven domains of very different sizes; nothing is downloaded. The same distributions and Python
version give the same documents, wherever they are installed.
"""

from __future__ import annotations

import email
import functools
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath

from dograph.data.corpus.document import cut_stream, document_hash
from dograph.data.corpus.left_out import FilesLeftOut
from dograph.data.corpus.python_text import take_apart

EXCLUDED_DISTRIBUTIONS = frozenset({"dograph"})
"""This package: a commit must not change the corpus."""

SHORTEST_DOCUMENT = 200
LARGEST_FILE = 1_000_000
LONGEST_LINE = 2_000
LONGEST_AVERAGE_LINE = 200
MOST_DIGITS = 0.3

_TEST_FOLDERS = frozenset({"tests", "test"})
_HEADERS = (".h", ".hpp", ".hh", ".hxx", ".cuh")
_LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)
_CODE_ENDINGS = (".py", ".pyc", ".pyi", ".so", ".h", ".json")
_OPENING_COMMENT = re.compile(r"\s*(/\*.*?\*/|(?://[^\n]*\n)+)", re.DOTALL)
_COMMENT_LINE = re.compile(r"^[ \t]*#([^\n]*)", re.MULTILINE)
_LEGAL = re.compile(r"copyright|licen[cs]e", re.IGNORECASE)


@dataclass(frozen=True)
class Domain:
    """A domain: which files hold its documents, how these are cut out, and how many are taken."""

    megabytes: float
    """Cap in 10⁶ bytes of text that makes the default corpus 7 to 9 M tokens."""
    wanted: Callable[[PurePosixPath], bool]
    """Tells from a path inside the distribution whether the file may hold such documents."""
    texts: Callable[[str], Iterator[str]]
    """Yields the passages of a file's text; passages that the domain has already are dropped."""
    longest: int = 32_000
    """Characters at which a document is cut; less where a domain has few documents."""


def _whole(text: str) -> Iterator[str]:
    yield text


def _code(text: str) -> Iterator[str]:
    if parts := take_apart(text):
        yield parts.code


def _docstrings(text: str) -> Iterator[str]:
    if parts := take_apart(text):
        yield from parts.docstrings


def _comments(text: str) -> Iterator[str]:
    # Parsing is the slow part; three files of four have too little to say for one document.
    if sum(map(len, _COMMENT_LINE.findall(text))) < SHORTEST_DOCUMENT:
        return
    if parts := take_apart(text):
        yield from parts.comments


def _header(text: str) -> Iterator[str]:
    """Yield a C header without the licence that each file of a project repeats."""
    opening = _OPENING_COMMENT.match(text)
    if opening and _LEGAL.search(opening.group()):
        text = text[opening.end() :].lstrip("\n")
    yield text


def _long_description(text: str) -> Iterator[str]:
    """Yield the body of a METADATA file, the project's README."""
    yield text.partition("\n\n")[2]


def _ends(*endings: str) -> Callable[[PurePosixPath], bool]:
    return lambda path: path.suffix.lower() in endings


def _is_licence(path: PurePosixPath) -> bool:
    return bool(_LICENCE_NAME.match(path.name)) and path.suffix.lower() not in _CODE_ENDINGS


def _is_metadata(path: PurePosixPath) -> bool:
    return path.name == "METADATA" and path.parent.name.endswith(".dist-info")


DOMAINS: dict[str, Domain] = {
    "c_headers": Domain(6.0, _ends(*_HEADERS), _header),
    "comments": Domain(1.6, _ends(".py"), _comments),
    "docstrings": Domain(4.0, _ends(".py"), _docstrings),
    "licences": Domain(0.7, _is_licence, _whole, longest=8_000),
    "python_source": Domain(10.5, _ends(".py"), _code),
    "readmes": Domain(1.0, _is_metadata, _long_description, longest=8_000),
    "type_stubs": Domain(2.5, _ends(".pyi"), _whole),
}


class EnvironmentSource:
    """The text in the installed Python distributions (see the module)."""

    name = "environment"
    default_megabytes: Mapping[str, float] = {
        name: domain.megabytes for name, domain in DOMAINS.items()
    }

    left_out: tuple[FilesLeftOut, ...] = ()

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(DOMAINS))

    def documents(self, domain: str) -> Iterator[str]:
        """Yield the domain's documents, with files in the order of a hash of their names.

        This order mixes the distributions, so that a capped domain is as diverse as the whole one.
        """
        rule = DOMAINS[domain]
        passages: set[bytes] = set()
        for key, path in self._files:
            if rule.wanted(PurePosixPath(key)) and (text := readable_text(path)) is not None:
                yield from _documents_of(text, rule, passages)

    def where(self, domain: str) -> str:
        """The environment's folder."""
        return f"the distributions installed in {sys.prefix}"

    def identity(self) -> list[str]:
        """Python's version, which decides what parses, and each distribution's name==version."""
        distributions = installed_distributions().items()
        versions = [f"{name}=={header(item)['Version']}" for name, item in distributions]
        return [f"python {sys.version_info[0]}.{sys.version_info[1]}", *versions]

    @functools.cached_property
    def _files(self) -> list[tuple[str, Path]]:
        """(key, path) of each distribution's files; a key is the same in every environment."""
        files = []
        for name, distribution in installed_distributions().items():
            for file in distribution.files or ():
                parts = file.parts
                if ".." in parts or file.is_absolute() or _TEST_FOLDERS.intersection(parts):
                    continue
                path = Path(str(distribution.locate_file(file)))
                files.append((f"{name}/{file.as_posix()}", path))
        return sorted(files, key=lambda file: document_hash(file[0].encode()))


def installed_distributions() -> dict[str, importlib.metadata.Distribution]:
    """Distributions by normalised name, sorted, without this package and editable installs."""
    by_name: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        raw_name = header(distribution)["Name"]
        if not raw_name:
            continue  # left behind by an interrupted pip
        name = re.sub(r"[-_.]+", "-", raw_name).lower()
        # Of two on the path, Python imports the first.
        if name not in EXCLUDED_DISTRIBUTIONS and name not in by_name:
            by_name[name] = distribution
    return {name: by_name[name] for name in sorted(by_name) if not _is_editable(by_name[name])}


def header(distribution: importlib.metadata.Distribution) -> Message:
    """A distribution's metadata (``Name``, ``Version``, …) without its README.

    ``importlib.metadata`` also parses the READMEs, line by line, which takes a third of a second
    at every start.
    """
    # setuptools and eggs write PKG-INFO; "" reads a distribution that is a single file.
    texts = (distribution.read_text(name) for name in ("METADATA", "PKG-INFO", ""))
    return email.message_from_string(next(filter(None, texts), "").partition("\n\n")[0])


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    origin = distribution.read_text("direct_url.json")
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


def readable_text(path: Path) -> str | None:
    """A file's text with unix line ends; None if it is missing, too large, binary or not UTF-8."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return None if b"\0" in data else text.replace("\r\n", "\n").replace("\r", "\n")


def looks_written(text: str) -> bool:
    """Whether a person may have written the text: it is not minified, nor a table of numbers."""
    line_count = text.count("\n") + 1
    longest = max(map(len, text.split("\n")))
    if len(text) > LONGEST_AVERAGE_LINE * line_count or longest > LONGEST_LINE:
        return False
    data = text.encode()
    digits = len(data) - len(data.translate(None, b"0123456789"))
    return digits <= MOST_DIGITS * len(data)


def _documents_of(text: str, rule: Domain, passages: set[bytes]) -> Iterator[str]:
    fresh = []
    for passage in rule.texts(text):
        digest = document_hash(passage.encode())[:8]
        if digest not in passages:
            passages.add(digest)
            fresh.append(passage)
    for piece in cut_stream(["\n\n".join(fresh)], rule.longest):
        if len(piece.strip()) >= SHORTEST_DOCUMENT and looks_written(piece):
            yield piece.strip("\n") + "\n"
