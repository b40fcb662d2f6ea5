"""A recipe's domain names, checked as soon as its corpus is known."""

from __future__ import annotations

from collections.abc import Sequence

from dograph.data.corpus.manifest import is_store
from dograph.data.corpus.source import open_source
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.section import build
from dograph.files.home import expand_home
from dograph.mixers.target import check_names


def check_domains(recipe: Recipe, store: Store) -> None:
    """Raise UserError for a domain that a corpus lacks: in target, limits, data.unseen or cap."""
    _check(recipe, [entry.name for entry in store.domains])


def check_source_domains(recipe: Recipe) -> None:
    """The same before the corpus is prepared, by its source; one that does not open says nothing.

    A recipe that names no domain needs no look at the source, which may hold many files.
    """
    data = recipe.arguments("data")
    named = recipe.target.mixture or recipe.target.is_worst or data["unseen"] or data["cap"]
    if not (named or recipe.limits.is_set):
        return
    if (names := source_domains(recipe)) is not None:
        _check(recipe, names)


def source_domains(recipe: Recipe) -> list[str] | None:
    """The domains of a corpus by its source; None for one that does not open."""
    try:
        folder = expand_home(recipe.corpus.source, "corpus.source")
        if is_store(folder):
            return [entry.name for entry in Store.open(folder).domains]
        return [*open_source(recipe.corpus).domains(), *recipe.corpus.derivations()]
    except (UserError, OSError):  # preparing it says why
        return None


def _check(recipe: Recipe, names: Sequence[str]) -> None:
    build(recipe.composition, "target", recipe.target.check, {"domains": names})
    for key in ("unseen", "cap"):
        named = list(recipe.arguments("data")[key] or ())
        arguments = {"key": f"data.{key}", "names": named, "domains": names}
        build(recipe.composition, f"data.{key}", check_names, arguments)
    arguments = {"domains": names, "unseen": recipe.arguments("data")["unseen"] or ()}
    build(recipe.composition, "limits", recipe.limits.check, arguments)
