"""In which order stages run, some of them repeated from the mixture that they chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dograph.errors import UserError, check_range
from dograph.experiments.rank_zero import rank_zero_print
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.recipe.section import build, check_section
from dograph.experiments.stage_record import Artefacts


@dataclass(frozen=True)
class Rounds:
    """Stages that are repeated, each round starting from the mixture that the last one chose.

    In every round but the first, the first of the repeated stages draws by the average weights
    of the last of them (iterated DoReMi).
    """

    repeat: list[str]
    """the first to the last stage of a round, e.g. [reference, proxy]."""
    at_most: int = 1
    """maximum number of rounds."""
    tolerance: float = 1e-3
    """stop once no domain's weight differs more from what the round's first stage drew by."""

    def __post_init__(self) -> None:
        check_range("rounds.at_most", self.at_most, at_least=1)
        check_range("rounds.tolerance", self.tolerance, at_least=0)


class StageRun(NamedTuple):
    """One run of a stage."""

    label: str
    """name of the run and its folder: the stage's name, and its round after the first."""
    stage: str
    replaced: Mapping[str, Any] = {}
    """values that replace the recipe's in this run."""


def read_rounds(file: RecipeFile) -> Rounds | None:
    """The recipe's section ``rounds``, checked against its stages; None without one."""
    composition = file.compose()
    given = composition.values.get("rounds")
    if given is None:
        return None
    section = check_section(composition, "rounds", Rounds, given, set())
    rounds: Rounds = build(composition, "rounds", Rounds, section.as_dict())
    places = [file.stages.index(name) for name in rounds.repeat if name in file.stages]
    successive = list(range(places[0], places[0] + len(places))) if places else []
    if not places or len(places) < len(rounds.repeat) or places != successive:
        raise UserError(
            f"{composition.origin('rounds.repeat')}: rounds.repeat is {rounds.repeat}: name "
            f"stages that follow one another among {file.stages}"
        )
    return rounds


def schedule(
    stages: Sequence[str], rounds: Rounds | None, done: Mapping[str, Artefacts]
) -> Iterator[StageRun]:
    """One run after another; the next is known once ``done`` holds the one before."""
    repeated = rounds.repeat if rounds else []
    for stage in stages:
        if stage not in repeated:
            yield StageRun(stage, stage)
        elif rounds is not None and stage == repeated[0]:
            yield from _repeat(rounds, done)


def _repeat(rounds: Rounds, done: Mapping[str, Artefacts]) -> Iterator[StageRun]:
    first, last = rounds.repeat[0], rounds.repeat[-1]
    for count in range(1, rounds.at_most + 1):
        replaced: dict[str, Any] = {}
        if count > 1:
            arguments = {"weights": done[last].weights}
            replaced = {"mixer": {"class_path": "dograph.mixers.Fixed", "init_args": arguments}}
        for stage in rounds.repeat:
            label = stage if count == 1 else f"{stage}_round{count}"
            yield StageRun(label, stage, replaced if stage == first else {})
        moved = largest_move(done[first].weights, done[last].weights)
        if rounds.at_most > 1:
            rank_zero_print(f"round {count}: the largest move of a weight is {moved:.4f}")
        if moved <= rounds.tolerance:
            return


def largest_move(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Largest difference of a domain's weight."""
    return max(abs(after[name] - before[name]) for name in after)
