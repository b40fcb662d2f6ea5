"""Sketches of whole models are exact, architecture by architecture."""

import logging

import pytest
import torch
from torch import nn

from dograph.signals.recorded_forward import SketchMode
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.network import build_network, takes

WORDS, SEQUENCES, TOKENS = 37, 3, 8
SIZES = {
    **{"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "ffn_dim": 24},
    **{"max_position_embeddings": 16, "word_embed_proj_dim": 16, "state_size": 4, "n_groups": 1},
    **{"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2},
    "moe_intermediate_size": 24,
}
OWN = {
    "mamba2": {"num_heads": 4},
    "bloom": {"n_layer": 2, "n_head": 2},
    "deepseek_v3": {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "n_group": 1}
    | {"qk_nope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "topk_group": 1}
    | {"head_dim": 4},
}
DENSE = [
    *("bloom", "cohere", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama"),
    *("mamba", "mamba2", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3"),
]
EXPERTS = ["deepseek_v3", "gpt_oss", "mixtral", "olmoe", "qwen3_moe"]
"""Their grouped products of matrices know no float64."""


def tiny(architecture):
    torch.manual_seed(0)
    config = {key: value for key, value in SIZES.items() if takes(architecture, key)}
    network = build_network(architecture, config | OWN.get(architecture, {})).train()
    with torch.no_grad():  # gains of 1 and biases of 0 would hide where they are used
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network if architecture in EXPERTS else network.double()


def losses_of(network, tokens):
    logits = network(input_ids=tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(
        logits.transpose(1, 2), tokens[:, 1:], reduction="none"
    ).mean(dim=1)


def batch():
    tokens = torch.randint(WORDS, (SEQUENCES, TOKENS + 1), generator=torch.manual_seed(1))
    tokens[:, 2], tokens[:, 3] = 0, 1  # many architectures' ids of padding
    return tokens


@pytest.mark.parametrize("architecture", DENSE + EXPERTS)
def test_inner_products_are_those_of_all_parameters_gradients(architecture):
    network, tokens = tiny(architecture), batch()
    exact = SketchSettings(blocks="model", exact=True)
    gradients = SequenceSketcher(network, exact).record().sketch(losses_of(network, tokens))
    sketcher = SequenceSketcher(network, SketchSettings(blocks="model", rank=10_000))
    sketches = sketcher.record().sketch(losses_of(network, tokens))
    count = sum(each.numel() for each in network.parameters())
    assert sketcher.coverage() == (count, count)
    expected, kernel = (each.double() @ each.double().T for each in (gradients, sketches))
    tolerance = 1e-4 if architecture in EXPERTS else 1e-7
    assert (kernel - expected).norm() < tolerance * expected.norm()
    forward = sketcher.record(SketchMode.READ)
    losses = losses_of(network, tokens)
    reader, weights = forward.reader(), torch.tensor([0.2, 0.5, 0.3]).to(losses)
    reader.arm()
    (weights * losses).sum().backward()
    read = reader.sketch(weights)
    # Some norms work in float32, whatever the model's type.
    assert (read - sketches).norm() < 1e-4 * sketches.norm()


@pytest.mark.parametrize(("blocks", "rank"), [("last", 3), ("all", 3), ("model", 4)])
@pytest.mark.parametrize("architecture", ["llama", "mamba", "mixtral"])
def test_training_s_gradients_are_those_without_sketches(architecture, blocks, rank):
    network, tokens = tiny(architecture), batch()
    weights = torch.tensor([0.2, 0.5, 0.3])
    (weights * losses_of(network, tokens)).sum().backward()
    plain = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    sketcher = SequenceSketcher(network, SketchSettings(blocks=blocks, rank=rank))
    forward = sketcher.record(SketchMode.SHARED)
    losses = losses_of(network, tokens)
    sketch, weighted_loss = forward.sketch_and_share(losses)
    assert sketch.isfinite().all()
    weighted_loss(weights.to(losses), losses).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-4, atol=1e-6)
    sketcher.detach()


def test_projections_of_repeated_layers_are_unbiased():
    network, tokens, draws = tiny("mixtral"), batch(), 40
    exact = SketchSettings(blocks="model", exact=True)
    gradients = SequenceSketcher(network, exact).record().sketch(losses_of(network, tokens))
    expected, products = gradients.double() @ gradients.double().T, []
    for seed in range(draws):
        sketcher = SequenceSketcher(network, SketchSettings(blocks="model", rank=4, seed=seed))
        sketch = sketcher.record().sketch(losses_of(network, tokens)).double()
        products.append(sketch @ sketch.T)
        sketcher.detach()
    stacked = torch.stack(products)
    error = (stacked.mean(dim=0) - expected) / (stacked.std(dim=0) / draws**0.5)
    assert error.abs().max() < 5


class MixesSequences(nn.Module):
    """Adds the batch's mean to every sequence; has ``rows`` × 16 parameters."""

    def __init__(self, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(rows, 16) / rows)

    def forward(self, hidden):
        return hidden * self.weight.sum(dim=0) + hidden.mean(dim=0, keepdim=True)


@pytest.mark.parametrize(("rows", "level", "share"), [(2, "INFO", 99), (1000, "WARNING", 26)])
def test_what_cannot_be_sketched_is_said_once(rows, level, share, caplog):
    network, tokens = tiny("llama"), batch()
    network.model.norm = MixesSequences(rows).double()
    sketcher = SequenceSketcher(network, SketchSettings(blocks="model"))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            sketcher.record().sketch(losses_of(network, tokens))
            sketcher.tell_coverage()
    (record,) = [each for each in caplog.records if "sketches see" in each.getMessage()]
    count = sum(each.numel() for each in network.parameters())
    assert share == round(100 * (count - 16 * rows) / count)
    assert record.levelname == level
    assert f"sketches see {share} % of the parameters that sketch.blocks (model) names" in (
        record.getMessage()
    )
    assert "model.norm (a sequence alone gives another output than among others)" in (
        record.getMessage()
    )
