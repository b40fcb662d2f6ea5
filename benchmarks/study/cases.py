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
DOGE_PACED = "doge_paced"
"""DoGE with a step that the length of these runs asks for."""
_RECIPES = {BEST_FIXED: BASELINE, DOGE_PACED: "doge_gpt2"}
"""Recipes of the methods that have none of their own."""


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
"""Labels of the methods that every case compares, by recipe; the order of the columns."""
LABELS: Mapping[str, str] = {
    **METHODS,
    "temperature_gpt2": "temperature",
    "unimax_gpt2": "UniMax",
    "odm_gpt2": "ODM",
    "ado_gpt2": "ADO",
    "skill_it_gpt2": "Skill-It",
    "aioli_gpt2": "Aioli",
    "grape_gpt2": "GRAPE",
    "dynamic_loss_gpt2": "dynamic loss",
    "doremi_online_gpt2": "DoReMi online",
    "doge_online_gpt2": "DoGE online",
    "dograph_gpt2": "DoGraph as published",
    "doremi_gpt2": "DoReMi",
    DOGE_PACED: "DoGE, 12.5 times as fast",
    "skill_it_learnt_gpt2": "Skill-It, graph learnt",
    "mixmin_gpt2": "MixMin",
    "regmix_gpt2": "RegMix",
}
"""Labels of all methods, which the cases of ``COMPLETE`` compare; the order of the rows."""
COMPLETE = ("unseen_type_stubs", "even_environment")
"""Cases of the table of all methods."""
_DOMAINS = (
    *("c_headers", "comments", "docstrings", "licences", "python_source", "readmes"),
    "type_stubs",
)
_LENGTH = ("trainer.max_steps", "trainer.val_check_interval")


def _proxies(steps: int) -> tuple[str, ...]:
    return tuple(f"stages.proxies.{key}={steps}" for key in _LENGTH)


PACE: Mapping[str, tuple[str, ...]] = {
    "odm_gpt2": ("mixer.init_args.warmup=16",),
    "ado_gpt2": (
        *("mixer.init_args.start=80", "mixer.init_args.refit_every=80"),
        *("mixer.init_args.ignore=40", "mixer.init_args.window=41", "mixer.init_args.stride=4"),
    ),
    "skill_it_gpt2": ("mixer.init_args.update_every=100", "trainer.val_check_interval=100"),
    "aioli_gpt2": ("mixer.init_args.probe_steps=8", "mixer.init_args.round_steps=160"),
    "dynamic_loss_gpt2": ("mixer.init_args.warmup=40",),
    DOGE_PACED: ("stages.proxy.mixer.init_args.mu=0.0032",),
    "skill_it_learnt_gpt2": (
        *(f"stages.only_{name}.trainer.max_steps=114" for name in _DOMAINS),
        *(f"stages.only_{name}.trainer.val_check_interval=114" for name in _DOMAINS),
        "stages.main.mixer.init_args.update_every=100",
        "stages.main.trainer.val_check_interval=100",
    ),
    "mixmin_gpt2": (*_proxies(200), "stages.proxies.model.warmup=10"),
    "regmix_gpt2": (
        *(*_proxies(100), "stages.proxies.model.warmup=5"),
        "stages.proxies.swarm.mixtures=32",
    ),
}
"""Settings by which methods act within 800 steps, where their recipes' are for other lengths.

Recipes' numbers of steps are for the 400 of ``configs/trainer/cpu.yaml``: twice as many here, but
GRAPE's, whose 40 updates are nearer to the paper's 200. DoGE's published step is for 10,000 steps:
12.5 times as large here, beside DoGE as published. The small runs of MixMin and RegMix are short
and few, so that five seeds of all methods take hours and not days.
"""
PACE_UNSEEN: Mapping[str, tuple[str, ...]] = {
    DOGE_PACED: ("stages.proxy.mixer.init_args.mu=0.016",),
    "skill_it_learnt_gpt2": (
        *(f"stages.only_type_stubs.{key}=1" for key in _LENGTH),
        "stages.only_type_stubs.model.warmup=0",
        "stages.only_type_stubs.mixer.init_args.weights={c_headers: 1, comments: 0, docstrings: 0, "
        "licences: 0, python_source: 0, readmes: 0, type_stubs: 0}",
    ),
}
"""More of them where type stubs are never drawn.

DoGE's published step is another one there. Skill-It has no run on type stubs alone, and reads none:
one step on something else stands in the place of that stage.
"""
TRAINERS = {"pico": "cpu_pico", "nano": "cpu", "micro": "gpu"}
"""Configurations of the trainer by size, unless ``--trainer`` names another."""


def methods_of(case: Case) -> Mapping[str, str]:
    """The labels of the methods that a case compares."""
    return LABELS if case.name in COMPLETE else METHODS


def recipe_of(method: str) -> Path:
    """The recipe that a method overrides."""
    return ROOT / "recipes" / f"{_RECIPES.get(method, method)}.yaml"


def overrides_of(
    method: str, case: Case, weights: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """What a method needs beside a case's own overrides.

    Args:
        method: a key of ``LABELS``.
        case: where it is run.
        weights: of the fixed mixture, by domain; for ``BEST_FIXED`` only.
    """
    if method == BEST_FIXED and weights is not None:
        named = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
        fixed = "mixer.class_path=dograph.mixers.Fixed"
        return (fixed, f"mixer.init_args.weights={{{named}}}")
    unseen = PACE_UNSEEN.get(method, ()) if case.name == "unseen_type_stubs" else ()
    return (*PACE.get(method, ()), *unseen)
