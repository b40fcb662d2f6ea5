"""Sources of text: named domains, each a stream of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from dograph.data.corpus import readers
from dograph.data.corpus.document import document_hash
from dograph.data.corpus.environment import EnvironmentSource
from dograph.data.corpus.manifest import check_domain_name
from dograph.data.corpus.settings import ENVIRONMENT, CorpusSettings
from dograph.errors import UserError, nearest


class Source(Protocol):
    """Documents by domain, in an order that depends only on the source's content."""

    name: str
    default_megabytes: Mapping[str, float]
    """Caps by domain unless the settings give them, in 10⁶ bytes; without one, all is taken."""

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""

    def documents(self, domain: str) -> Iterator[str]:
        """The domain's documents, the same stream each time."""

    def where(self, domain: str) -> str:
        """The place where a user would look for the domain's text."""

    def identity(self) -> list[str]:
        """What the documents depend on, quick to collect: equal lists mean equal documents."""


class FolderSource:
    """A folder in which each sub-folder or file of a known format is a domain.

    Files are read in the order of a hash of their names, so that a cap does not cut a domain down
    to its alphabetically first part. Names that begin with a dot or an underscore, and unknown
    formats, are skipped. Links to files are read, wherever they lead; pipes, devices, broken links
    and names that are unsafe or used twice are refused.
    """

    def __init__(self, folder: Path, text_key: str) -> None:
        if not folder.is_dir():
            raise UserError(
                f"corpus.source is {folder}: it must be 'environment' or a folder with one folder "
                "or file per domain"
            )
        self.name = folder.resolve().name or "corpus"
        self.default_megabytes: Mapping[str, float] = {}
        self._folder, self._text_key = folder, text_key
        self._files: dict[str, list[Path]] = {}
        for entry in sorted(folder.iterdir()):
            self._add(entry)
        if not self._files:
            raise UserError(
                f"corpus.source is {folder}, which holds no domain: put one folder or file per "
                f"domain in it ({_known_formats()})"
            )

    def _add(self, entry: Path) -> None:
        name = entry.name if entry.is_dir() else readers.readable_stem(entry)
        if name is None or entry.name.startswith((".", "_")):
            return
        if not entry.is_dir():
            _check_regular(entry)
        check_domain_name(entry, name)
        if name in self._files:
            raise UserError(f"{entry}: a second source of domain '{name}': rename one of the two")
        self._files[name] = self._inside(entry) if entry.is_dir() else [entry]

    @staticmethod
    def _inside(folder: Path) -> list[Path]:
        files = [
            path
            for path in folder.rglob("*")
            if readers.readable_stem(path) is not None
            and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
            and not path.is_dir()
        ]
        for path in files:
            _check_regular(path)
        return sorted(files, key=lambda path: document_hash(bytes(path.relative_to(folder))))

    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(self._files))

    def documents(self, domain: str) -> Iterator[str]:
        """The documents of the domain's files, one file after the other."""
        for path in self._files[domain]:
            yield from readers.read_documents(path, self._text_key)

    def where(self, domain: str) -> str:
        """The domain's folder or file, and the known formats."""
        files = self._files[domain]
        place = files[0] if len(files) == 1 else self._folder / domain
        return f"{place} ({_known_formats()})"

    def identity(self) -> list[str]:
        """Name, size and modification time of each file; a terabyte takes too long to read."""
        lines = [f"text_key={self._text_key}"]
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
        source = FolderSource(Path(settings.source).expanduser(), settings.text_key)
    if isinstance(settings.megabytes, dict):
        for domain in sorted(settings.megabytes):
            _check_is_domain(source, domain, f"corpus.megabytes names '{domain}'")
    for name, derivation in settings.derivations().items():
        key = f"corpus.derived.{name}"
        if name in source.domains():
            raise UserError(f"{key}: {source.name} has a domain of that name: choose another")
        _check_is_domain(source, derivation.origin, f"{key}.from is '{derivation.origin}'")
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


def _check_regular(path: Path) -> None:
    if not path.is_file():
        kind = "a link to no file" if path.is_symlink() else "not a regular file"
        raise UserError(f"{path} is {kind}: remove it from the corpus, or put the file there")


def _known_formats() -> str:
    plain = ", ".join(readers.JSON_LINES + readers.TEXT)
    return (
        f"{plain}, each also with {' or '.join(readers.COMPRESSIONS)}; {', '.join(readers.PARQUET)}"
    )
