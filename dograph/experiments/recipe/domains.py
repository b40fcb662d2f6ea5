"""A recipe's domain names, checked once its corpus is known."""

from __future__ import annotations

from dograph.data.corpus.store import Store
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.section import build
from dograph.mixers.target import check_names


def check_domains(recipe: Recipe, store: Store) -> None:
    """Raise UserError where target, data.unseen or data.cap names a domain that a corpus lacks."""
    names = [entry.name for entry in store.domains]
    build(recipe.composition, "target", recipe.target.check, {"domains": names})
    for key in ("unseen", "cap"):
        named = list(recipe.arguments("data")[key] or ())
        arguments = {"key": f"data.{key}", "names": named, "domains": names}
        build(recipe.composition, f"data.{key}", check_names, arguments)
