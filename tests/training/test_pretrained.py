"""Runs from pretrained weights: their own sizes, float32 masters, no need of their files later."""

import shutil

import pytest
import torch

from dograph.evaluation.evaluated_model import open_evaluated
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import run
from dograph.training.checkpoint_reader import load_model
from dograph.training.language_model import LanguageModel
from dograph.training.network import build_network, plain_config

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 320,  # padded: the corpus has 300 tokens
    "max_position_embeddings": 64,  # the recipe's context is 16
}


@pytest.fixture
def pretrained(tmp_path):
    """A folder of a Llama in bf16 that is wider and longer than the small corpus asks for."""
    folder = tmp_path / "pretrained"
    build_network("llama", SIZES).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_a_pretrained_run_keeps_its_sizes_and_is_evaluated_without_its_folder(
    pretrained, small_recipe
):
    path = small_recipe("small")
    recipe = check(compose(path, [f"model.pretrained={pretrained}"]))
    folder = run(recipe)
    shutil.rmtree(pretrained)
    evaluated = open_evaluated(folder)
    assert (evaluated.model.vocab_size, evaluated.model.context) == (320, 64)
    assert evaluated.context == 16
    trained = load_model(folder / "checkpoints" / "final.ckpt").network
    assert trained.config.model_type == "llama"
    assert {each.dtype for each in trained.parameters()} == {torch.float32}
    moved = trained.lm_head.weight - trained.lm_head.weight.to(torch.bfloat16)
    assert moved.any()  # masters that were bf16 would still be


def test_weights_stored_in_bf16_are_trained_in_float32(pretrained):
    model = LanguageModel(pretrained=str(pretrained))
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_a_network_is_built_again_from_its_plain_configuration(pretrained):
    config = {"attention_dropout": 0.1}
    network = build_network("gpt2", config, str(pretrained))
    again = build_network("llama", plain_config(network.config))
    assert plain_config(again.config) == plain_config(network.config)
    assert again.config.attention_dropout == 0.1


def test_the_configuration_of_a_pretrained_model_is_checked_by_its_own_type(
    pretrained, small_recipe
):
    path = small_recipe("small")
    keys = [f"model.pretrained={pretrained}", "model.config={attention_dropout: 0.1}"]
    assert check(compose(path, keys)).arguments("model")["config"] == {"attention_dropout": 0.1}
