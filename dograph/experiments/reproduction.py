"""Runs a finished run again: are its losses equal to the bit?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store, find_store
from dograph.errors import UserError
from dograph.experiments import provenance as origin
from dograph.experiments.open_run import claimed, free_folder
from dograph.experiments.recipe.check import Recipe, check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import train
from dograph.files.atomic import read_mapping
from dograph.files.changes import midway_changes
from dograph.files.run_dir import RECIPE, REPRODUCED, SUMMARY
from dograph.reports.history import MixtureHistory
from dograph.reports.summary import read_stages, read_summary


@dataclass(frozen=True)
class Reproduction:
    """A run compared with its reproduction."""

    folder: Path
    """folder of the run."""
    again: Path
    """folder of the reproduction."""
    largest: float
    """largest difference of a validation loss, nats; 0 if all are equal to the bit, infinite if the
    numbers of validations differ."""
    differing: tuple[str, ...]
    """names of losses, weights and shares that are not equal to the bit."""
    changed: tuple[str, ...] = ()
    """how host and versions differ, "name: before → now"."""

    @property
    def agrees(self) -> bool:
        """Whether every loss of every validation and every weight is equal to the bit."""
        return not self.differing

    @property
    def verdict(self) -> str:
        """Whether the run agrees, and if not, in what and how far it differs."""
        if self.agrees:
            return "the same to the bit: every validation loss, weight and share"
        more = len(self.differing) - 5
        names = ", ".join(self.differing[:5]) + (f" and {more} more" if more > 0 else "")
        distance = f"losses differ by up to {self.largest:.3g} nats"
        if math.isinf(self.largest):
            distance = "the numbers of validations differ"
        return f"NOT the same: {distance} ({names})"


def runs_of(folder: Path) -> list[Path]:
    """The run in a folder, or the runs of all stages of an experiment, a swarm's one by one."""
    if (folder / RECIPE).is_file():
        read_summary(folder)
        return _members(folder) or [folder]
    stages = read_stages(folder) if folder.is_dir() else []
    if not stages:
        raise UserError(f"{folder}: no finished run: name a folder such as runs/NAME/seed_0")
    return [run for _, inner in stages for run in runs_of(inner)]


def _members(folder: Path) -> list[Path]:
    """The runs of a swarm, which its summary names; none for any other run."""
    named = read_mapping(folder / SUMMARY).get("runs", [])
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise UserError(f"{folder / SUMMARY} is damaged: runs must be a list of folders")
    runs, home = [folder.parent / each for each in named], folder.parent.resolve()
    for run in runs:  # a reproduction is written there
        if not run.resolve().is_relative_to(home):
            raise UserError(f"{folder / SUMMARY}: runs names {run}, which is outside {home}")
    return runs


def reproduce(folder: Path) -> Reproduction:
    """Run a finished run again by its resolved recipe, in a folder inside its own.

    It computes on as many threads as the run did. A stage reads the recorded artefacts of the
    stages before it, so that stages that all agree make an experiment that agrees.

    Raises:
        UserError: if the run is not finished, or its corpus has changed.
    """
    provenance, before = origin.read_provenance(folder), _outcome(folder)
    if (midway := midway_changes(folder, provenance)) is not None:
        raise UserError(
            f"{folder}: this run was resumed under another recipe ({midway}): it cannot be "
            "reproduced by one"
        )
    recipe = check(compose(folder / RECIPE, _recorded_store(provenance)))
    store = _same_corpus(recipe, provenance, folder)
    again = free_folder(folder / REPRODUCED)
    with _on_threads_of(provenance), claimed(again):
        train(recipe, store, again)
        changed = tuple(_changed(provenance))
    largest = _largest(MixtureHistory.read(folder), MixtureHistory.read(again))
    differing = tuple(_differences(before, _outcome(again)))
    return Reproduction(folder, again, largest, differing, changed)


def _outcome(folder: Path) -> dict[str, Any]:
    """The numbers of a finished run that must not change."""
    summary = read_summary(folder).as_json()
    final = {"losses": summary["losses"], "weights": summary["weights"]}
    return {**MixtureHistory.read(folder).outcome(), "final": final}


@contextmanager
def _on_threads_of(provenance: Mapping[str, Any]) -> Iterator[None]:
    """Compute on the run's number of threads, if recorded: it decides how sums are rounded."""
    before = torch.get_num_threads()
    recorded = (provenance.get("host") or {}).get("threads")
    torch.set_num_threads(recorded if isinstance(recorded, int) and recorded > 0 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _recorded_store(provenance: Mapping[str, Any]) -> list[str]:
    """An override that reads the run's own store, if it, or an equal one, still exists.

    A source such as the installed packages may have changed since; the tokens have not.
    """
    path = find_store(Path(provenance["corpus"]), provenance["fingerprint"])
    return [f"corpus.source={path}"] if path is not None else []


def _same_corpus(recipe: Recipe, provenance: Mapping[str, Any], folder: Path) -> Store:
    """Prepare the corpus; raise UserError if it is no longer the run's."""
    store = prepare(recipe.corpus)
    if store.fingerprint != (trained_on := provenance["fingerprint"]):
        raise UserError(
            f"{store.path}: the corpus is no longer what {folder} was trained on (fingerprint "
            f"{store.fingerprint}, it was {trained_on}): put back the store {provenance['corpus']}"
        )
    return store


def _largest(before: MixtureHistory, after: MixtureHistory) -> float:
    if len(before.validations) != len(after.validations):
        return math.inf
    pairs = zip(before.validations, after.validations, strict=True)
    gaps = [abs(a.losses[n] - b.losses.get(n, float("inf"))) for a, b in pairs for n in a.losses]
    return max(gaps, default=0.0)


def _differences(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Dotted names in which two JSON values differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key), after.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{name}[{index}]")
    elif repr(before) != repr(after):  # so that NaN equals NaN, and −0 differs from 0
        yield name


def _changed(provenance: Mapping[str, Any]) -> Iterator[str]:
    """How versions and host differ from those of a run."""
    yield from origin.package_changes(provenance)
    host = provenance.get("host") or {}
    for name, now in origin.host_metadata().items():
        if host.get(name) != now:
            yield f"{name}: {host.get(name)} → {now}"
