"""A finished run once more: are its losses the same, to the bit?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dograph.data.corpus.manifest import MANIFEST
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.provenance import (
    VERSIONS_OF,
    host_facts,
    own_commit,
    read_facts,
    version_of,
)
from dograph.experiments.recipe.check import Recipe, check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import check_buildable, train
from dograph.experiments.run_folder import claimed, free_folder
from dograph.files.run_dir import PROVENANCE, RECIPE, REPRODUCED
from dograph.reports.history import MixtureHistory
from dograph.reports.summary import read_stages, read_summary


@dataclass(frozen=True)
class Reproduction:
    """How a run compares with itself.

    Attributes:
        folder: of the run.
        again: of the reproduction.
        largest: difference of a validation loss in nats; 0 where all agree to the bit, infinite
            where there are not as many validations.
        differing: what is not the same to the bit: names of losses, weights and shares.
        changed: facts in which the hosts and versions differ, "name: before → now".
    """

    folder: Path
    again: Path
    largest: float
    differing: tuple[str, ...]
    changed: tuple[str, ...] = field(default=())

    @property
    def agrees(self) -> bool:
        """Whether every loss of every validation, and every weight, is the same to the bit."""
        return not self.differing


def runs_of(folder: Path) -> list[Path]:
    """The run in a folder; of an experiment, the runs of all its stages.

    Raises:
        UserError: if there is no finished run.
    """
    if (folder / RECIPE).is_file():
        read_summary(folder)
        return [folder]
    stages = read_stages(folder) if folder.is_dir() else []
    if not stages:
        raise UserError(f"{folder}: no finished run; name a folder such as runs/NAME/seed_0")
    return [inner for _, inner in stages]


def reproduce(folder: Path) -> Reproduction:
    """Runs a finished run again by its resolved recipe, in a folder inside its own.

    The number of threads is the run's own. A stage reads the recorded artefacts of the stages
    before it, so that stages that all agree make an experiment that agrees.

    Raises:
        UserError: if the run is not finished, or its corpus is no longer what it was.
    """
    facts, summary = read_facts(folder), read_summary(folder)
    history = MixtureHistory.read(folder)
    if facts.get("gone_on_with"):
        raise UserError(
            f"{folder}: this run was gone on with under another recipe (see gone_on_with in "
            f"{folder / PROVENANCE}): it cannot be run again as one"
        )
    recipe = check(compose(folder / RECIPE, _recorded_store(facts)))
    check_buildable(recipe)
    store = _same_corpus(recipe, facts, folder)
    again = free_folder(folder, REPRODUCED)
    with on_threads(_threads(facts)), claimed(again):
        train(recipe, store, again)
        changed = tuple(_changed(facts))
    before = {**history.outcome(), "final": _final(summary.as_json())}
    after = {**MixtureHistory.read(again).outcome(), "final": _final(read_summary(again).as_json())}
    return Reproduction(
        folder,
        again,
        _largest(history, MixtureHistory.read(again)),
        tuple(_differences(before, after)),
        changed,
    )


def _threads(facts: Mapping[str, Any]) -> int:
    """The run's; this process's own for a run of before they were recorded."""
    recorded = (facts.get("host") or {}).get("threads")
    return recorded if isinstance(recorded, int) and recorded > 0 else torch.get_num_threads()


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Inside the block torch computes on so many threads: sums are rounded by their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _recorded_store(facts: Mapping[str, Any]) -> list[str]:
    """An override that reads the run's own store, if it is still there.

    A source such as the installed packages may have changed since; the tokens have not.
    """
    path = Path(facts["corpus"])
    return [f"corpus.source={path}"] if (path / MANIFEST).is_file() else []


def _same_corpus(recipe: Recipe, facts: Mapping[str, Any], folder: Path) -> Store:
    """The prepared corpus; raises UserError where it is no longer the run's."""
    store = prepare(recipe.corpus)
    if store.fingerprint != facts["fingerprint"]:
        raise UserError(
            f"{store.path}: the corpus is no longer what {folder} was trained on (fingerprint "
            f"{store.fingerprint}, it was {facts['fingerprint']}); its store was {facts['corpus']}"
        )
    return store


def _final(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"losses": content["losses"], "weights": content["weights"]}


def _largest(before: MixtureHistory, after: MixtureHistory) -> float:
    if len(before.validations) != len(after.validations):
        return math.inf
    pairs = zip(before.validations, after.validations, strict=True)
    gaps = [abs(a.losses[n] - b.losses.get(n, float("inf"))) for a, b in pairs for n in a.losses]
    return max(gaps, default=0.0)


def _differences(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Dotted names in which two values of JSON's types differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key), after.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{name}[{index}]")
    elif repr(before) != repr(after):  # so that NaN is like NaN, and −0 unlike 0
        yield name


def _changed(facts: Mapping[str, Any]) -> Iterator[str]:
    now: dict[str, Any] = {
        "commit": own_commit(),
        **{f"version of {name}": version_of(name) for name in VERSIONS_OF},
        **host_facts(),
    }
    recorded = facts.get("versions") or {}
    versions = {f"version of {name}": value for name, value in recorded.items()}
    before = {"commit": facts.get("commit"), **versions, **(facts.get("host") or {})}
    for name, value in now.items():
        if before.get(name) != value:
            yield f"{name}: {before.get(name)} → {value}"
