"""Files that are either whole or absent, whenever the power fails."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BESIDE = ".new"
"""End of the names of files that are being written; a killed process leaves them."""
UNFINISHED = re.compile(r"\.[0-9a-f]{16}" + re.escape(BESIDE))


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 beside its place, flush it to the disk, and rename it, in one step.

    If that fails, an earlier file stays as it was, and nothing is left beside it. A link is
    replaced, not its target, which may be outside an untrusted folder.
    """
    write_files({path: text.encode("utf-8")})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """The same for several files: none takes its place until all are on the disk."""
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A name that nobody else has: NAME.new may be the user's own.
            beside = written[path] = path.with_name(f".{secrets.token_hex(8)}{BESIDE}")
            with _error_names(path), beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if path.is_file() and not path.is_symlink():
                    beside.chmod(stat.S_IMODE(path.stat().st_mode))
        for path, beside in written.items():
            with _error_names(path):
                beside.replace(path)
    finally:
        for beside in written.values():
            with suppress(OSError):
                beside.unlink()
    for folder in {path.parent for path in written}:
        flush(folder)


@contextmanager
def _error_names(path: Path) -> Iterator[None]:
    """Let errors name the file that the user knows."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove files that a killed process left half written directly in a folder."""
    for path in folder.glob(f".*{BESIDE}"):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)  # another rank may have been quicker


def write_output(path: Path, text: str) -> None:
    """The same for a file that the user named: a link's target is written, a device or pipe too."""
    if (path.exists() and not path.is_file()) or path.absolute().is_relative_to("/dev"):
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    else:
        write_text(path.resolve(), text)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_text(path, as_text(value))


def as_text(value: Any) -> str:
    """JSON as `write_json` spells it."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> Any:
    """The value that `write_json` wrote; None without the file; a ValueError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if it is missing or damaged."""
    try:
        content = read_json(path)
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            flush(Path(root, name))
        flush(Path(root))


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
