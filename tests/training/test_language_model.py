"""The model: losses of sequences, sizes, schedule, decay on matrices only."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torchmetrics.text import Perplexity

from dograph.data.batch import Batch
from dograph.errors import UserError
from dograph.evaluation.perplexity import summarise
from dograph.mixers.target import Target
from dograph.training.language_model import LanguageModel
from dograph.training.network import build_network, check_causal, takes
from dograph.training.optimizers import warmup_cosine

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "model"
TINY = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50, "n_positions": 12}


def batch(size=3):
    tokens = torch.randint(0, 50, (size, 13), generator=torch.Generator().manual_seed(0))
    return Batch(tokens, torch.zeros(size).long(), torch.zeros(size, 2).long())


def test_token_losses_are_transformers_own():
    model = LanguageModel(config=TINY)
    tokens = batch().tokens
    assert model.token_losses(tokens).shape == (3, 12)
    short = tokens[:, :12]
    reference = model.network(input_ids=short, labels=short).loss
    assert torch.allclose(model.token_losses(short).mean(), reference, atol=1e-6)


def test_perplexity_is_torchmetrics_own():
    model = LanguageModel(config=TINY)
    tokens = batch().tokens
    losses = model.token_losses(tokens)
    metric = Perplexity()
    metric.update(model.network(input_ids=tokens[:, :-1]).logits, tokens[:, 1:])
    ours = summarise({"a": losses.mean().item()}, Target())["validation/perplexity/a"]
    assert ours == pytest.approx(metric.compute().item(), rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_sequence_losses():
    model = LanguageModel(config=TINY)
    losses = model.token_losses(batch().tokens).mean(dim=1)
    assert torch.allclose(model.training_step(batch(), 0), losses.mean())
    weights = torch.tensor([0.7, 0.3, 0.0])
    model.reduce_loss = lambda _, token_losses: weights @ token_losses.mean(dim=1)
    assert torch.allclose(model.training_step(batch(), 0), weights @ losses)


@pytest.mark.parametrize(
    ("name", "vocabulary", "millions", "slack"),
    [
        ("gpt2_pico", 1024, 0.17, 0.02),
        ("gpt2_nano", 4096, 2, 0.2),
        ("gpt2_micro", 4096, 10, 0.5),
        ("gpt2_small", 50257, 124.4, 0.5),
        ("gpt2_medium", 50257, 354.8, 1),
        ("gpt2_large", 50257, 774, 1),
    ],
)
def test_configurations_have_the_sizes_they_claim(name, vocabulary, millions, slack):
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))["model"]["config"]
    context = 1024 if vocabulary == 50257 else 128
    with torch.device("meta"):
        network = build_network(
            "gpt2", {**config, "vocab_size": vocabulary, "n_positions": context}, None
        )
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=slack)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_any_causal_model_of_transformers_is_built_from_a_config(architecture):
    config = {
        "vocab_size": 50,
        "max_position_embeddings": 12,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    if architecture != "gpt2":
        config["intermediate_size"] = 32
    model = LanguageModel(architecture, config)
    assert model.vocab_size == 50
    assert model.context == 12
    assert model.token_losses(batch().tokens).shape == (3, 12)


def test_dropout_is_off_unless_asked():
    assert build_network("gpt2", TINY, None).config.resid_pdrop == 0
    assert build_network("gpt2", {**TINY, "resid_pdrop": 0.1}, None).config.resid_pdrop == 0.1


def test_unknown_architectures_and_keys_are_refused():
    with pytest.raises(UserError, match="gpt3"):
        build_network("gpt3", {}, None)
    with pytest.raises(UserError, match="did you mean 'n_layer'"):
        build_network("gpt2", {"n_layers": 3}, None)
    with pytest.raises(UserError, match="gpt2 refuses"):
        build_network("gpt2", {**TINY, "n_head": 3}, None)
    with pytest.raises(UserError, match="learning_rate"):
        LanguageModel(config=TINY, learning_rate=0.0)


def test_a_model_without_position_bound_is_built():
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
    assert LanguageModel("mamba", sizes).context is None
    assert not takes("mamba", "max_position_embeddings")
    assert takes("gpt2", "max_position_embeddings")


@given(warmup=st.integers(1, 50), total=st.integers(51, 500), final=st.floats(0, 1))
def test_the_schedule_warms_up_then_falls_to_its_final_value(warmup, total, final):
    def factor(step):
        return warmup_cosine(step, warmup=warmup, total=total, final=final)

    rising = [factor(step) for step in range(warmup)]
    falling = [factor(step) for step in range(warmup, total + 1)]
    assert rising == sorted(rising)
    assert rising[-1] == falling[0] == 1
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(falling))
    assert falling[-1] == pytest.approx(final)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra", "xlm", "megatron-bert"])
def test_architectures_that_see_later_tokens_are_refused(architecture):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"vocab_size": 50, **({"intermediate_size": 16} if architecture != "xlm" else {})}
    with pytest.raises(UserError, match=rf"model.architecture is {architecture}, which sees the"):
        LanguageModel(architecture, config)
    if architecture != "xlm":
        LanguageModel(architecture, {**config, "is_decoder": True})


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox", "mamba", "mixtral", "bloom"])
def test_causal_architectures_are_built_with_the_same_random_numbers(architecture, caplog):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 50}
    more = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16}
    config |= {key: value for key, value in more.items() if takes(architecture, key)}
    torch.manual_seed(0)
    network = build_network(architecture, config)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = LanguageModel(architecture, config)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.network.training == network.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not caplog.messages
    with torch.device("meta"):
        LanguageModel(architecture, config)


def test_what_cannot_be_tried_here_is_said(caplog, monkeypatch):
    network = build_network("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50})
    monkeypatch.setattr(network.transformer.h[0], "forward", None)
    check_causal(network, "gpt2")
    assert "model.architecture is gpt2: not known to be causal (TypeError" in caplog.text


def test_a_pretrained_network_trains_with_its_dropout(tmp_path):
    build_network("gpt2", TINY).save_pretrained(tmp_path)
    network = build_network("gpt2", {"resid_pdrop": 0.5}, str(tmp_path))
    tokens = batch().tokens[:, :12]
    assert network.training
    assert not torch.equal(network(input_ids=tokens).logits, network(input_ids=tokens).logits)


def test_a_pretrained_network_is_not_filled_up_with_random_layers(tmp_path):
    build_network("gpt2", TINY).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model.pretrained is .*lacks 12 of the weights .*h\.1"):
        build_network("gpt2", {"n_layer": 2}, str(tmp_path))


@pytest.mark.parametrize(
    "architecture", ["gemma", "cohere", "mamba", "mamba2", "olmo2", "phi3", "roberta", "opt"]
)
def test_every_token_has_a_row_that_is_trained(architecture):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 50, "is_decoder": True}
    more = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16}
    own = {"word_embed_proj_dim": 16, "ffn_dim": 16, "n_groups": 1, "state_size": 4}
    config = {k: v for k, v in {**sizes, **more, **own}.items() if takes(architecture, k)}
    if architecture == "mamba2":
        config |= {"head_dim": 8, "num_heads": 4}
    model = LanguageModel(architecture, config)
    tokens = torch.arange(13)[None]
    model.token_losses(tokens).mean().backward()
    gradient = model.network.get_input_embeddings().weight.grad
    assert (gradient.abs().sum(dim=1) > 0)[:12].all()
    assert (model.network.get_input_embeddings().weight.abs().sum(dim=1) > 0).all()


def test_weights_of_another_type_are_refused():
    with pytest.raises(UserError, match=r"model\.config\.dtype is bfloat16: .*trainer\.precision"):
        build_network("gpt2", {**TINY, "dtype": "bfloat16"})
