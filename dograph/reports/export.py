"""A run's domain weights in the words of the trainers that people feed them to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml

from dograph.errors import UserError
from dograph.files.atomic import read_mapping
from dograph.files.bounded_yaml import load_bounded
from dograph.files.changes import midway_changes
from dograph.files.run_dir import PROVENANCE, RECIPE
from dograph.reports.summary import read_stages, read_summary

Which = Literal["average", "last"]
Weights = dict[str, float]
NOTABLE = 0.005
"""Difference between a domain's shares of what was drawn and of what counted."""


def export(run: Path, form: str, prefix: str = "", which: Which = "average") -> str:
    """The domain weights of a finished run as text. They count tokens.

    Args:
        run: its folder; of a recipe with stages, a stage's or the whole experiment's (then the
            last stage's weights, which are what it was drawn by).
        form: "yaml" or "json": weights by domain; "litdata": arguments of its
            CombinedStreamingDataset; "megatron": ``weight path weight path …`` on one line;
            "nemo": the same as a YAML list of strings; "streaming": YAML of mosaicml-streaming's
            streams with their proportions.
        prefix: put before each domain's name to make its path.
        which: "average": the mean over the mixer's updates, a proxy's result; or the "last".

    Raises:
        UserError: if the folder has no finished run, or a path with blanks would break the format.
    """
    field = "average_weight" if which == "average" else "weight"
    weights = {domain.name: getattr(domain, field) for domain in read_summary(run).domains}
    return FORMATS[form](weights, prefix)


def counted_otherwise(run: Path) -> str | None:
    """What the weights of a run leave out whose mixer acts on the loss alone; None if nothing."""
    summary = read_summary(run)
    fixed = all(domain.weight == domain.average_weight for domain in summary.domains)
    shares = [(d.name, d.effective_share, d.share) for d in summary.domains]
    if not fixed or all(abs(counted - drawn) < NOTABLE for _, counted, drawn in shares):
        return None
    named = ", ".join(f"{name} {counted:.3f}" for name, counted, _ in shares)
    return f"{summary.mixer} drew by these weights, but weighed losses so that they counted {named}"


def changed_midway(run: Path) -> str | None:
    """What was changed while a run, or a stage of an experiment, was trained; None if nothing."""
    folders = [run, *(folder for _, folder in (read_stages(run) if run.is_dir() else []))]
    texts = (midway_changes(folder, read_mapping(folder / PROVENANCE)) for folder in folders)
    return "; ".join(text for text in texts if text is not None) or None


def left_out(run: Path) -> str | None:
    """What of a run's recipe no format holds: limits, and phases; None if nothing."""
    stages = read_stages(run) if run.is_dir() else []
    path = (stages[-1][1] if stages else run) / RECIPE
    recipe = load_bounded(path) if path.is_file() else {}
    texts = []
    if limits := recipe.get("limits"):
        named = ", ".join(key for key in limits if key not in ("groups", "projection"))
        texts.append(f"the run's limits ({named}), which these weights keep, and no format states")
    mixer = recipe.get("mixer") or {}
    while mixer and str(mixer.get("class_path", "")).rpartition(".")[2] != "Phases":
        mixer = (mixer.get("init_args") or {}).get("mixer") or {}  # one around another
    if mixer:
        texts.append("its phases: the average is of all of them (--weights last: the last one's)")
    return "; ".join(texts) or None


def as_yaml(weights: Weights, prefix: str) -> str:
    """``path: weight`` on each line."""
    return _yaml({prefix + name: weight for name, weight in weights.items()})


def as_json(weights: Weights, prefix: str) -> str:
    """One object of weights by path."""
    return _json({prefix + name: weight for name, weight in weights.items()})


def as_litdata(weights: Weights, prefix: str) -> str:
    """The folders of the StreamingDatasets, and what CombinedStreamingDataset takes with them."""
    folders, shares = [prefix + name for name in weights], list(weights.values())
    return _json({"input_dirs": folders, "weights": shares, "iterate_over_all": False})


def as_megatron(weights: Weights, prefix: str) -> str:
    """Megatron-LM's blend: weight and path prefix in turn, on one line."""
    return " ".join(_zipped(weights, prefix)) + "\n"


def as_nemo(weights: Weights, prefix: str) -> str:
    """NeMo 2's ``paths``: weights and path prefixes in turn, as strings."""
    return _yaml({"paths": _zipped(weights, prefix)})


def as_streaming(weights: Weights, prefix: str) -> str:
    """mosaicml-streaming's streams by name, each with ``local`` and its relative ``proportion``.

    A stream of weight 0 is left out: a proportion must be positive.
    """
    streams = {
        name: {"local": prefix + name, "proportion": weight}
        for name, weight in weights.items()
        if weight > 0
    }
    return _yaml({"streams": streams})


FORMATS: dict[str, Callable[[Weights, str], str]] = {
    "yaml": as_yaml,
    "json": as_json,
    "litdata": as_litdata,
    "megatron": as_megatron,
    "nemo": as_nemo,
    "streaming": as_streaming,
}


def _zipped(weights: Weights, prefix: str) -> list[str]:
    blanks = [name for name in weights if any(part.isspace() for part in prefix + name)]
    if blanks:
        raise UserError(f"{prefix + blanks[0]!r} has a blank, which separates weights and paths")
    # A weight of 0 asks for no sample of a path, which the trainers refuse to build.
    rounded = {name: f"{weight:.8f}" for name, weight in weights.items()}
    pairs = [(text, prefix + name) for name, text in rounded.items() if float(text) > 0]
    return [word for pair in pairs for word in pair]


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
