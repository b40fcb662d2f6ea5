"""Architectures beside GPT-2: the shipped sizes, and what a recipe says without them."""

import re
from pathlib import Path

import pytest
import torch

from dograph.errors import UserError
from dograph.experiments.recipe.check import WITH_NANO, check
from dograph.experiments.recipe.compose import compose
from dograph.training.language_model import LanguageModel

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "dograph_gpt2.yaml"
OTHERS = sorted(
    path.stem
    for path in (ROOT / "configs" / "model").glob("*.yaml")
    if not path.stem.startswith("gpt2")
)
CLAIM = re.compile(r"([\d,]{9,}) parameters with its own vocabulary of ([\d,]+)")


def numbers(text):
    return [int(number.replace(",", "")) for number in text]


@pytest.mark.parametrize("name", OTHERS)
def test_published_configurations_have_the_published_number_of_parameters(name):
    head = (ROOT / "configs" / "model" / f"{name}.yaml").read_text().split("model:")[0]
    head = head.replace("\n# ", " ")
    nano = name.endswith("_nano")
    count, words = (2_000_000, 4096) if nano else numbers(CLAIM.search(head).groups())
    arguments = check(compose(RECIPE, [f"compose.model={name}"])).arguments("model")
    arguments["config"]["vocab_size"] = words
    with torch.device("meta"):
        model = LanguageModel(**arguments)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == pytest.approx(count, rel=0.1 if nano else 0)


def test_architectures_are_shipped_at_nano_size():
    assert [f"{name}_nano" for name in WITH_NANO] == [n for n in OTHERS if n.endswith("_nano")]


@pytest.mark.parametrize(
    ("architecture", "remedy"),
    [
        ("llama", r"take compose\.model=llama_nano in place of it, or give it, e\.g\. "),
        ("mamba", r"give it, e\.g\. model\.config='\{hidden_size: 160, num_hidden_layers: 4\}'"),
    ],
)
def test_an_architecture_without_sizes_is_refused(architecture, remedy):
    refused = rf"model\.config is missing beside model\.architecture={architecture}.*: {remedy}"
    with pytest.raises(UserError, match=refused):
        check(compose(RECIPE, [f"model.architecture={architecture}"]))
    check(compose(RECIPE, ["model.architecture=mamba", "model.config={num_hidden_layers: 2}"]))


def test_a_pretrained_model_starts_without_the_recipes_sizes(tmp_path):
    values = compose(RECIPE, [f"model.pretrained={tmp_path}"]).values["model"]
    assert "config" not in values
    assert values["warmup"] == 40
    kept = compose(RECIPE, [f"model.pretrained={tmp_path}", "model.config={resid_pdrop: 0.1}"])
    assert kept.values["model"]["config"] == {"resid_pdrop": 0.1}
