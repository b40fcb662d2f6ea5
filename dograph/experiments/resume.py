"""Resuming under a changed recipe or corpus: what takes effect, what is refused, what is noted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dograph.data.corpus.store import find_store
from dograph.errors import UserError
from dograph.experiments.corpus_changes import corpus_changes
from dograph.experiments.open_run import is_finished, runs_of_seed
from dograph.experiments.provenance import latest_recipe, package_changes, read_provenance
from dograph.experiments.rank_zero import rank_zero_print
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.compose import contains
from dograph.experiments.recipe.keys import filled, verdicts
from dograph.experiments.run_inputs import PRETRAINED, REFERENCE, RunInputs
from dograph.files.changes import Changes, described, key_changes
from dograph.files.run_dir import PROVENANCE, RECIPE
from dograph.training.checkpoint_reader import newest_checkpoints

OF_CORPUS = ("corpus", "chunks")
"""Keys of a run's inputs that tell that its store holds something else."""
PROCESSES = ("trainer.devices", "trainer.num_nodes")


def fixed_keys(changes: Changes) -> list[str]:
    """The changed keys whose old values a checkpoint's state holds: a resume cannot change them."""
    fixed = [key for key in changes if key in OF_CORPUS or not _may_change(key)]
    if any(key in changes for key in PROCESSES):
        # Over more processes a smaller batch each is the same global batch, which is checked later.
        fixed = [key for key in fixed if key != "data.batch_size"]
    return fixed


def _may_change(key: str) -> bool:
    """Whether another value takes effect at a resume; code and a reference model always do."""
    if key.startswith(("mixer code", REFERENCE, PRETRAINED)):
        return True
    try:
        return verdicts(key).may_change
    except KeyError:  # an earlier version's key
        return False


def check_keys(folder: Path, recipe: Recipe) -> None:
    """Refuse to resume a run under values that would not take effect, before anything is prepared.

    Raises:
        UserError: naming each such key with both values.
    """
    if not all((folder / name).is_file() for name in (RECIPE, PROVENANCE)):
        rank_zero_print(f"{folder} has no {RECIPE}: what has changed since it began is not checked")
        return
    before = latest_recipe(folder, read_provenance(folder))
    changes = key_changes(filled(before), filled(recipe.composition.values))
    if fixed := fixed_keys(changes):
        origin = _origin(recipe, fixed[0])
        refused = described({key: changes[key] for key in fixed})
        raise UserError(
            f"{origin}: {refused} cannot change in {folder}, whose checkpoints hold what was made "
            "by the old value: resume with that, or start a new run, without --resume"
        )


def _origin(recipe: Recipe, key: str) -> str:
    """Where a key was set, or else the mapping above it that no longer holds it."""
    parts = [part for _, part in recipe.composition.parts]
    while "." in key and not any(contains(part, key) for part in parts):
        key = key.rpartition(".")[0]
    return recipe.composition.origin(key)


def check_inputs(folder: Path, inputs: RunInputs) -> None:
    """Refuse to resume a run on another corpus; print what else differs and takes effect.

    Raises:
        UserError: naming the domains that differ.
    """
    if not (folder / PROVENANCE).is_file():
        return
    provenance = read_provenance(folder)
    changes = inputs.changes_since(folder, provenance)
    if any(key in changes for key in OF_CORPUS):
        raise UserError(
            f"{folder}: the corpus is no longer what this run was trained on: "
            f"{_corpus_changes(folder, provenance, inputs)}. Its checkpoint's place in the corpus "
            f"and its token ids belong to the old one: {_corpus_remedy(provenance)}, or start a "
            "new run on the new corpus, without --resume (--from takes a finished run's mixture)"
        )
    if changes:
        rank_zero_print(f"{folder} resumes under another recipe: {described(changes)}")


def note_packages(folder: Path) -> None:
    """Print in what commit and versions differ from those that a run to be resumed recorded."""
    if (folder / PROVENANCE).is_file() and (other := [*package_changes(read_provenance(folder))]):
        rank_zero_print(f"{folder} resumes with other packages: {'; '.join(other)}")


def passed_over(parent: Path, seed: int, inputs: RunInputs) -> list[str]:
    """Say of every unfinished run of this seed in what it differs, and how to resume it.

    A run without a checkpoint has nothing to lose and is left out.
    """
    sentences = []
    for folder in runs_of_seed(parent, seed):
        checkpoints = newest_checkpoints(folder)
        if checkpoints and not is_finished(folder) and not inputs.is_of(folder):
            unfinished = f"{folder} is unfinished ({checkpoints[0].stem}) and not resumed"
            try:
                sentences.append(f"{unfinished}, since it {_why(folder, inputs)}")
            except UserError as error:
                sentences.append(f"{unfinished}: {error}")
    return sentences


def _why(folder: Path, inputs: RunInputs) -> str:
    """In what an unfinished run differs, and how to resume it."""
    provenance = read_provenance(folder)
    changes = inputs.changes_since(folder, provenance)
    keys = {key: change for key, change in changes.items() if key not in OF_CORPUS}
    other_corpus = len(keys) < len(changes)
    differs = [described(keys)] if keys else []
    if other_corpus:
        differs.append(f"its corpus: {_corpus_changes(folder, provenance, inputs)}")
    fixed = fixed_keys(keys)
    remedies = [f"give {', '.join(fixed)} the old value"] if fixed else []
    remedies += [_corpus_remedy(provenance)] if other_corpus else []
    resume = f"add --resume {shlex.quote(str(folder))}"
    if not changes:
        return f"was once resumed under another recipe; to resume it, {resume}"
    return f"differs in {'; '.join(differs)}; to resume it, {' and '.join([*remedies, resume])}"


def _corpus_changes(folder: Path, provenance: Mapping[str, Any], inputs: RunInputs) -> str:
    """Domains, and keys of ``corpus``, that differ from a recorded run's."""
    before, now = filled(latest_recipe(folder, provenance)), filled(inputs.values)
    keys = {k: v for k, v in key_changes(before, now).items() if k.startswith("corpus.")}
    domains = corpus_changes(provenance, inputs.store)
    return f"{domains}; {described(keys)}" if keys else domains


def _corpus_remedy(provenance: Mapping[str, Any]) -> str:
    """How a run's own corpus is to be had again."""
    recorded = Path(str(provenance["corpus"]))
    if store := find_store(recorded, provenance["fingerprint"]):
        return f"set corpus.source={store}, the store of the old corpus"
    return f"put back the text and settings that {recorded} was prepared from"
