"""Where a run happens: in a free folder, or in that of the same run, which is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, count
from pathlib import Path

from dograph.errors import UserError, file_errors
from dograph.experiments.rank_zero import is_rank_zero
from dograph.experiments.run_inputs import RunInputs
from dograph.files.atomic import remove_unfinished
from dograph.files.lock import exclusive, holder
from dograph.files.run_dir import EVENT_FILES, FINAL_CHECKPOINT, LOCK, RECIPE, SUMMARY, seed_dir
from dograph.training.checkpoint_reader import newest_sound, steps_done
from dograph.training.checkpoint_writer import remove_partial

LEFT = (SUMMARY, str(FINAL_CHECKPOINT))
"""Files that a finished run leaves."""
RESUMES = "run the same command again: it resumes from its newest checkpoint"


@contextmanager
def open_run(folder: Path, steps: int) -> Iterator[Path | None]:
    """Hold a run's folder, and remove what a killed process left half written in it.

    Yields the newest sound checkpoint before ``steps``, from which to resume; None without one.

    Raises:
        UserError: if another process runs in the folder, a link leads out of it, all of its
            checkpoints are damaged, or the system refuses a file.
    """
    with file_errors(folder, "runs", RESUMES), claimed(folder):
        check_inside(folder)
        remove_partial(folder)
        remove_unfinished(folder)
        yield newest_sound(folder, below=steps)


@contextmanager
def claimed(folder: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a run's or experiment's folder, on rank zero, which starts the others in the block.

    If another process runs in it, ``on_wait`` is called before waiting; without one, it is refused.
    """

    def refuse() -> None:
        raise UserError(
            f"{folder}: {holder(folder / LOCK)} is running this; wait for it, or choose another "
            "name or seed"
        )

    with exclusive(folder / LOCK, on_wait or refuse) if is_rank_zero() else nullcontext():
        yield


def check_inside(folder: Path) -> None:
    """Refuse a symbolic link that leads out of a run's folder, which may be untrusted."""
    home = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(
                f"{path}: a link that leads out of the run's folder to {path.resolve()}: put the "
                "files themselves there, or set runs to another folder"
            )


def check_resumable(folder: Path, steps: int) -> None:
    """Check that a folder holds a checkpoint from which a run of ``steps`` can be resumed."""
    checkpoint = newest_sound(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: no checkpoint in its folder checkpoints, nothing to resume")
    if (done := steps_done(checkpoint)) >= steps:
        raise UserError(
            f"{checkpoint}: this run has done its {done} steps: raise trainer.max_steps to resume"
        )


def is_finished(folder: Path) -> bool:
    """Whether a folder has everything that a finished run leaves."""
    return all((folder / name).exists() for name in LEFT)


def runs_of_seed(parent: Path, seed: int) -> list[Path]:
    """``seed_S``, ``seed_S_1`` …, whatever they hold."""
    first = seed_dir(parent, seed)
    return [first, *sorted(parent.glob(f"{first.name}_*"))]


def same_runs(parent: Path, seed: int, inputs: RunInputs) -> list[Path]:
    """``seed_S``, ``seed_S_1`` … that hold a run with these inputs."""
    return [folder for folder in runs_of_seed(parent, seed) if inputs.is_of(folder)]


def place_for(parent: Path, seed: int, inputs: RunInputs) -> Path:
    """The folder of the same run if that is unfinished, else a free one."""
    unfinished = (folder for folder in same_runs(parent, seed, inputs) if not is_finished(folder))
    return next(unfinished, None) or free_folder(seed_dir(parent, seed))


def free_folder(folder: Path) -> Path:
    """The folder itself, or the first of ``folder_1``, ``folder_2`` … in which no run began."""
    others = (folder.with_name(f"{folder.name}_{number}") for number in count(1))
    return next(path for path in chain([folder], others) if is_free(path))


def is_free(folder: Path) -> bool:
    """Whether no run began in a folder.

    A run begins when it writes its provenance; what it leaves before does not count.
    """
    return not folder.exists() or all(
        path.name in (LOCK, RECIPE) or path.match("*.new") or path.match(EVENT_FILES)
        for path in folder.iterdir()
    )
