"""The folder of a store in the making, which somebody else may have put there."""

from __future__ import annotations

import shutil
from pathlib import Path

from dograph.corpus.atomic import write_json
from dograph.corpus.store import PARTIAL
from dograph.corpus.strangers import first_link, read_json_strictly
from dograph.errors import UserError

INPUTS = "inputs.json"


def claim_partial(path: Path, inputs: str) -> Path:
    """The folder to work in: an interrupted run's if it had the same inputs, else an empty one.

    Args:
        path: of the store to be made.
        inputs: digest of what it is made from.

    Raises:
        UserError: if the folder is none of ours, or has links in it.
    """
    partial = path.with_name(path.name + PARTIAL)
    if partial.is_symlink() or partial.exists():
        _check_partial(partial)
        if _inputs_of(partial) != inputs:
            shutil.rmtree(partial)
    write_json(partial / INPUTS, inputs)
    return partial


def _check_partial(partial: Path) -> None:
    """Refuse a folder in which writing or deleting would reach what lies outside it."""
    is_folder = partial.is_dir() and not partial.is_symlink()
    link = first_link(partial, shared=True) if is_folder else partial
    if link is not None:
        raise UserError(
            f"{link} is a link or no plain file: none of ours; move {partial} away, or set "
            "corpus.store to another folder."
        )


def _inputs_of(partial: Path) -> str | None:
    """Digest of what an interrupted preparation was made from; None: the folder is empty."""
    if not any(partial.iterdir()):
        return None
    try:
        inputs = read_json_strictly(partial / INPUTS)
        if isinstance(inputs, str):
            return inputs
        why = "no text"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UserError(
        f"{partial} is not an interrupted preparation of ours ({INPUTS}: {why}); move it away, or "
        "set corpus.store to another folder."
    )
