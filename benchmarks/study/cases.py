"""What the study compares: cases, methods and sizes, each as overrides of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BASELINE = "uniform_gpt2"
SCHEDULE = "dograph_schedule_gpt2"
BEST_FIXED = "best_fixed"
"""The method of a fixed mixture that was found beforehand."""


@dataclass(frozen=True)
class Case:
    """A corpus and a target.

    Attributes:
        name: of its folder below the runs, and of its file of results.
        title: as tables name it.
        overrides: of every recipe.
        given: whether its corpus is the folder that ``--corpus`` names, with the domains of
            CORPUS; else it is the environment's.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    given: bool = False


def _setting(name: str, *more: str) -> tuple[str, ...]:
    return (f"compose.setting={name}", *more)


_ALL = (
    Case("unseen_type_stubs", "unseen: type_stubs", _setting("unseen")),
    Case("unseen_licences", "unseen: licences", _setting("unseen", "target=licences")),
    Case("unseen_man_pages", "unseen: man_pages", _setting("unseen", "target=man_pages"), True),
    Case("unseen_quotations", "unseen: quotations", _setting("unseen", "target=quotations"), True),
    Case("unseen_readmes", "unseen: readmes", _setting("unseen", "target=readmes")),
    Case("unseen_c_headers", "unseen: c_headers", _setting("unseen", "target=c_headers")),
    Case(
        "unseen_kernel_docs", "unseen: kernel_docs", _setting("unseen", "target=kernel_docs"), True
    ),
    Case("unseen_go_code", "unseen: go_code", _setting("unseen", "target=go_code"), True),
    Case("scarce_type_stubs", "scarce: type_stubs", _setting("scarce")),
    Case(
        "scarce_man_pages",
        "scarce: man_pages",
        _setting("scarce", "target=man_pages", "data.cap={man_pages: 16000}"),
        True,
    ),
    Case("useless_share", "useless share", _setting("useless_share")),
    Case("worst_environment", "worst domain (environment)", _setting("worst")),
    Case("worst_manuals", "worst domain (manuals)", _setting("worst"), True),
    Case("even_environment", "even (environment)", _setting("even")),
    Case("even_manuals", "even (manuals)", _setting("even"), True),
)
CASES: Mapping[str, Case] = {case.name: case for case in _ALL}
CORPUS = (
    *("database_manual", "dictionary", "essays", "go_code", "kernel_docs", "man_pages"),
    *("perl_manual", "quotations"),
)
"""Domains of the corpus that the cases with ``given`` need: folders with ``train.jsonl``."""
ABLATED = ("unseen_licences", "scarce_type_stubs", "even_environment")
"""Cases of the ablation, unless others are named."""
METHODS: Mapping[str, str] = {
    BASELINE: "uniform",
    BEST_FIXED: "best fixed",
    SCHEDULE: "DoGraph's schedule",
    "doge_gpt2": "DoGE",
    "proportional_gpt2": "proportional",
}
"""Labels by recipe; the order of the columns."""
TRAINERS = {"pico": "cpu_pico", "nano": "cpu", "micro": "gpu"}
"""Configurations of the trainer by size, unless ``--trainer`` names another."""


def recipe_of(method: str) -> Path:
    """The recipe that a method overrides."""
    return ROOT / "recipes" / f"{BASELINE if method == BEST_FIXED else method}.yaml"


def overrides_of(method: str, weights: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """What a method needs beside a case's own overrides.

    Args:
        method: a key of ``METHODS``.
        weights: of the fixed mixture, by domain; for ``BEST_FIXED`` only.
    """
    if method == BEST_FIXED and weights is not None:
        named = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
        fixed = "mixer.class_path=dograph.mixers.Fixed"
        return (fixed, f"mixer.init_args.weights={{{named}}}")
    return ()
