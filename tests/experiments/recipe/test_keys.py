"""Every key of every shipped recipe has its verdicts in one table, and they hold."""

import copy
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dograph.errors import UserError
from dograph.experiments.comparison.conditions import _chosen, method_of
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.laws.fit import FitSettings
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.check import SECTIONS, check
from dograph.experiments.recipe.compose import Composition, RecipeFile, compose
from dograph.experiments.recipe.keys import KEYS, deciding, filled, verdicts
from dograph.experiments.recipe.swarm_section import NO_KEYS, SwarmSettings
from dograph.experiments.resume import check_keys
from dograph.experiments.run_inputs import RunInputs, input_changes
from dograph.files.atomic import write_json
from dograph.files.changes import flat
from dograph.files.run_dir import PROVENANCE, RECIPE

ROOT = Path(__file__).parents[3]
CHOICES = {
    "data.draw": "multinomial",
    "sketch.blocks": "all",
    "data.cap": {"animals": 1000},
    "model.config": {"n_layer": 7},
    "model.pretrained": "gpt2",
    "model.optimizer": {"class_path": "torch.optim.SGD"},
    "model.attention": "eager",
    "trainer.precision": "64-true",
    "trainer.enable_progress_bar": True,
    "trainer.deterministic": True,
    "trainer.benchmark": True,
    "trainer.profiler": "simple",
    "trainer.plugins": [],
    "trainer.model_registry": "somewhere",
    "trainer.gradient_clip_algorithm": "value",
    "trainer.accelerator": "gpu",
    "trainer.logger": {"class_path": "lightning.pytorch.loggers.CSVLogger"},
    "trainer.strategy": "ddp",
    "trainer.strategy.class_path": "lightning.pytorch.strategies.DDPStrategy",
    "trainer.devices": 2,
    "trainer.check_val_every_n_epoch": 1,
    "mixer.class_path": "my.Mixer",
    "target": "worst",
    "limits.projection": "euclidean",
    "mixer.init_args.phases": [{"at": 0}],
    "limits.at_least": {"animals": 0.1},
    "limits.at_most": {"animals": 0.9},
    "limits.groups": {"living": ["animals"]},
    "limits.ratio": {"animals": {"code": 2}},
}
"""Another value of keys that do not take any."""


def shipped():
    """(recipe and stage, values) of every run of every recipe, and of all trainer settings."""
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        file = RecipeFile(path)
        by_domain = {"a": 0.5, "b": 0.5}
        artefacts = {
            name: {"checkpoint": f"<of {name}>", "weights": by_domain, "losses": by_domain}
            for name in file.stages
        }
        for stage in file.stages or [None]:
            yield f"{path.stem} {stage or ''}", file.compose(stage, artefacts).values
    for folder in ("trainer", "setting"):
        for path in sorted((ROOT / "configs" / folder).glob("*.yaml")):
            file = RecipeFile(
                ROOT / "recipes" / "uniform_gpt2.yaml", [f"compose.{folder}={path.stem}"]
            )
            yield f"{folder} {path.stem}", file.compose().values


SHIPPED = dict(shipped())


def keys_with_values():
    """Every key, once, with the values of a recipe that has it or its default."""
    known = {}
    for values in SHIPPED.values():
        for key in (*flat(values), *filled(values)):
            known.setdefault(key, values)
    defaults = SHIPPED["uniform_gpt2 "]
    for name, (builds, skip) in SECTIONS.items():
        section = check_section_defaults(builds, skip)
        for key in section:
            known.setdefault(f"{name}.{key}", defaults)
    known["trainer.logger"] = defaults  # which is checked by itself
    for name, builds in (("swarm", SwarmSettings), ("fit", FitSettings)):
        for key in check_section_defaults(builds, NO_KEYS):
            known.setdefault(f"{name}.{key}", SHIPPED["regmix_gpt2 proxies"])
    return known


def check_section_defaults(builds, skip):
    from dograph.experiments.recipe.section import section_parser

    return section_parser(builds, skip).get_defaults().section.as_dict()


CASES = keys_with_values()


def changed(key, values):
    """The values with another value of one key."""
    before = filled(values).get(key)
    now = CHOICES[key] if key in CHOICES else other(before)
    copied = copy.deepcopy(values)
    node, parts = copied, key.split(".")
    for part in parts[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[parts[-1]] = now
    if parts[-1] == "class_path" and key.startswith("trainer."):
        node.pop("init_args", None)  # another class takes others
    return copied


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    if isinstance(value, list):
        return [each / 2 for each in value] if value else ["a"]
    return 3 if value is None else f"{value}_2"


def test_every_row_is_some_key_s():
    whole = {*CASES, *(key for values in SHIPPED.values() for key in values), "rounds", "runs"}
    for row in KEYS:
        assert any(key == row or key.startswith(f"{row}.") for key in whole), row


def test_a_key_without_a_row_is_refused():
    with pytest.raises(KeyError, match=r"optimiser\.name has no row"):
        verdicts("optimiser.name")


def test_keys_are_in_the_digest_as_the_table_says():
    counted = {
        key: deciding(values) != deciding(changed(key, values)) for key, values in CASES.items()
    }
    assert counted == {key: verdicts(key).changes_numbers for key in CASES}


@pytest.fixture(scope="module")
def begun(store, tmp_path_factory):
    """Writes a run's recipe and provenance; one folder, again and again."""
    folder = tmp_path_factory.mktemp("begun")

    def write(values, now=None):
        inputs = RunInputs(values, store)
        required = {"seed": 0, "tokenizer": "t", "corpus": str(store.path)}
        required["fingerprint"] = store.fingerprint
        write_json(folder / PROVENANCE, {**required, "inputs": inputs.content})
        (folder / RECIPE).write_text(OmegaConf.to_yaml(OmegaConf.create(now or values)))
        return folder

    return write


@pytest.fixture(scope="module")
def recipe():
    """A checked recipe, whose values a test replaces."""
    return check(compose(ROOT / "recipes" / "uniform_gpt2.yaml"))


def test_a_resume_takes_or_refuses_keys_as_the_table_says(begun, recipe):
    taken = {}
    for key, values in CASES.items():
        now = changed(key, values)
        folder = begun(values)
        recipe.composition = Composition(now, [("recipe.yaml", OmegaConf.create(now))])
        try:
            check_keys(folder, recipe)
            taken[key] = True
        except UserError as error:
            taken[key] = False
            for part in (key, "recipe.yaml: ", "→"):
                assert part in str(error), key
    assert taken == {key: verdicts(key).may_change for key in CASES}


def test_compare_looks_at_keys_as_the_table_says(begun):
    # Target and corpus are compared by what the run recorded of them.
    expected = {key: {verdicts(key).compared} - {None, "target", "corpus"} for key in CASES}
    assert {key: what_compare_sees(key, begun) for key in CASES} == expected


def what_compare_sees(key, begun):
    """Conditions of a comparison that tell another value of a key apart."""
    values, now = CASES[key], changed(key, CASES[key])
    section = key.split(".")[0]  # the others are alike
    mixer = {"class_path": "dograph.mixers.Stratified"}  # it reads no validations
    pair = [{"mixer": mixer, section: each.get(section)} for each in (values, now)]
    said = set()
    for condition in ("model", "training", "validation"):
        before, after = (_chosen(each, condition, Path()) for each in pair)
        said |= {condition} if before != after else set()
    methods = []
    for each in pair:
        folder = begun({}, each)
        methods.append(method_of(ComparedRun("m", folder, (("", folder),))))
    return said | ({"method"} if methods[0] != methods[1] else set())


def test_a_default_that_is_spelled_out_changes_nothing(begun, store):
    values = SHIPPED["dograph_gpt2 "]
    spelled = copy.deepcopy(values)
    spelled["data"]["lookahead"] = 4
    spelled["model"]["betas"] = [0.9, 0.95]
    spelled["trainer"]["gradient_clip_val"] = 1
    spelled["mixer"]["init_args"]["window"] = 1
    spelled["seed"] = 0
    assert RunInputs(spelled, store).digest == RunInputs(values, store).digest
    folder = begun(values)
    assert not RunInputs(spelled, store).changes_since(folder, read_provenance(folder))


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("trainer.limit_val_batches", 1, 1.0),
        ("trainer.val_check_interval", 1, 1.0),
        ("model.config.sliding_window", None, ...),
        ("mixer.init_args.sharpness", None, ...),
        ("mixer.init_args.shares", {}, ...),
        ("mixer.init_args.sharpness", None, {}),
        ("mixer.init_args.sharpness", True, 1),
    ],
)
def test_values_that_only_seem_alike_are_told_apart(store, key, one, other):
    def inputs(value):
        values = {"mixer": {"class_path": "my.Mixer"}}
        *sections, last = key.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        if value is not ...:
            node[last] = value
        return RunInputs(values, store)

    first, second = inputs(one), inputs(other)
    assert first.digest != second.digest
    assert [*input_changes(first.content, second.content)] == [key]
    assert not input_changes(first.content, inputs(one).content)
