"""Where a run happens: a free folder, or that of the same run, which is gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dograph.errors import UserError
from dograph.experiments.provenance import read_facts
from dograph.files.lock import exclusive, holder
from dograph.files.run_dir import EVENT_FILES, FINAL_CHECKPOINT, LOCK, PROVENANCE, RECIPE, SUMMARY
from dograph.training.checkpoint import newest_sound, steps_done


def is_first_rank() -> bool:
    """Whether this process writes for all ranks; the others come to be under it."""
    return getattr(rank_zero_only, "rank", 0) == 0


def is_finished(folder: Path) -> bool:
    """Whether a run left all that it leaves."""
    return (folder / SUMMARY).is_file() and (folder / FINAL_CHECKPOINT).exists()


def same_runs(parent: Path, seed: int, digest: str) -> list[Path]:
    """``seed_S``, ``seed_S_1`` … in which just this run began, by what decides its numbers."""
    places = [parent / f"seed_{seed}", *sorted(parent.glob(f"seed_{seed}_*"))]
    return [place for place in places if _digest(place) == digest]


def place_for(parent: Path, seed: int, digest: str) -> Path:
    """The folder of the same run where it is not finished, else a free one."""
    unfinished = (place for place in same_runs(parent, seed, digest) if not is_finished(place))
    return next(unfinished, None) or free_folder(parent, f"seed_{seed}")


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of ``name_1``, ``name_2`` … in which nothing has begun."""
    folder, count = parent / name, 0
    while not is_free(folder):
        count += 1
        folder = parent / f"{name}_{count}"
    return folder


def is_free(folder: Path) -> bool:
    """Whether nothing has begun in a folder.

    A start that ended before it could write where its run came from has begun nothing.
    """
    return not folder.exists() or all(
        path.name in (LOCK, RECIPE) or path.match("*.new") or path.match(EVENT_FILES)
        for path in folder.iterdir()
    )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a run's folder; on rank zero only, which the other ranks come to be under.

    Raises:
        UserError: if another process runs in it.
    """

    def refuse() -> None:
        raise UserError(
            f"{folder}: {holder(folder / LOCK)} is running this; wait for it, or choose another "
            "name or seed"
        )

    if not is_first_rank():
        yield
        return
    with exclusive(folder / LOCK, refuse):
        yield


def check_inside(folder: Path) -> None:
    """Checks that what a run writes to stays in its folder.

    Raises:
        UserError: for a symbolic link in it that leads elsewhere, which a stranger may have made.
    """
    home = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(
                f"{path}: a link that leads out of the run's folder to {path.resolve()}: put the "
                "files themselves there, or set runs to where they shall go"
            )


def checkpoint_to_resume(folder: Path, steps: int) -> Path:
    """The newest sound checkpoint of a run that is named to be gone on with.

    Raises:
        UserError: if there is none that is whole, or it has done all of ``steps``.
    """
    checkpoint = newest_sound(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: no checkpoint in its folder checkpoints, nothing to resume")
    done = steps_done(checkpoint)
    if done >= steps:
        raise UserError(
            f"{checkpoint}: this run has done its {done} steps: raise trainer.max_steps to go on"
        )
    return checkpoint


def _digest(folder: Path) -> object:
    if not (folder / PROVENANCE).is_file():
        return None
    try:
        return read_facts(folder).get("digest")
    except UserError:  # a damaged record is nobody's run
        return None
