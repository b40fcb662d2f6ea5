"""One change at a time of the schedule's settings."""

from __future__ import annotations

import inspect

from dograph.mixers import DoGraphSchedule
from dograph.mixers.schedule_settings import ProblemSettings

FOLDER = "ablation"
"""Of a case's runs with one change each, beside its methods' folders."""
TRIED: dict[str, tuple[float, ...]] = {
    "measure": (100, 200, 400),
    "interval": (10, 20, 40),
    "rank": (8, 32, 64),
    "problem.kappa": (0.0, 0.5, 1.0),
    "problem.prior_pull": (0.0, 0.1, 0.3),
    "problem.floor": (0.0, 0.1, 0.2),
    "problem.laplacian": (0.0, 0.1),
    "problem.repetition": (15.4, 1e9),
    "reweigh": (0.1,),
}
"""Values that are tried of each setting; its default is among the methods already."""


def changes() -> dict[str, tuple[str, ...]]:
    """Overrides by the change's name, such as ``kappa_0``; without what is a default."""
    return {
        f"{key.rpartition('.')[2]}_{value:g}".replace("+", ""): (f"mixer.init_args.{key}={value}",)
        for key, values in TRIED.items()
        for value in values
        if value != default(key)
    }


def default(key: str) -> object:
    """A setting's default."""
    section, _, name = key.rpartition(".")
    signature = inspect.signature(ProblemSettings if section else DoGraphSchedule)
    return signature.parameters[name].default
