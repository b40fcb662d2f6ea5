"""Every `gpu_*` configuration of a paper, field by field, against what was published."""

from pathlib import Path

import pytest

from dograph.experiments.plan import Plan
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile, compose

ROOT = Path(__file__).parents[3]
OF_NO_PAPER = {"gpu", "gpu_sharded"}

# github.com/Olivia-fsm/DoGE at 88400e9, config/doge.json and config/doge_ood/*.json; betas are
# transformers' defaults (TrainingArguments), since neither they nor src/trainer.py set any.
DOGE = {
    "n_layer": 6,
    "n_embd": 768,
    "n_head": 12,
    "context": 512,
    "sequences": 32,
    "steps": 10_000,
    "learning_rate": 5e-4,
    "final_learning_rate": 1e-4,
    "warmup": 500,
    "weight_decay": 0.01,
    "beta1": 0.9,
    "beta2": 0.999,
    "gradient_clip_val": 5.0,
    "mu": 0.01,
    "clip": 5.0,
    "smoothing": 0.0,
    "universal": "mix",
}
DOGE_OUT_OF_DOMAIN = {**DOGE, "mu": 0.05, "clip": 1.0, "gradient_clip_val": 1.0}
# github.com/sangmichaelxie/doremi at 7cde52d, scripts/runs/run_pile_doremi120M.sh and, for the
# reference, run_pile_baseline120M.sh. `warmup` is 6 % of the steps.
DOREMI_REFERENCE = {
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "context": 1024,
    "sequences": 8 * 64,
    "steps": 200_000,
    "learning_rate": 1e-3,
    "final_learning_rate": 1e-4,
    "warmup": 12_000,
    "weight_decay": 0.01,
    "beta1": 0.9,
    "beta2": 0.99,
    "gradient_clip_val": 1.0,
    "precision": "bf16-mixed",
}
DOREMI = {**DOREMI_REFERENCE, "step_size": 1.0, "smoothing": 1e-3}
# arXiv 2604.07963, section of the experiments and appendix; it prints no betas.
DOGRAPH_210M = {
    "n_layer": 24,
    "n_embd": 768,
    "n_head": 16,
    "context": 512,
    "sequences": 48,
    "steps": 20_000,
    "learning_rate": 5e-4,
    "final_learning_rate": 1e-4,
    "warmup": 500,
    "weight_decay": 0.01,
    "gradient_clip_val": 1.0,
    "clusters": 11,
    "objective": "uncertainty",
}
DOGRAPH_300M = {**DOGRAPH_210M, "n_layer": 36, "n_head": 24, "sequences": 64, "steps": 25_000}

PUBLISHED = [
    ("gpu_doge_proxy", "doge_gpt2", "proxy", "gpt2_82m", (), DOGE),
    (
        *("gpu_doge_proxy", "doge_gpt2", "proxy", "gpt2_82m"),
        ("target=web", "data.unseen=[web]", "stages.proxy.trainer.gradient_clip_val=1.0"),
        DOGE_OUT_OF_DOMAIN,
    ),
    ("gpu_doremi_proxy", "doremi_gpt2", "reference", "gpt2_120m", (), DOREMI_REFERENCE),
    ("gpu_doremi_proxy", "doremi_gpt2", "proxy", "gpt2_120m", (), DOREMI),
    ("gpu_dograph_210m", "dograph_gpt2", None, "gpt2_210m", (), DOGRAPH_210M),
    ("gpu_dograph_300m", "dograph_gpt2", None, "gpt2_300m", (), DOGRAPH_300M),
]


def composed(trainer, name, stage, model, overrides):
    """The recipe of a stage, or of a recipe without any, at a paper's size."""
    path, compose_key = ROOT / "recipes" / f"{name}.yaml", "{model: %s, trainer: %s}"
    sizes = compose_key % (model, trainer)
    if stage is None:
        return check(compose(path, [f"compose={sizes}", *overrides]))
    return Plan.make(RecipeFile(path, [f"stages.{stage}.compose={sizes}", *overrides])).recipes[
        stage
    ]


def fields(recipe):
    """What a recipe trains by, under the papers' names."""
    model, data, trainer = (recipe.sections[key] for key in ("model", "data", "trainer"))
    found = {**vars(recipe.mixer), **vars(model), **model.config, **vars(trainer)}
    if recipe.mixer.__class__.__name__ == "DoGE":
        recipe.mixer.setup(("code", "web"), (1, 1), 4, 1, recipe.target.value, data.unseen)
        found["mu"], found["clip"] = recipe.mixer.settings(model.learning_rate)
    accumulated = trainer.devices * trainer.accumulate_grad_batches
    return {
        **found,
        "beta1": model.betas[0],
        "beta2": model.betas[1],
        "context": data.context,
        "sequences": data.batch_size * accumulated,
        "steps": trainer.max_steps,
    }


@pytest.mark.parametrize(("trainer", "name", "stage", "model", "overrides", "published"), PUBLISHED)
def test_a_papers_configuration_is_as_published(trainer, name, stage, model, overrides, published):
    found = fields(composed(trainer, name, stage, model, overrides))
    assert {key: found[key] for key in published} == pytest.approx(published)


def test_every_gpu_configuration_is_compared():
    there = {path.stem for path in (ROOT / "configs" / "trainer").glob("gpu*.yaml")}
    assert there == {entry[0] for entry in PUBLISHED} | OF_NO_PAPER
