"""Sources of text: named domains, each a stream of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from dograph.data.corpus import readers
from dograph.data.corpus.document import document_hash
from dograph.data.corpus.environment import EnvironmentSource
from dograph.data.corpus.left_out import (
    DESCRIBED_ONLY,
    EMPTY_FILE,
    EMPTY_FOLDER,
    HIDDEN,
    LINKED_FOLDER,
    UNKNOWN_ENDING,
    FilesLeftOut,
    FileTally,
    described,
)
from dograph.data.corpus.manifest import check_domain_name
from dograph.data.corpus.rows import BadRow
from dograph.data.corpus.settings import ENVIRONMENT, CorpusSettings
from dograph.errors import UserError, nearest
from dograph.files.home import expand_home
from dograph.files.levels import check_levels


class Source(Protocol):
    """Documents by domain, in an order that depends only on the source's content."""

    name: str
    default_megabytes: Mapping[str, float]
    """Caps by domain unless the settings give them, in 10⁶ bytes; without one, all is taken."""

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""

    left_out: tuple[FilesLeftOut, ...]
    """Files that no domain holds."""

    def documents(self, domain: str) -> Iterator[str | BadRow]:
        """The domain's documents, and rows that are left out; the same stream each time."""

    def where(self, domain: str) -> str:
        """The place where a user would look for the domain's text."""

    def identity(self) -> list[str]:
        """What the documents depend on, quick to collect: equal lists mean equal documents."""


class FolderSource:
    """A folder in which each sub-folder or file of a known format is a domain.

    With more ``levels`` so is each sub-folder or file within a sub-folder, named after both.

    Files are read in the order of a hash of their names, so that a cap does not cut a domain down
    to its alphabetically first part. Names that begin with a dot or an underscore, and unknown
    formats, are left out and counted. Links to files are read, wherever they lead; pipes, devices,
    broken links, folders without a file to read, and names that are unsafe or used twice are
    refused.

    Args:
        folder: the folder.
        text_key: see `CorpusSettings`.
        skip_bad_rows: see `CorpusSettings`.
        levels: see `CorpusSettings`.
    """

    def __init__(
        self, folder: Path, text_key: str, skip_bad_rows: bool = False, levels: int = 1
    ) -> None:
        if not folder.is_dir():
            raise UserError(
                f"corpus.source is {folder}: it must be 'environment' or a folder with one folder "
                "or file per domain"
            )
        self.name = folder.resolve().name or "corpus"
        self.default_megabytes: Mapping[str, float] = {}
        self._folder, self._text_key, self._skip_bad_rows = folder, text_key, skip_bad_rows
        self._files: dict[str, list[Path]] = {}
        tally = FileTally(folder)
        self._add_all(folder, tally, levels)
        self.left_out = tally.files()
        if not self._files:
            left_out = f", only {described(self.left_out)}" if self.left_out else ""
            raise UserError(
                f"corpus.source is {folder}, which holds no domain{left_out}: put one folder or "
                f"file per domain in it ({readers.KNOWN_ENDINGS})"
            )

    def _add_all(self, folder: Path, tally: FileTally, levels: int, above: str = "") -> None:
        """Add a folder's domains, whose names begin with ``above``."""
        for entry in sorted(folder.iterdir()):
            is_hidden = entry.name.startswith((".", "_"))
            if levels > 1 and not is_hidden and entry.is_dir():
                check_domain_name(entry, entry.name)
                before = len(self._files)
                self._add_all(entry, tally, levels - 1, f"{above}{entry.name}/")
                if len(self._files) == before:
                    _files_below(entry, tally)  # refuses a folder without a file to read
            else:
                self._add(entry, tally, above)

    def _add(self, entry: Path, tally: FileTally, above: str) -> None:
        is_folder = entry.is_dir()
        name = entry.name if is_folder else readers.readable_stem(entry.name)
        if entry.name.startswith((".", "_")):
            tally.add(HIDDEN, entry)
        elif name is None:
            tally.add(UNKNOWN_ENDING, entry)
        elif not is_folder and _describes(entry, self._text_key):
            tally.add(DESCRIBED_ONLY, entry)
        else:
            check_domain_name(entry, name)
            name = above + name
            if name in self._files:
                raise UserError(
                    f"{entry}: a second source of domain '{name}': rename one of the two"
                )
            self._files[name] = _files_below(entry, tally) if is_folder else [entry]
            for path in self._files[name]:
                if path.stat().st_size == 0:
                    tally.add(EMPTY_FILE, path)

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(self._files))

    def documents(self, domain: str) -> Iterator[str | BadRow]:
        """The documents of the domain's files, one file after the other."""
        for path in self._files[domain]:
            yield from readers.read_documents(path, self._text_key, self._skip_bad_rows)

    def where(self, domain: str) -> str:
        """The domain's folder or file."""
        files = self._files[domain]
        return str(files[0] if len(files) == 1 else self._folder / domain)

    def identity(self) -> list[str]:
        """Name, size and modification time of each file; a terabyte takes too long to read."""
        lines = [f"text_key={self._text_key}"]
        if self._skip_bad_rows:
            lines.append("skip_bad_rows")
        for domain in self.domains():
            for path in self._files[domain]:
                state = path.stat()
                relative = path.relative_to(self._folder).as_posix()
                lines.append(f"{domain} {relative} {state.st_size} {state.st_mtime_ns}")
        return lines


def open_source(settings: CorpusSettings) -> Source:
    """Open the settings' source; a UserError if it, or a domain that they name, is missing."""
    source: Source
    if settings.source == ENVIRONMENT:
        source = EnvironmentSource()
    else:
        folder = expand_home(settings.source, "corpus.source")
        reading = settings.text_key, settings.skip_bad_rows, settings.levels
        source = FolderSource(folder, *reading)
    if isinstance(settings.megabytes, dict):
        for domain in sorted(settings.megabytes):
            _check_is_domain(source, domain, f"corpus.megabytes names '{domain}'")
    for name, derivation in settings.derivations().items():
        key = f"corpus.derived.{name}"
        if name in source.domains():
            raise UserError(f"{key}: {source.name} has a domain of that name: choose another")
        _check_is_domain(source, derivation.origin, f"{key}.from is '{derivation.origin}'")
    check_levels([*source.domains(), *settings.derivations()], f"corpus.source is {source.name}")
    return source


def _check_is_domain(source: Source, domain: str, mistake: str) -> None:
    """Refuse a name that is not one of the source's domains."""
    if domain not in source.domains():
        domains, hint = list(source.domains()), nearest(domain, source.domains())
        raise UserError(f"{mistake}: {source.name} has the domains {domains}{hint}")


def cap_bytes(source: Source, domain: str, settings: CorpusSettings) -> int | None:
    """Most bytes of text to take from the domain; None: all of it."""
    cap = settings.megabytes
    if isinstance(cap, dict):
        cap = cap.get(domain)
    if cap is None:
        cap = source.default_megabytes.get(domain)
    return None if cap is None else max(1, round(cap * 1e6))


def _files_below(folder: Path, tally: FileTally) -> list[Path]:
    """The files to read below a folder, in the order of a hash of their names."""
    files, waiting, left_out = [], [folder], FileTally(folder.parent)
    while waiting:
        here = waiting.pop()
        entries = sorted(here.iterdir())
        if not entries:
            left_out.add(EMPTY_FOLDER, here)
        for path in entries:
            is_folder = path.is_dir()
            if path.name.startswith((".", "_")):
                left_out.add(HIDDEN, path)
            elif is_folder and path.is_symlink():
                left_out.add(LINKED_FOLDER, path)
            elif is_folder:
                waiting.append(path)
            elif readers.readable_stem(path.name) is None:
                left_out.add(UNKNOWN_ENDING, path)
            else:
                _check_regular(path)
                files.append(path)
    if not files:
        raise UserError(
            f"{folder} holds no file to read, only {described(left_out.files())}: put text in it "
            f"({readers.KNOWN_ENDINGS}), or begin its name with '_' to leave it out"
        )
    tally.extend(left_out)
    return sorted(files, key=lambda path: document_hash(bytes(path.relative_to(folder))))


def _describes(path: Path, text_key: str) -> bool:
    """Whether a file is no domain but JSON that describes some, such as ``dataset_info.json``."""
    _check_regular(path)
    return readers.described_only(path, text_key) is not None


def _check_regular(path: Path) -> None:
    if not path.is_file():
        kind = "a link to no file" if path.is_symlink() else "not a regular file"
        raise UserError(f"{path} is {kind}: move it out of the corpus, or put the file there")
