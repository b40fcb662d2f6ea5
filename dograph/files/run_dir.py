"""The layout of a run directory, ``RUNS/NAME/seed_SEED[/STAGE]``: every file name, once."""

from __future__ import annotations

from pathlib import Path

RECIPE = "recipe.yaml"
"""The resolved recipe."""
PROVENANCE = "provenance.json"
"""Corpus, commit, versions and host."""
HISTORY = "history.json"
"""Every validation and every update of the weights."""
SUMMARY = "summary.json"
"""The finished run's numbers; of an experiment with stages, its last stage's and all costs."""
STAGE = "stage.json"
"""A stage's inputs, and whether it is finished."""
ORACLE = "oracle.json"
"""The best fixed mixture, in the folder above its validated runs."""
OF_ORACLE = "_oracle"
"""End of the name of an oracle's validated runs."""
MIXTURES = "mixtures"
"""Folder of all other runs of an oracle, beside its validated ones."""
EARLIER = "earlier_optimum"
"""Folder below it of validated runs of an optimum that another one replaced."""
FIT = "fit.json"
"""A mixing law's errors and the mixture that it proposes."""
TASKS = "tasks.json"
"""Results of downstream tasks."""
NON_FINITE = "non_finite.json"
"""The documents behind steps that were skipped in a row; ``rank_1_non_finite.json`` for rank 1."""
CHECKPOINTS = "checkpoints"
"""Folder of all checkpoints."""
FINAL_CHECKPOINT = Path(CHECKPOINTS, "final.ckpt")
"""The checkpoint that a finished run leaves."""
FIGURES = "figures"
"""Folder of the pictures, as PNG."""
REPRODUCED = "reproduced"
"""Folder of a reproduction inside the run's; ``reproduced_1`` for the second, and so on."""
LOCK = ".lock"
"""Held while a process runs in the directory."""
EVENT_FILES = "events.out.tfevents.*"
"""TensorBoard's files."""


def seed_dir(experiment: Path, seed: int) -> Path:
    """The directory of one seed's run, or of its stages: ``experiment/seed_SEED``."""
    return experiment / f"seed_{seed}"
