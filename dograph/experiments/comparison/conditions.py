"""Whether runs may be compared: their settings with every default, and what differs."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError, nearest
from dograph.experiments.comparison.runs import ComparedRun, by_method, recipe_of
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.check import SECTIONS, given_section
from dograph.experiments.recipe.classes import import_mixer
from dograph.experiments.recipe.compose import Composition
from dograph.experiments.recipe.keys import KEYS, Compared, filled, verdicts
from dograph.experiments.recipe.section import check_section
from dograph.experiments.run_inputs import PRETRAINED, REFERENCE
from dograph.files.changes import flat, midway_changes
from dograph.files.run_dir import FINAL_CHECKPOINT, RECIPE, SUMMARY, seed_dir
from dograph.mixers.target import Target
from dograph.reports.summary import read_summary

CONDITIONS = {
    "target": "target",
    "tokens": "tokens trained on",
    "corpus": "prepared corpus",
    "tokenizer": "tokenizer",
    "validation": "validation set",
    "model": "model",
    "training": "training",
}
"""What must be alike, by the names that ``--allow`` takes."""
HOST: dict[str, Any] = {"commit": None, "versions": {}, "host": {}}
"""What changes no more than rounding and seconds: keys of ``provenance.json``, and if missing."""
VALIDATES = "trainer.val_check_interval"
MOST_FOLDERS = 4
"""Run folders that a message names for one value."""
CHOOSE = ("mixer", "swarm", "fit")
"""Sections that say how a stage chooses its mixture."""
BEFORE_THE_LAST: tuple[Compared, ...] = ("model", "training", "validation")
"""Conditions of earlier stages that are part of a method: the last stage's are its runs'."""


def check_comparable(runs: Sequence[ComparedRun], allowed: Collection[str] = ()) -> list[str]:
    """Checks that runs differ in nothing but mixture, seed and the ``allowed`` conditions.

    Returns:
        what differs and was allowed, a sentence each.

    Raises:
        UserError: saying what differs, in which runs, and how to compare them anyway; or for
            an unknown condition.
    """
    for name in allowed:
        if name not in CONDITIONS:
            hint = nearest(name, list(CONDITIONS)) or f" (there are: {', '.join(CONDITIONS)})"
            raise UserError(f"--allow {name}: there is no such condition{hint}")
    midway = _check_unchanged(runs, allowed)
    settings = [setting_of(run) for run in runs]
    for condition, key in (("corpus", "chunks"), ("model", PRETRAINED)):
        if any(setting[condition][key] is None for setting in settings):  # not recorded once
            for setting in settings:
                del setting[condition][key]
    differing = {
        name: f"{title}: {text}"
        for name, title in CONDITIONS.items()
        if (text := _difference([setting[name] for setting in settings], runs)) is not None
    }
    if refused := [name for name in differing if name not in allowed]:
        raise UserError(
            "\n  ".join(["these runs are not comparable:", *(differing[name] for name in refused)])
            + "\nname runs that differ in mixture and seed only, or add --allow "
            + ",".join(refused)
        )
    return [*differing.values(), *midway, *_host_notes(runs)]


def check_methods(runs: Sequence[ComparedRun]) -> list[str]:
    """Checks that runs of one method differ in their seed only.

    Returns:
        for which runs it cannot be told whether their mixers' code is the same, a sentence each.
    """
    notes = []
    for method, same in by_method(runs).items():
        _check_stages(method, same)
        codes = [code_of(run) for run in same]
        known = [run for run, code in zip(same, codes, strict=True) if code is not None]
        references = [(run, digests) for run in same if (digests := references_of(run))]
        differences = [
            _difference([method_of(run) for run in same], same),
            _difference([code for code in codes if code is not None], known),
            _difference([each for _, each in references], [run for run, _ in references]),
        ]
        if texts := [text for text in differences if text is not None]:
            raise UserError(
                f"the runs of {method} are not of one method: {'; '.join(texts)}\nname the runs of "
                "one method only, or give the others another name (key `name`)"
            )
        if len(same) > 1 and (unknown := [run for run in same if run not in known]):
            notes.append(f"Not recorded, perhaps not alike: {method}'s code in {_named(unknown)}")
    return notes


def _check_stages(method: str, runs: Sequence[ComparedRun]) -> None:
    """Refuses seeds of which some ran more rounds than others."""
    ran = [", ".join(name for name, _ in run.stages) for run in runs]
    text = _difference(ran, runs)
    if text is not None and "_round" in text:
        raise UserError(
            f"the runs of {method} did not run the same rounds (`cost.stages` of {SUMMARY}): "
            f"{text}\nname seeds that did only, or set rounds.tolerance to 0, by which every seed "
            "runs rounds.at_most rounds, and run the others again"
        )


def _check_unchanged(runs: Sequence[ComparedRun], allowed: Collection[str]) -> list[str]:
    """Refuses runs that were resumed under another recipe, unless "training" is allowed."""
    changed = [
        f"{folder}: {text}"
        for run in runs
        for _, folder in run.stages
        if (text := midway_changes(folder, read_provenance(folder))) is not None
    ]
    if changed and "training" not in allowed:
        raise UserError(
            "\n  ".join(["these runs were resumed under another recipe:", *changed])
            + "\nleave them out, or add --allow training"
        )
    return [f"Resumed under another recipe: {text}" for text in changed]


def _host_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What differs and changes no more than rounding and seconds, a sentence each."""
    differences = {
        key: _difference([run.metadata.get(key) or missing for run in runs], runs)
        for key, missing in HOST.items()
    }
    return [f"Runs differ in their {key}: {text}" for key, text in differences.items() if text]


def _difference(values: Sequence[Any], runs: Sequence[ComparedRun]) -> str | None:
    """What runs' values differ in, with the folders of each; None where they agree."""
    groups: dict[str, tuple[Any, list[ComparedRun]]] = {}
    for value, run in zip(values, runs, strict=True):
        key = json.dumps(value, sort_keys=True, default=str)
        groups.setdefault(key, (value, []))[1].append(run)
    if len(groups) < 2:
        return None
    others = [value for value, _ in groups.values()]
    return "; ".join(
        f"{_shown(value, others)} in {_named(group)}" for value, group in groups.values()
    )


def _shown(value: Any, others: Sequence[Any]) -> str:
    """A value; of nested values, the keys in which it differs."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, Mapping):
        return str(value)
    all_flat = [flat(other) for other in others]
    keys = dict.fromkeys(key for entry in all_flat for key in entry)
    differing = [key for key in keys if len({repr(entry.get(key)) for entry in all_flat}) > 1]
    own = flat(value)
    return ", ".join(f"{key} {own.get(key, 'not set')}" for key in differing)


def _named(runs: Sequence[ComparedRun]) -> str:
    shown = ", ".join(str(run.folder) for run in runs[:MOST_FOLDERS])
    more = len(runs) - MOST_FOLDERS
    return f"{shown} and {more} more" if more > 0 else shown


def setting_of(run: ComparedRun) -> dict[str, Any]:
    """What must be alike for losses to compare, by the names that ``compare --allow`` takes."""
    metadata, source = run.metadata, run.final / RECIPE
    inputs = metadata.get("inputs") or {}
    return {
        "target": run.target.description,
        "tokens": run.summary.tokens,
        "corpus": {
            "fingerprint": metadata["fingerprint"],
            "chunks": inputs.get("chunks"),
        },
        "tokenizer": metadata["tokenizer"],
        "validation": {
            **_chosen(run.recipe, "validation", source),
            # Older runs did not record it: then the corpus as a whole.
            "text": metadata.get("validation_fingerprint", metadata["fingerprint"]),
        },
        "model": {
            **_chosen(run.recipe, "model", source),
            PRETRAINED: inputs.get(PRETRAINED),
        },
        "training": {
            **_chosen(run.recipe, "training", source),
            "processes": metadata.get("host", {}).get("processes", 1),
        },
    }


def method_of(run: ComparedRun) -> dict[str, Any]:
    """What makes a run its method: every stage's mixer, sketch and lookahead, with defaults.

    Of the stages before the last also their corpus, model and training: a proxy of another size
    finds other weights. What a stage has from earlier ones differs by seed, and stands as such.
    """
    method: dict[str, Any] = {}
    for place, (name, folder) in enumerate(run.stages):
        values, source = recipe_of(folder), folder / RECIPE
        mixer = filled({key: values[key] for key in CHOOSE if key in values})
        mixer |= from_earlier_stages(values, run.stages[:place])
        method[name or "run"] = {
            **{k: value for k, value in mixer.items() if verdicts(k).compared == "method"},
            **_chosen(values, "method", source),
            **_validations(values, source),
        }
        if folder != run.final:
            corpus = read_provenance(folder)["fingerprint"]
            same = corpus == run.metadata["fingerprint"]
            method[name] |= {"corpus": "the last stage's" if same else corpus}
            method[name] |= {"target": values.get("target")}
            for condition in BEFORE_THE_LAST:
                method[name] |= _chosen(values, condition, source)
    return method


def _validations(values: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """When a run validates, where that decides what it draws, or others' code may have it do so."""
    class_path = str((values.get("mixer") or {}).get("class_path"))
    if "swarm" in values and not (values["swarm"] or {}).get("curves"):
        return {}
    if class_path.startswith("dograph."):
        try:
            mixer = import_mixer(class_path, str(source))
        except UserError:  # an earlier version's mixer
            return {}
        if not mixer.reads_validations(Target.parse(values.get("target"))):
            return {}
    given = json.dumps(values.get("trainer") or {}, sort_keys=True)
    return {VALIDATES: _with_defaults("trainer", given)[VALIDATES.partition(".")[2]]}


def from_earlier_stages(
    values: Mapping[str, Any], earlier: Sequence[tuple[str, Path]]
) -> dict[str, str]:
    """What earlier stages gave a stage's mixer: the names of those stages, by dotted keys.

    A run's recipe holds values, not whose they are. Weights that an earlier stage ended with and
    the path of its checkpoint are recognised; anything else is the recipe's own.
    """
    known: dict[str, str] = {}
    given = flat({"mixer": values.get("mixer") or {}})
    for stage, folder in earlier:  # the latest stage's name stands where several fit
        weights = {d.name: d.average_weight for d in read_summary(folder).domains}
        experiment = seed_dir(Path(str(values.get("name"))), int(values.get("seed") or 0))
        checkpoint = (experiment / folder.name / FINAL_CHECKPOINT).parts
        for key, value in given.items():
            domain = key.partition("mixer.init_args.")[2].partition(".")[2]
            if isinstance(value, int | float) and domain in weights:
                if math.isclose(value, weights[domain], rel_tol=1e-9):
                    known[key] = f"of stage {stage}"
            elif isinstance(value, str) and Path(value).parts[-len(checkpoint) :] == checkpoint:
                known[key] = f"of stage {stage}"
    return known


def code_of(run: ComparedRun) -> dict[str, Any] | None:
    """Digests of the files behind the mixer of every stage; None where they were not recorded."""
    code = {}
    for name, folder in run.stages:
        inputs = read_provenance(folder).get("inputs")
        class_path = str((recipe_of(folder).get("mixer") or {}).get("class_path"))
        if isinstance(inputs, Mapping):
            code[name or "run"] = {"mixer code": inputs.get("mixer code") or {}}
        elif not class_path.startswith("dograph."):
            return None
        else:
            code[name or "run"] = {"mixer code": {}}
    return code


def references_of(run: ComparedRun) -> dict[str, Any]:
    """Digests of the stages' reference models that are no earlier stage's, where recorded."""
    recorded = {name: read_provenance(folder).get("inputs") for name, folder in run.stages}
    return {
        name or "run": {REFERENCE: inputs[REFERENCE]}
        for name, inputs in recorded.items()
        if isinstance(inputs, Mapping) and REFERENCE in inputs
    }


def _chosen(values: Mapping[str, Any], condition: Compared, source: Path) -> dict[str, Any]:
    """The values of all sections, with defaults, that a condition compares."""
    chosen: dict[str, Any] = {}
    for section in SECTIONS:
        given = given_section(values, section)
        if not isinstance(given, Mapping):
            raise UserError(f"{source}: {section} must be a mapping, got {given!r}")
        if not _compares(section, condition):
            continue
        try:
            whole = _with_defaults(section, json.dumps(given, sort_keys=True))
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        dotted = {f"{section}.{key}": value for key, value in whole.items()}
        chosen |= {k: value for k, value in dotted.items() if verdicts(k).compared == condition}
    return chosen


def _compares(section: str, condition: Compared) -> bool:
    """Whether a condition looks at any key of a section."""
    rows = [row for key, row in KEYS.items() if key == section or key.startswith(f"{section}.")]
    return any(row.compared == condition for row in rows)


@lru_cache(maxsize=1024)
def _with_defaults(section: str, given: str) -> dict[str, Any]:
    """A section with every default, in plain types; read once for all runs that share it."""
    composition = Composition({}, [("recipe", OmegaConf.create({}))])
    builds, skip = SECTIONS[section]
    checked = check_section(composition, section, builds, json.loads(given), skip)
    return json.loads(json.dumps(checked.as_dict(), default=str))
