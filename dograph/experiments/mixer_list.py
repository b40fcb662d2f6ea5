"""What every mixer is, acts on, costs and takes, read from its class and the shipped recipes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from omegaconf import OmegaConf

import dograph.mixers
from dograph.experiments.recipe.shipped import shipped_recipes
from dograph.files.bounded_yaml import load_bounded
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.signals.batch_signals import Probe

PAPER = re.compile(r"(?:\(([^()]*\b(?:19|20)\d\d), )?arXiv (\d{4}\.\d{4,5})")
"""Authors and year where they are named, and the number."""
SWARM = "swarm"
"""In place of the mixer's class, of a stage that is one."""
LIMITS = re.compile(r"floor|^max_|^least$")
"""Names of arguments that bound weights or epochs."""


@dataclass(frozen=True)
class MixerDescription:
    """One mixer, in words.

    Attributes:
        name: of its class; ``class_path`` is what a recipe writes.
        summary: the docstring's first line.
        paper: authors, year and arXiv number as its docstrings have them; None if it has none.
        acts_on: what its weights decide.
        costs: what it needs, by its defaults, beside training's own forward and backward; None if
            it cannot be made without arguments of its own.
        target: whether it follows the run's target.
        limits: names of its arguments that bound weights or epochs.
        recipes: names of the shipped recipes that are about it.
    """

    name: str
    class_path: str
    summary: str
    paper: str | None
    acts_on: str
    costs: str | None
    target: bool
    limits: tuple[str, ...]
    recipes: tuple[str, ...]


def shipped_mixers() -> list[type[BaseMixer]]:
    """The package's own, by name."""
    named = (getattr(dograph.mixers, name) for name in dograph.mixers.__all__)
    classes = [each for each in named if isinstance(each, type) and issubclass(each, BaseMixer)]
    return [each for each in classes if each is not BaseMixer]


def describe_mixers(mixers: Sequence[type[BaseMixer]]) -> list[MixerDescription]:
    """Descriptions in the order of ``mixers``."""
    recipes = _read_recipes()
    return [_describe(mixer, recipes) for mixer in mixers]


def _describe(mixer: type[BaseMixer], recipes: Mapping[str, Any]) -> MixerDescription:
    short = mixer.__module__.startswith("dograph.mixers.")
    module = "dograph.mixers" if short else mixer.__module__
    path = f"{module}.{mixer.__name__}"
    made = _with_defaults(mixer)
    example = made or _without_arguments(mixer)
    about = _recipes_about(example, path, recipes)
    return MixerDescription(
        name=mixer.__name__,
        class_path=path,
        summary=re.sub(r" \(arXiv [\d.]+\)", "", _first_line(mixer.__doc__)),
        paper=_paper(mixer),
        acts_on=_acts_on(example),
        costs=None if made is None else _costs(made, [recipes[name] for name in about]),
        target=_follows_target(example),
        limits=tuple(_limits(mixer)),
        recipes=tuple(about),
    )


def _with_defaults(mixer: type[BaseMixer]) -> BaseMixer | None:
    """A mixer by its defaults, and by empty values where it has none; None if it refuses these."""
    empty: dict[str, Any] = {"str": "", "int": 1, "float": 1.0}
    required = {
        name: empty.get(inspect.formatannotation(parameter.annotation).strip("'"), {})
        for name, parameter in inspect.signature(mixer).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    try:
        return mixer(**required)
    except Exception:  # whatever a user's own class makes of empty values
        return None


def _without_arguments(mixer: type[BaseMixer]) -> BaseMixer:
    """A mixer of which only the class is known: its methods, and what it declares there."""
    plain = mixer.__new__(mixer)
    BaseMixer.__init__(plain)
    return plain


def _first_line(text: str | None) -> str:
    """A docstring's first line, in plain text."""
    return (text or "").strip().partition("\n")[0].replace("``", "")


def _paper(mixer: type[BaseMixer]) -> str | None:
    """Of the class's first line, else of its module's."""
    for text in map(_first_line, (mixer.__doc__, sys.modules[mixer.__module__].__doc__)):
        if named := PAPER.search(text):
            return ", ".join(filter(None, (named[1], f"arXiv {named[2]}")))
    return None


def _acts_on(mixer: BaseMixer) -> str:
    if mixer.is_proxy:
        return "the loss of a proxy, whose average weights a later stage draws by"
    if not mixer.learns:
        return "what is drawn, fixed before the first step"
    ways = {SAMPLING: "what is drawn", LOSS: "how losses count"}
    return " and ".join(text for way, text in ways.items() if mixer.acts(way))


def _costs(mixer: BaseMixer, recipes: Sequence[Sequence[tuple[str, str]]]) -> str:
    """What it requests, and the stages that all of its recipes have."""
    costs = sorted(request.costs for request in mixer.needs)
    if mixer.learns and recipes and all(len(stages) > 1 for stages in recipes):
        costs.append(f"{len(recipes[0])} stages ({', '.join(name for name, _ in recipes[0])})")
    return "; ".join(costs) or "nothing more"


def _follows_target(mixer: BaseMixer) -> bool:
    """Whether its own code reads ``target``, or it probes the target's domains."""
    probe = mixer.request(Probe)
    kinds = type(mixer).__mro__
    own = kinds[: kinds.index(BaseMixer)]
    names = {name for kind in own for code in _codes(kind) for name in code.co_names}
    return "target" in names or (probe is not None and probe.domains is None)


def _codes(kind: type) -> Iterator[CodeType]:
    """The code of a class's methods and properties, with that of functions inside them."""
    for value in vars(kind).values():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        inner = [code] if code else []
        while inner:
            code = inner.pop()
            yield code
            inner += [each for each in code.co_consts if isinstance(each, CodeType)]


def _limits(mixer: type[BaseMixer]) -> Iterator[str]:
    """Arguments that bound weights or epochs, also those within an argument that is a dataclass."""
    for name, parameter in inspect.signature(mixer).parameters.items():
        if LIMITS.search(name):
            yield name
        if dataclasses.is_dataclass(parameter.default):
            fields = dataclasses.fields(parameter.default)
            yield from (f"{name}.{field.name}" for field in fields if LIMITS.search(field.name))


def _read_recipes() -> dict[str, list[tuple[str, str]]]:
    """(stage, class path of its mixer) of each shipped recipe; one of one run has no name.

    The stage of a swarm, which has no mixer, has ``SWARM`` for a class path.
    """
    read = {}
    for recipe, path in shipped_recipes().items():
        values: Any = OmegaConf.to_container(load_bounded(path))
        stages = values.get("stages") or {"": values}
        read[recipe] = [
            (name, SWARM if "swarm" in each else each["mixer"]["class_path"])
            for name, each in stages.items()
        ]
    return read


def _recipes_about(mixer: BaseMixer, path: str, recipes: Mapping[str, Any]) -> list[str]:
    """Recipes with the mixer; of those with stages, where it learns, or nothing does."""
    about = []
    for name, stages in recipes.items():
        classes = [each for _, each in stages]
        if path in classes and (len(stages) == 1 or mixer.learns or SWARM in classes):
            about.append(name)
    return about
