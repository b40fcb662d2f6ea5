"""What a recipe will train on and cost, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dograph.data.corpus.existing_store import find_prepared
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.forecast.probe import seconds_a_step
from dograph.experiments.forecast.run_forecast import RunForecast, forecast_run
from dograph.experiments.plan import Artefacts, Plan, StageRun, has_stand_ins
from dograph.experiments.recipe.check import Recipe, check
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.recipe.domains import check_domains, check_source_domains
from dograph.experiments.recipe.swarm_section import SwarmSettings
from dograph.experiments.stages import LEFT, LEFT_BY_SWARM, find_folder


@dataclass(frozen=True)
class StageForecast:
    """The forecast of a stage, or of a recipe's only run.

    Attributes:
        name: of the stage, or of the recipe.
        rounds: how often the stage runs, at most; of a swarm, its runs.
        is_swarm: whether it is a swarm of runs of fixed mixtures, of which this is one.
        finished: folder of its finished run, which will be used again; None without one.
    """

    name: str
    run: RunForecast
    rounds: int = 1
    finished: Path | None = None
    is_swarm: bool = False

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        finished = None if self.finished is None else str(self.finished)
        own = {"stage": self.name, "rounds": self.rounds, "swarm": self.is_swarm}
        return {**own, "finished": finished, **self.run.as_json()}


@dataclass(frozen=True)
class Forecaster:
    """Forecasts the runs of a recipe.

    Args:
        file: the recipe and its overrides.
        prepares: whether corpora that are not prepared yet are; else they stay unknown.
        measures: whether ten steps of each run are trained, for its seconds.
    """

    file: RecipeFile
    prepares: bool = False
    measures: bool = False

    def stages(self) -> Iterator[StageForecast]:
        """Every stage, in their order.

        Raises:
            UserError: for what `run` would refuse before training.
        """
        if not self.file.stages:
            recipe = check(self.file.compose())
            yield StageForecast(recipe.name, self._run(recipe, *self._store(recipe)))
            return
        plan, done = Plan.make(self.file), dict[str, Artefacts]()
        for place, (stage, checked) in enumerate(plan.recipes.items()):
            store, why = self._store(checked)
            before_are_finished = len(done) == place
            recipe = plan.resolve(StageRun(stage, stage), done) if before_are_finished else checked
            rounds, is_swarm = _rounds(plan, stage), recipe.swarm is not None
            if before_are_finished and store is not None and rounds == 1:
                done |= _finished(plan, stage, done, store)
            folder = done[stage].folder if stage in done else None
            run = self._run(recipe, store, why)
            if recipe.swarm is not None:
                rounds = _swarm_runs(recipe.swarm[0], run)
                run = replace(run, notes=(*run.notes, "the weights are the even mixture's"))
            yield StageForecast(stage, run, rounds, folder, is_swarm)

    def _run(self, recipe: Recipe, store: Store | None, why: str) -> RunForecast:
        forecast = forecast_run(recipe, store)
        if store is None:
            return replace(forecast, notes=(why, *forecast.notes))
        if self.measures and has_stand_ins(recipe):
            unmeasured = "not measured, since it needs what an earlier stage leaves"
            return replace(forecast, notes=(*forecast.notes, unmeasured))
        if self.measures:
            seconds = seconds_a_step(recipe, store, forecast) * forecast.steps
            return replace(forecast, seconds=seconds)
        return forecast

    def _store(self, recipe: Recipe) -> tuple[Store | None, str]:
        """The prepared corpus, or None and why there is none."""
        check_source_domains(recipe)
        store, why = (
            None,
            "the corpus is not prepared, so that its tokens are unknown: add --prepare",
        )
        if self.prepares:
            store = prepare(recipe.corpus)
        else:
            try:
                store = find_prepared(recipe.corpus)
            except UserError as error:
                why = f"the corpus cannot be read: {error}"
        if store is not None:
            check_domains(recipe, store)
        elif self.measures:
            raise UserError(f"--measure trains ten steps, but {why}")
        return store, why


def _rounds(plan: Plan, stage: str) -> int:
    """How often a stage runs, at most."""
    repeated = plan.rounds is not None and stage in plan.rounds.repeat
    return plan.rounds.at_most if plan.rounds is not None and repeated else 1


def _finished(
    plan: Plan, stage: str, done: Mapping[str, Artefacts], store: Store
) -> dict[str, Artefacts]:
    """What the stage's finished run left, by its name; empty without one."""
    inputs = plan.inputs(StageRun(stage, stage), done, store)
    is_swarm = plan.recipes[stage].swarm is not None
    folder = find_folder(plan.folder, stage, inputs, LEFT_BY_SWARM if is_swarm else LEFT)
    made = Artefacts(folder.path, folder.digest, is_swarm)
    return {stage: made} if folder.finished else {}


def _swarm_runs(settings: SwarmSettings, run: RunForecast) -> int:
    """Runs of a swarm; where its domains are not known, without those that depend on them."""
    domains = len(run.domains or ())
    corners = domains if settings.corners and settings.design == "regmix" else 0
    return max(settings.by_rule(domains) + corners + settings.repeats, 1)
