import gc
import logging
import weakref

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from dograph.signals.recorded_forward import SketchMode
from dograph.signals.shared_backward import SharedBackward
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.cross_entropy import token_losses

VOCABULARY = 53
SIZES = {
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 12},
    "llama": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 12},
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"intermediate_size": 24, "max_position_embeddings": 12, "hidden_dropout": 0.0},
    "qwen2": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 12}
    | {"tie_word_embeddings": True},
}


def build(architecture="gpt2", dtype=torch.float64, **more):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, **SIZES[architecture], **more}
    if architecture == "gpt2":
        sizes |= {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}
    config = AutoConfig.for_model(architecture, **sizes)
    config.pad_token_id = None
    return AutoModelForCausalLM.from_config(config).to(dtype)


def losses_of(model, tokens):
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return token_losses(logits, tokens[:, 1:]).mean(dim=1)


def batch(sequences=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (sequences, 11), generator=generator)
    weights = torch.rand(sequences, generator=generator)
    weights[0] = 0
    return tokens, weights / weights.sum()


def both_ways(model, blocks, tokens, weights, factor=1.0):
    """Loss, gradients and sketches in the plain way, and with one backward."""
    results = []
    for mode in (SketchMode.OWN, SketchMode.SHARED):
        model.zero_grad()
        sketcher = SequenceSketcher(model, SketchSettings(blocks=blocks, rank=3))
        forward = sketcher.record(mode)
        losses = losses_of(model, tokens)
        sketch, reduce_loss = forward.sketch_and_share(losses)
        loss = reduce_loss(weights.to(losses.dtype), losses)
        (factor * loss).backward()
        shared = isinstance(getattr(reduce_loss, "__self__", None), SharedBackward)
        sketcher.detach()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients, sketch, shared))
    return results


@pytest.mark.parametrize("blocks", ["last", "all", "model"])
@pytest.mark.parametrize("architecture", list(SIZES))
def test_gradients_are_those_of_the_weighted_loss(architecture, blocks):
    model = build(architecture)
    tokens, weights = batch()
    plain, shared = both_ways(model, blocks, tokens, weights, factor=0.5)
    assert shared[3], "it went the plain way"
    torch.testing.assert_close(shared[0], plain[0], rtol=1e-12, atol=0)
    assert torch.equal(shared[2], plain[2]), "the sketches differ"
    assert shared[1].keys() == plain[1].keys()
    # Llama's norms work in float32, whatever the model's type.
    tolerance = 1e-12 if architecture in ("gpt2", "gpt_neox") else 1e-6
    for name, gradient in plain[1].items():
        error = (shared[1][name] - gradient).abs().max() / gradient.abs().max()
        assert error < tolerance, (name, error)


def test_they_are_equal_to_float32s_rounding():
    model = build(dtype=torch.float32)
    plain, shared = both_ways(model, "last", *batch())
    for name, gradient in plain[1].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(shared[1][name], gradient, rtol=0, atol=2e-6 * scale, msg=name)


def test_micro_batches_add_up():
    model = build()
    parts = [batch(seed=seed) for seed in (1, 2)]
    sketcher = SequenceSketcher(model, SketchSettings())
    gradients = []
    for mode in (SketchMode.OWN, SketchMode.SHARED):
        model.zero_grad()
        for tokens, weights in parts:
            forward = sketcher.record(mode)
            losses = losses_of(model, tokens)
            forward.sketch_and_share(losses)[1](weights.double(), losses).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_frozen_parameters_get_nothing():
    model = build()
    model.transformer.h[2].mlp.c_fc.weight.requires_grad_(False)
    model.transformer.ln_f.bias.requires_grad_(False)
    plain, shared = both_ways(model, "last", *batch())
    assert shared[3] and shared[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(shared[1][name], gradient)


class Skips(nn.Module):
    """Reads its first embedding again in its head: no one place that all of it goes through."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.extra = nn.Parameter(torch.ones(16, dtype=torch.float64))

    def forward(self, input_ids, use_cache):
        hidden = self.model.transformer(input_ids, use_cache=use_cache).last_hidden_state
        embedded = self.model.transformer.wte(input_ids)
        return type("Out", (), {"logits": self.model.lm_head(hidden * self.extra + embedded)})


def test_what_bypasses_the_blocks_goes_the_plain_way(caplog):
    model = Skips(build())
    with caplog.at_level(logging.INFO):
        plain, shared = both_ways(model, "last", *batch())
    assert not shared[3] and "a backward of their own" in caplog.text
    for name, gradient in plain[1].items():
        assert torch.equal(shared[1][name], gradient), name


def test_what_changes_an_output_in_place_goes_the_plain_way():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "olmo", vocab_size=VOCABULARY, clip_qkv=0.01, **SIZES["llama"], pad_token_id=None
        )
    ).double()
    plain, shared = both_ways(model, "last", *batch())
    assert not shared[3]
    assert all(torch.equal(shared[1][name], gradient) for name, gradient in plain[1].items())


@pytest.mark.parametrize("architecture", ["mixtral", "gpt_oss"])
def test_layers_that_return_other_things_go_the_plain_way(architecture):
    sizes = {**SIZES["llama"], "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}
    config = AutoConfig.for_model(architecture, vocab_size=VOCABULARY, **sizes, pad_token_id=None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    plain, shared = both_ways(model, "last", *batch())
    assert not shared[3]
    assert all(torch.equal(shared[1][name], gradient) for name, gradient in plain[1].items())


class UsesItsEmbeddingAgain(nn.Module):
    """Has its token embedding as output layer without telling."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, use_cache):
        hidden = self.model(input_ids, use_cache=use_cache).last_hidden_state
        logits = nn.functional.linear(hidden, self.model.wte.weight)
        return type("Out", (), {"logits": logits})


def test_a_parameter_that_is_used_outside_its_layer_goes_the_plain_way():
    model = UsesItsEmbeddingAgain(build().transformer)
    plain, shared = both_ways(model, "model", *batch())
    assert not shared[3]
    assert all(torch.equal(shared[1][name], gradient) for name, gradient in plain[1].items())


class ScalesTokens(nn.Module):
    """Multiplies what it embeds before it adds positions."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, use_cache):
        embedded = 3 * self.model.transformer.wte(input_ids)
        return self.model(inputs_embeds=embedded, use_cache=use_cache)


def test_positions_that_are_not_added_to_tokens_go_the_plain_way():
    plain, shared = both_ways(ScalesTokens(build()), "model", *batch())
    assert not shared[3]
    assert all(torch.equal(shared[1][name], gradient) for name, gradient in plain[1].items())


def test_named_blocks_go_the_plain_way():
    plain, shared = both_ways(build(), ["transformer.h.1.mlp"], *batch())
    assert not shared[3]
    assert all(torch.equal(shared[1][name], gradient) for name, gradient in plain[1].items())


def test_under_bfloat16_it_is_equal_to_its_rounding():
    model = build(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, shared = both_ways(model, "last", *batch())
    assert shared[3]
    for name, gradient in plain[1].items():
        assert shared[1][name].dtype == torch.float32
        error = (shared[1][name] - gradient).norm() / gradient.norm()
        assert error < 0.02, (name, error)


def test_it_frees_the_batch():
    model = build()
    tokens, weights = batch()
    sketcher = SequenceSketcher(model, SketchSettings())
    forward = sketcher.record(SketchMode.SHARED)
    losses = losses_of(model, tokens)
    sketch, reduce_loss = forward.sketch_and_share(losses)
    held = weakref.ref(reduce_loss.__self__)
    outputs = {call.name: call.output.numel() for call, _ in held().calls}
    assert outputs["lm_head"] == 0, "the logits are held until the backward"
    loss = reduce_loss(weights.double(), losses)
    del reduce_loss, losses
    assert held() is not None
    loss.backward()
    gc.collect()
    assert held() is None and not sketch.requires_grad
