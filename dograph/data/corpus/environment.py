"""The environment corpus: text that every installation has, in its Python distributions.

Seven domains, strongly unequal by nature. Nothing is fetched. For a given set of distributions
and Python version the documents are the same wherever the environment's folder lives.
"""

from __future__ import annotations

import email
import functools
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath

from dograph.data.corpus.document import cut, document_hash
from dograph.data.corpus.python_text import take_apart

EXCLUDED_DISTRIBUTIONS = frozenset({"dograph"})
"""Ourselves: a commit must not change the corpus."""

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
class InstalledFile:
    """A file of a distribution; ``key`` names it the same in every environment."""

    key: str
    path: Path


@dataclass(frozen=True)
class Domain:
    """How a domain's documents are found, and how much of them is enough."""

    megabytes: float
    """Cap in 10⁶ bytes of text that makes the default corpus 7 to 9 M tokens."""
    wanted: Callable[[PurePosixPath], bool]
    """Whether a file, by its path inside the distribution, may hold such documents."""
    texts: Callable[[str], Iterator[str]]
    """The passages of a file's text; passages met before in the domain are dropped."""
    longest: int = 32_000
    """Characters above which a document is cut in several; less where documents are few."""


def _whole(text: str) -> Iterator[str]:
    yield text


def _code(text: str) -> Iterator[str]:
    parts = take_apart(text)
    if parts is not None:
        yield parts.code


def _docstrings(text: str) -> Iterator[str]:
    parts = take_apart(text)
    if parts is not None:
        yield from parts.docstrings


def _comments(text: str) -> Iterator[str]:
    # Parsing is the slow part; three files of four have too little to say for one document.
    if sum(map(len, _COMMENT_LINE.findall(text))) < SHORTEST_DOCUMENT:
        return
    parts = take_apart(text)
    if parts is not None:
        yield from parts.comments


def _header(text: str) -> Iterator[str]:
    """The header without the licence that each file of a project repeats."""
    opening = _OPENING_COMMENT.match(text)
    if opening and _LEGAL.search(opening.group()):
        text = text[opening.end() :].lstrip("\n")
    yield text


def _long_description(text: str) -> Iterator[str]:
    """The body of a METADATA file, which is the project's README."""
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
    """The text inside the installed Python distributions (see the module)."""

    name = "environment"

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(DOMAINS))

    def documents(self, domain: str) -> Iterator[str]:
        """The domain's documents, files in the order of a hash of their names.

        That order mixes the distributions, so a capped domain is as diverse as the whole one.
        """
        rule = DOMAINS[domain]
        passages: set[bytes] = set()
        for file in self._files:
            if rule.wanted(PurePosixPath(file.key)):
                text = readable_text(file.path)
                if text is not None:
                    yield from _documents_of(text, rule, passages)

    def default_megabytes(self, domain: str) -> float | None:
        """The cap that makes the default corpus 7 to 9 M tokens."""
        return DOMAINS[domain].megabytes

    def where(self, domain: str) -> str:
        """The environment's folder."""
        return f"the distributions installed in {sys.prefix}"

    def identity(self) -> list[str]:
        """Python's version, which decides what parses, and each distribution's name==version."""
        found = self._distributions.items()
        versions = [f"{name}=={header(item)['Version']}" for name, item in found]
        return [f"python {sys.version_info[0]}.{sys.version_info[1]}", *versions]

    @functools.cached_property
    def _distributions(self) -> dict[str, importlib.metadata.Distribution]:
        return installed_distributions()

    @functools.cached_property
    def _files(self) -> list[InstalledFile]:
        files = []
        for name, distribution in self._distributions.items():
            for file in distribution.files or ():
                parts = file.parts
                if ".." in parts or file.is_absolute() or _TEST_FOLDERS.intersection(parts):
                    continue
                path = Path(str(distribution.locate_file(file)))
                files.append(InstalledFile(f"{name}/{file.as_posix()}", path))
        return sorted(files, key=lambda file: document_hash(file.key.encode()))


def installed_distributions() -> dict[str, importlib.metadata.Distribution]:
    """Distributions by normalised name, sorted, without ourselves and editable installs."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        raw_name = header(distribution)["Name"]
        if not raw_name:
            continue  # what an interrupted pip left behind has no name
        name = re.sub(r"[-_.]+", "-", raw_name).lower()
        # Of two on the path, Python imports the first.
        if name not in EXCLUDED_DISTRIBUTIONS and name not in found:
            found[name] = distribution
    return {name: found[name] for name in sorted(found) if not _is_editable(found[name])}


def header(distribution: importlib.metadata.Distribution) -> Message:
    """What a distribution says of itself (``Name``, ``Version``, …), without its README.

    ``importlib.metadata`` parses the README, too, line by line: a third of a second for all that
    are installed, at every start.
    """
    # The second is what setuptools and eggs leave; the last stands for a lone file of either.
    texts = (distribution.read_text(name) for name in ("METADATA", "PKG-INFO", ""))
    return email.message_from_string(next(filter(None, texts), "").partition("\n\n")[0])


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    origin = distribution.read_text("direct_url.json")
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


def readable_text(path: Path) -> str | None:
    """The file's text with unix line ends; None if it is missing, generated, or not UTF-8."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None  # a file that cannot be read is no text, and others are plenty
    if b"\0" in data:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def looks_written(text: str) -> bool:
    """Whether people may have written it: not minified, not a table of numbers."""
    line_count = text.count("\n") + 1
    if len(text) > LONGEST_AVERAGE_LINE * line_count:
        return False
    if max(map(len, text.split("\n"))) > LONGEST_LINE:
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
    for piece in cut("\n\n".join(fresh), rule.longest):
        if len(piece.strip()) >= SHORTEST_DOCUMENT and looks_written(piece):
            yield piece.strip("\n") + "\n"
