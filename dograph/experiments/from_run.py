"""Starts a recipe's mixture from the weights that a finished run found (``--from RUN``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.rank_zero import rank_zero_print
from dograph.experiments.recipe.check import Recipe, check, check_again
from dograph.experiments.recipe.classes import import_mixer
from dograph.experiments.recipe.compose import Composition
from dograph.experiments.recipe.domains import check_domains, check_source_domains
from dograph.experiments.recipe.section import section_parser
from dograph.files.bounded_yaml import load_bounded
from dograph.files.checksums import file_digest
from dograph.files.run_dir import RECIPE, SUMMARY
from dograph.mixers.fixed import Fixed
from dograph.mixers.phases import Phases
from dograph.mixers.simplex import weights_by_name
from dograph.reports.export import counted_otherwise
from dograph.reports.summary import read_stages, read_summary

Weights = dict[str, float]
FIXED: tuple[str, ...] = ("mixer", "init_args", "weights")
"""Keys of the weights of ``Fixed``."""
LEAST = 1e-9
"""A smaller weight counts as none."""


@dataclass(frozen=True)
class StartMixture:
    """Weights to start from: a run's where it has a domain, the prior where it has not.

    Attributes:
        weights: by domain of the new run's corpus, of sum 1.
        kept: domains that are in both, whose weights keep the run's ratios.
        new: domains that the run was not trained on, whose weights are the prior's.
        gone: domains that the run was trained on and the new one is not.
    """

    weights: Weights
    kept: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def description(self) -> str:
        """What became of the run's domains, in one line."""

        def named(names: Sequence[str]) -> str:
            return ", ".join(f"{name} {self.weights[name]:.4g}" for name in names)

        new = f"; new, at their prior: {named(self.new)}" if self.new else ""
        gone = f"; gone: {', '.join(self.gone)}" if self.gone else ""
        return f"{named(self.kept)} keep its ratios{new}{gone}"


def start_mixture(
    earlier: Mapping[str, float], prior: Mapping[str, float], run: Path
) -> StartMixture:
    """Carry a run's weights over to another corpus.

    New domains get the prior's weights p, all others share the rest by the run's weights w:
    ``(1 − Σ_new p) w_s / Σ_kept w``.

    Args:
        earlier: w by domain that the run was trained on.
        prior: p by domain that is to be trained on, of sum 1.
        run: named in errors.

    Raises:
        UserError: where that is no mixture, or one that hardly any mixer could leave.

    >>> earlier, prior = {"a": 0.3, "b": 0.1, "c": 0.6}, {"a": 0.4, "b": 0.4, "d": 0.2}
    >>> mixture = start_mixture(earlier, prior, Path("runs/old/seed_0"))
    >>> {name: round(weight, 6) for name, weight in mixture.weights.items()}
    {'a': 0.6, 'b': 0.2, 'd': 0.2}
    """
    kept = tuple(name for name in prior if name in earlier)
    new = tuple(name for name in prior if name not in earlier)
    gone = tuple(name for name in earlier if name not in prior)
    if not kept:
        raise UserError(
            f"{run} was trained on {', '.join(earlier)}, this recipe trains on {', '.join(new)}: "
            "they share no domain whose weight could be kept: leave --from out"
        )
    by_hand = "give the mixer its prior or weights by name, and leave --from out"
    total = math.fsum(earlier[name] for name in kept)
    drawn = [name for name in kept if earlier[name] > LEAST]
    if not drawn:
        raise UserError(f"{run} gave no weight to {', '.join(kept)}, all that is left: {by_hand}")
    if len(drawn) == 1 < len(kept):
        raise UserError(
            f"{run} found {drawn[0]} alone: {', '.join(n for n in kept if n not in drawn)} would "
            f"start at 0, where most mixers leave a weight: {by_hand}"
        )
    rest = 1 - math.fsum(prior[name] for name in new)
    if rest < LEAST:
        raise UserError(
            f"the prior gives the new domains {', '.join(new)} all weight, and nothing is left for "
            f"what {run} found: lower it"
        )
    weights = {name: prior[name] if name in new else rest * earlier[name] / total for name in prior}
    return StartMixture(weights, kept, new, gone)


def found_weights(run: Path) -> Weights:
    """A finished run's average weights, by domain that it was trained on.

    Args:
        run: its folder; of a recipe with stages, the last stage's weights count.

    Raises:
        UserError: if the folder holds no finished run.
    """
    stages = read_stages(run)
    path = (stages[-1][1] if stages else run) / RECIPE
    data = load_bounded(path).get("data") if path.is_file() else None
    unseen = list((data or {}).get("unseen") or ())
    weights = {domain.name: domain.average_weight for domain in read_summary(run).domains}
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UserError(f"{run / SUMMARY} is damaged: the weight of {name} is {weight}")
    return {name: weight for name, weight in weights.items() if name not in unseen}


def start_from(composition: Composition, run: Path) -> Recipe:
    """A checked recipe whose mixer starts from a run's weights; prepares the corpus.

    The start weights are the mixer's ``prior``, or ``weights`` of ``Fixed``: part of the recipe as
    if they had been written there, so that the run is resumed, reproduced and compared by them.

    Args:
        composition: the recipe's values.
        run: folder of a finished run, or its ``summary.json``.

    Raises:
        UserError: for a mixer without start weights, and as ``start_mixture``.
    """
    run = run.parent if run.name == SUMMARY else run
    earlier = found_weights(run)
    first = composition.values.get("mixer") or {}
    if is_unnamed(composition, first):
        composition = _with(composition, FIXED, earlier, run)  # until the corpus is known
        named, recipe = None, check(composition)
        path = FIXED
    else:
        recipe = check(composition)
        path = weights_path(composition, first, ("mixer",))
        named = _value(composition.values, path)
    check_source_domains(recipe)
    store = prepare(recipe.corpus)
    check_domains(recipe, store)
    start = start_mixture(earlier, _prior(recipe, path, named, store), run)
    if (counted := counted_otherwise(run)) is not None:
        rank_zero_print(f"Note: {run}: {counted}")
    rank_zero_print(f"starts from {run}: {start.description}")
    record = {
        "run": str(run),
        "summary": file_digest(run / SUMMARY),
        "weights": earlier,
        **{key: list(getattr(start, key)) for key in ("kept", "new", "gone")},
    }
    started = check_again(recipe, _with(composition, path, start.weights, run))
    return replace(started, started_from=record)


def is_unnamed(composition: Composition, mixer: Any) -> bool:
    """Whether a recipe's mixer is ``Fixed`` without weights, which only a run can give."""
    if not isinstance(mixer, Mapping) or "class_path" not in mixer:
        return False
    builds = import_mixer(str(mixer["class_path"]), composition.origin("mixer.class_path"))
    return issubclass(builds, Fixed) and not (mixer.get("init_args") or {}).get("weights")


def weights_path(
    composition: Composition, mixer: Mapping[str, Any], above: tuple[str, ...]
) -> tuple[str, ...]:
    """The keys under which a recipe sets the weights that its mixer starts from.

    Args:
        composition: the recipe's values.
        mixer: the value at ``above``, a class with its arguments.
        above: keys of the mixer.
    """
    key = ".".join(above)
    builds = import_mixer(str(mixer["class_path"]), composition.origin(f"{key}.class_path"))
    given = mixer.get("init_args") or {}
    if issubclass(builds, Fixed):
        return (*above, "init_args", "weights")
    if issubclass(builds, Phases):
        phases, inner = given.get("phases") or [{}], given.get("mixer")
        where = f"{key}.init_args"
        if phases[0].get("weights"):
            raise composition.error(f"{where}.phases", "states the first mixture: leave --from out")
        if inner is None:
            remedy = "name one with a prior, or leave --from out"
            raise composition.error(f"{where}.mixer", f"is not set: {remedy}")
        return weights_path(composition, inner, (*above, "init_args", "mixer"))
    if "prior" in section_parser(builds, set()).get_defaults().get("section", {}):
        return (*above, "init_args", "prior")
    raise composition.error(
        f"{key}.class_path",
        f"is {mixer['class_path']}, which has no weights to start from (no argument prior): to "
        f"draw by the run's, set {key}.class_path=dograph.mixers.Fixed, or leave --from out",
    )


def _prior(
    recipe: Recipe, path: tuple[str, ...], named: Mapping[str, float] | None, store: Store
) -> Weights:
    """The recipe's own weights to start from, by domain that is trained on."""
    data, domains = recipe.arguments("data"), [entry.name for entry in store.domains]
    unseen, cap = data["unseen"] or (), data["cap"] or {}
    if named:
        weights = weights_by_name(named, domains, ".".join(path), unseen)
    else:
        mixer = recipe.mixer
        for _ in range(path.count("mixer") - 1):
            assert isinstance(mixer, Phases)
            mixer = mixer.mixer
        mixer.domains = tuple(domains)
        mixer.domain_tokens = tuple(
            min(entry.train_tokens, cap.get(entry.name, entry.train_tokens))
            for entry in store.domains
        )
        weights = mixer.default_prior()
    values = dict(zip(domains, weights.tolist(), strict=True))
    total = math.fsum(weight for name, weight in values.items() if name not in unseen)
    if not total > 0:
        raise recipe.composition.error(".".join(path), "gives weight to data.unseen alone")
    return {name: weight / total for name, weight in values.items() if name not in unseen}


def _value(values: Any, path: Sequence[str]) -> Any:
    """What nested mappings hold under some keys; None if one is not set."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _with(
    composition: Composition, path: Sequence[str], weights: Weights, run: Path
) -> Composition:
    """The same values but for the start weights, whose origin is the option."""
    values: dict[str, Any] = deepcopy(composition.values)
    own: Any = dict(weights)
    for key in reversed(path):
        own = {key: own}
    inner = values
    for key in path[:-1]:
        inner[key] = dict(inner.get(key) or {})
        inner = inner[key]
    inner[path[-1]] = dict(weights)
    parts = [(f"--from {run}", OmegaConf.create(own)), *composition.parts]
    return Composition(values, parts)
