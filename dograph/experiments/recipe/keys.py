"""The table of all recipe keys: what changing one does to numbers, resumed runs and comparisons.

Run digests, ``--resume``, stages, sweeps, ``reproduce`` and ``compare`` read this one table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from dograph import mixers
from dograph.errors import UserError
from dograph.experiments.recipe.check import SECTIONS
from dograph.experiments.recipe.classes import import_mixer
from dograph.experiments.recipe.section import section_parser
from dograph.experiments.recipe.swarm_section import NO_KEYS, SwarmSettings
from dograph.files.changes import flat

Compared = Literal["method", "target", "corpus", "model", "training", "validation"]
"""Where ``compare`` looks at a key: "method" must agree over seeds, the others over all runs."""


class KeyVerdicts(NamedTuple):
    """What changing a key does; ``why`` where it is not evident."""

    changes_numbers: bool
    """whether a run of another value is another run: the key is in the run's digest."""
    restored: bool
    """whether the value also lives in a checkpoint's state."""
    may_change: bool
    """whether another value takes effect at ``--resume``; otherwise it is refused."""
    compared: Compared | None = None
    """by which condition ``compare`` checks it; None: not at all."""
    why: str = ""


WITHOUT_EFFECT = KeyVerdicts(False, False, True)
BY_STORE = KeyVerdicts(
    False, False, True, "corpus", "the store's fingerprint and chunks stand for all corpus keys"
)
"""Of ``corpus``: a resumed run must have the same store contents, however they were made."""
LIVE = KeyVerdicts(True, False, True)
STATE = KeyVerdicts(True, True, False)

KEYS: dict[str, KeyVerdicts] = {
    "name": WITHOUT_EFFECT,
    "runs": WITHOUT_EFFECT,
    "report": WITHOUT_EFFECT._replace(why="observing never changes training"),
    "seed": STATE._replace(why="it is what sets a method's runs apart"),
    "rounds": STATE._replace(why="they decide which stages run"),
    "target": STATE._replace(compared="target"),
    "limits": STATE._replace(compared="method", why="weights are projected within them"),
    "corpus": BY_STORE,
    "mixer": STATE._replace(compared="method", why="its weights and buffers begin by these"),
    "mixer.init_args.reference": LIVE._replace(
        compared="method", why="the reference model is read anew at every start"
    ),
    "sketch": STATE._replace(compared="method", why="windows of sketches are restored"),
    "swarm": STATE._replace(compared="method", why="the fit reads exactly these mixtures"),
    "swarm.processes": WITHOUT_EFFECT._replace(why="each run is a process of its own"),
    "swarm.threads": WITHOUT_EFFECT,
    "fit": STATE._replace(compared="method", why="later stages draw by what it proposed"),
    "data": STATE._replace(compared="training"),
    "data.context": STATE._replace(compared="validation"),
    "data.validation_sequences": LIVE._replace(compared="validation"),
    "data.lookahead": STATE._replace(
        compared="method", why="it delays when a mixer's weights are drawn by"
    ),
    "data.workers": WITHOUT_EFFECT._replace(why="the batches are the same"),
    "model": STATE._replace(compared="model", why="the weights are restored"),
    "model.learning_rate": KeyVerdicts(True, True, True, "training"),
    "model.final_learning_rate": LIVE._replace(compared="training"),
    "model.warmup": LIVE._replace(compared="training"),
    "model.weight_decay": KeyVerdicts(True, True, True, "training"),
    "model.betas": KeyVerdicts(True, True, True, "training"),
    "model.optimizer": STATE._replace(compared="training", why="a checkpoint holds its state"),
    "model.gradient_checkpointing": LIVE._replace(why="it changes rounding"),
    "model.attention": LIVE._replace(why="it changes rounding"),
    "model.compile": LIVE._replace(why="it changes rounding"),
    "trainer": LIVE,
    "trainer.max_steps": LIVE._replace(compared="training"),
    "trainer.precision": LIVE._replace(compared="training"),
    "trainer.gradient_clip_val": LIVE._replace(compared="training"),
    "trainer.gradient_clip_algorithm": LIVE._replace(compared="training"),
    "trainer.accumulate_grad_batches": STATE._replace(
        compared="training", why="batches are counted in the state: a step would be cut short"
    ),
    "trainer.limit_val_batches": LIVE._replace(compared="validation"),
    "trainer.enable_progress_bar": WITHOUT_EFFECT,
    "trainer.enable_model_summary": WITHOUT_EFFECT,
    "trainer.enable_autolog_hparams": WITHOUT_EFFECT,
    "trainer.log_every_n_steps": WITHOUT_EFFECT,
    "trainer.profiler": WITHOUT_EFFECT,
    "trainer.logger": WITHOUT_EFFECT._replace(why="logging never changes training"),
    "trainer.detect_anomaly": WITHOUT_EFFECT._replace(why="it only stops a run"),
    "trainer.inference_mode": WITHOUT_EFFECT,
    "trainer.model_registry": WITHOUT_EFFECT,
    "trainer.limit_test_batches": WITHOUT_EFFECT._replace(why="a run never tests"),
    "trainer.limit_predict_batches": WITHOUT_EFFECT._replace(why="a run never predicts"),
}
"""Verdicts by dotted key; a row stands for every key below it that has no row of its own."""


OPEN = ("mixer.init_args.", "model.config.", "model.optimizer.", "trainer.")
"""Mappings with keys whose defaults only their classes know: there, null is a value."""
SHARES = ("trainer.limit_val_batches", "trainer.val_check_interval")
"""Keys of which 1 is a batch and 1.0 all of them."""


def verdicts(key: str) -> KeyVerdicts:
    """The verdicts of a dotted key, by the longest row that is the key or above it.

    Raises:
        KeyError: for a key that has no row.
    """
    row = key
    while row not in KEYS:
        row, dot, _ = row.rpartition(".")
        if not dot:
            raise KeyError(f"{key} has no row in KEYS")
    return KEYS[row]


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe's values by dotted keys, with every default filled in; None is left out.

    So a default that is spelled out changes nothing, and one that another version changes does.
    Of mixers only this package's own have their defaults filled in: others' code may be gone. None
    and empty mappings are kept where the default is unknown, since it may be another value.
    """
    whole = _defaults() | (_swarm_defaults() if "swarm" in values else {})
    mixer = values.get("mixer")
    if isinstance(mixer, Mapping) and str(mixer.get("class_path")).startswith("dograph."):
        builds = _own_mixer(class_path := str(mixer["class_path"]))
        values = {**values, "mixer": {**mixer, "class_path": _one_path(builds, class_path)}}
        whole |= _section_defaults("mixer.init_args", builds, frozenset()) if builds else {}
    given = _distinct(_flat_with_empty(values), set(whole))
    for key in given:  # what is given replaces a default mapping, and the reverse
        for other in [other for other in whole if _is_below(other, key) or _is_below(key, other)]:
            del whole[other]
    plain = {key: _plain(value) for key, value in {**whole, **given}.items()}
    return {key: value for key, value in plain.items() if value not in (None, {})}


def _distinct(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Values with a text for each that would wrongly equal another one, or none."""
    distinct = {}
    for key, value in given.items():
        is_open = key.startswith(OPEN) and key not in known and not key.endswith(".init_args")
        if is_open and (value is None or value == {}):
            distinct[key] = json.dumps(value)
        elif key in SHARES and isinstance(value, float) and value.is_integer():
            distinct[key] = str(value)
        elif value != {}:
            distinct[key] = value
    return distinct


def _flat_with_empty(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The same as ``flat``, but empty mappings are values."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flattened |= _flat_with_empty(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``filled`` values that change a run's numbers; the corpus counts by its store.

    A key without a row, as another version's recipe may have, is taken to change them.
    """
    kept = filled(values)
    return {key: value for key, value in kept.items() if not _is_known_without_effect(key)}


def _is_known_without_effect(key: str) -> bool:
    try:
        return not verdicts(key).changes_numbers
    except KeyError:
        return False


def _is_below(key: str, above: str) -> bool:
    return key.startswith(f"{above}.")


def _defaults() -> dict[str, Any]:
    """The defaults of all sections; a part's own seed follows the recipe's."""
    whole: dict[str, Any] = {"seed": 0}
    for name, (builds, skip) in SECTIONS.items():
        whole |= _section_defaults(name, builds, frozenset(skip))
    return whole


def _swarm_defaults() -> dict[str, Any]:
    """Those of a swarm and the law that is fitted to it."""
    from dograph.experiments.laws.fit import FitSettings

    swarm = _section_defaults("swarm", SwarmSettings, frozenset())
    return swarm | _section_defaults("fit", FitSettings, frozenset(NO_KEYS))


def _own_mixer(class_path: str) -> Any:
    """A mixer of this package; None for an earlier version's."""
    try:
        return import_mixer(class_path, "recipe")
    except UserError:
        return None


def _one_path(builds: Any, class_path: str) -> str:
    """A mixer's path, the same however a recipe spells it: that of ``dograph.mixers``."""
    name = getattr(builds, "__name__", "")
    return f"dograph.mixers.{name}" if getattr(mixers, name, None) is builds else class_path


@cache
def _section_defaults(name: str, builds: Any, skip: frozenset[str]) -> dict[str, Any]:
    section = section_parser(builds, set(skip)).get_defaults().get("section")
    known = {} if section is None else section.as_dict()
    known.pop("seed", None)
    return flat(known, f"{name}.")


def _plain(value: Any) -> Any:
    """A value in JSON's types; 1.0 is 1, as a recipe may write either."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return json.loads(json.dumps(value, default=str))
