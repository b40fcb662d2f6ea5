"""One change at a time of the schedule's settings."""

from __future__ import annotations

import inspect

from dograph.mixers import DoGraphSchedule
from dograph.mixers.schedule_settings import ProblemSettings

FOLDER = "ablation"
"""Of a case's runs with one change each, beside its methods' folders."""
TRIED: dict[str, tuple[float, ...]] = {
    "text_tokens": (20_000, 1_000_000),
    "pair_rows": (4_096, 262_144),
    "measure": (120,),
    "problem.kappa": (0.0, 0.1, 1.0),
    "problem.prior_pull": (0.03, 0.3),
    "problem.least_spread": (0.0,),
    "problem.target_floor": (0.0, 0.8),
    "problem.floor": (0.0, 0.2),
    "problem.laplacian": (0.1,),
    "problem.repetition": (1e9,),
    "reweigh": (0.1,),
}
"""Values that are tried of each setting; its default is among the methods already."""
TOGETHER = {"gradients_alone": ("mixer.init_args.text_tokens=0", "mixer.init_args.measure=120")}
"""Changes of several settings: the domains' text is not read, the run's gradients are."""


def changes() -> dict[str, tuple[str, ...]]:
    """Overrides by the change's name, such as ``kappa_0``; without what is a default."""
    single = {
        f"{key.rpartition('.')[2]}_{value:g}".replace("+", ""): (f"mixer.init_args.{key}={value}",)
        for key, values in TRIED.items()
        for value in values
        if value != default(key)
    }
    return single | TOGETHER


def default(key: str) -> object:
    """A setting's default."""
    section, _, name = key.rpartition(".")
    signature = inspect.signature(ProblemSettings if section else DoGraphSchedule)
    return signature.parameters[name].default
