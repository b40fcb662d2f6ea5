"""Invariants 5 and 6: sketches are unbiased and never change training."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
)
from transformers.pytorch_utils import Conv1D

from dograph.errors import UserError
from dograph.signals.layers import transformer_blocks
from dograph.signals.recorded_forward import SketchMode
from dograph.signals.shared_backward import weighted_sum
from dograph.signals.sketches import SequenceSketcher, SketchSettings

VOCABULARY = 31
WIDTH = 24
CONFIGS = {
    "transformer.h": GPT2Config(
        vocab_size=VOCABULARY, n_positions=16, n_embd=WIDTH, n_layer=3, n_head=2
    ),
    "model.layers": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
    ),
    "gpt_neox.layers": GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
    ),
}


def tiny(blocks="transformer.h"):
    """A model in training mode, so GPT-2 with dropout."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[blocks]).train()


def tokens(batch=4, length=9, seed=1):
    return torch.randint(VOCABULARY, (batch, length), generator=torch.manual_seed(seed))


def sequence_losses(model, batch):
    logits = model(batch[:, :-1]).logits
    losses = nn.functional.cross_entropy(
        logits.float().transpose(1, 2), batch[:, 1:], reduction="none"
    )
    return losses.mean(dim=1)


def sketch_of(model, batch, step=0, **settings):
    sketcher = SequenceSketcher(model, SketchSettings(**settings))
    sketch = sketcher.record().sketch(sequence_losses(model, batch), step)
    sketcher.detach()
    return sketch


@pytest.mark.parametrize("blocks", CONFIGS)
@pytest.mark.parametrize("chosen", ["last", "all"])
def test_wide_ranks_keep_the_exact_gradients(blocks, chosen):
    # n ≤ r on both sides: nothing is projected, so inner products are the exact ones.
    model, batch = tiny(blocks).eval(), tokens()
    sketcher = SequenceSketcher(model, SketchSettings(blocks=chosen, rank=1000))
    prefix = f"{blocks}.2." if chosen == "last" else f"{blocks}."
    assert sketcher.modules and all(name.startswith(prefix) for name in sketcher.modules)
    sketch = sketcher.record().sketch(sequence_losses(model, batch))
    names = list(sketcher.modules) if chosen == "all" else "last"
    exact = sketch_of(model, batch, blocks=names, exact=True)
    numbers = sum(module.weight.numel() for module in sketcher.modules.values())
    assert sketch.shape == exact.shape == (4, numbers)
    torch.testing.assert_close(sketch @ sketch.T, exact @ exact.T, rtol=1e-4, atol=1e-7)


def test_exact_gradients_are_those_of_one_backward_a_sequence():
    model, batch = tiny().eval(), tokens(batch=3)
    exact = sketch_of(model, batch, blocks="all", exact=True)
    for row, sequence in zip(exact, batch, strict=True):
        model.zero_grad()
        sequence_losses(model, sequence[None]).sum().backward()
        alone = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "blocks",
    ["transformer.h", "model.layers", "gpt_neox.layers"],  # GPT-2's embedding is its output, too
)
@pytest.mark.parametrize("rank", [1000, 8])
def test_the_whole_model_is_sketched_with_embeddings_biases_and_norms(blocks, rank):
    model, batch = tiny(blocks).eval(), tokens()
    exact = sketch_of(model, batch, blocks="model", exact=True).double()
    if rank == 1000:
        sketch = sketch_of(model, batch, blocks="model", rank=rank)
        torch.testing.assert_close(sketch.double() @ sketch.double().T, exact @ exact.T)
        return
    draws = 200
    products = []
    for seed in range(draws):
        sketch = sketch_of(model, batch, blocks="model", rank=rank, seed=seed).double()
        products.append(sketch @ sketch.T)
    stacked = torch.stack(products)
    error = (stacked.mean(dim=0) - exact @ exact.T) / (stacked.std(dim=0) / math.sqrt(draws))
    assert error.abs().max() < 5


@pytest.mark.parametrize("fresh", [False, True])
def test_inner_products_are_unbiased(fresh):
    # The mean over 400 draws lies within 5 standard errors of the exact value for all 10 pairs:
    # by chance that fails once in 10⁵ runs, and the draws are seeded.
    model, batch, draws = tiny().eval(), tokens(), 400
    exact = sketch_of(model, batch, exact=True).double()
    products = []
    for draw in range(draws):
        seed, step = (0, draw) if fresh else (draw, 0)
        sketch = sketch_of(model, batch, step=step, rank=4, fresh=fresh, seed=seed).double()
        products.append(sketch @ sketch.T)
    stacked = torch.stack(products)
    error = (stacked.mean(dim=0) - exact @ exact.T) / (stacked.std(dim=0) / math.sqrt(draws))
    assert error.abs().max() < 5
    # And the bound is a sharp one: it is far less than the products themselves.
    assert (5 * stacked.std(dim=0) / math.sqrt(draws)).max() < 0.3 * (exact @ exact.T).max()


@pytest.mark.parametrize("matrix", [lambda: nn.Linear(6, 5), lambda: Conv1D(5, 6)])
def test_one_projected_side(matrix):
    # n_out = 5 ≤ r is kept, n_in = 6 is projected: the sketch is Pᵀ times the exact gradient.
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(matrix=matrix()))
    sketcher = SequenceSketcher(model, SketchSettings(blocks="matrix", rank=5))
    source = torch.randn(3, 7, 6)
    forward = sketcher.record()
    output = model(source)
    losses = output.square().mean(dim=(1, 2))
    gradient = 2 * output.detach() / 35
    full = torch.einsum("bti,bto->bio", source, gradient)
    projection = sketcher.projections.draw("matrix/in", 6, sketcher.settings.rank, None)
    expected = torch.einsum("ir,bio->bro", projection, full).flatten(1)
    torch.testing.assert_close(forward.sketch(losses), expected)
    assert projection.square().mean() == pytest.approx(1 / 5, rel=0.5)


def test_repeated_module_sums():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    settings = SketchSettings(blocks="0", rank=9)
    sketcher = SequenceSketcher(model, settings)
    forward = sketcher.record()
    losses = model(torch.randn(3, 5, 4)).square().mean(dim=(1, 2))
    exact = SequenceSketcher(model, SketchSettings(blocks="0", exact=True)).record().sketch(losses)
    sketch = forward.sketch(losses).reshape(3, 4, 4).transpose(1, 2).flatten(1)
    torch.testing.assert_close(sketch, exact)


@pytest.mark.parametrize("exact", [False, True])
def test_training_is_bitwise_the_same_with_sketches_on(exact):
    def train(observe):
        model, losses_seen = tiny(), []
        torch.manual_seed(3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        settings = SketchSettings(blocks="all", fresh=True, exact=exact)
        sketcher = SequenceSketcher(model, settings) if observe else None
        for step in range(4):
            forward = sketcher.record() if observe else None
            losses = sequence_losses(model, tokens(seed=step))  # dropout draws random numbers
            if forward:
                random_state = torch.get_rng_state()
                gradients = [parameter.grad for parameter in model.parameters()]
                forward.sketch(losses, step)
                assert torch.equal(torch.get_rng_state(), random_state)
                after = [parameter.grad for parameter in model.parameters()]
                assert all(a is b for a, b in zip(gradients, after, strict=True))
            (losses * torch.full((4,), 1 / 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            losses_seen.append(losses.detach())
        return torch.stack(losses_seen), model.state_dict()

    (plain, plain_state), (observed, observed_state) = train(False), train(True)
    assert torch.equal(plain, observed)
    assert plain_state.keys() == observed_state.keys()
    assert all(torch.equal(plain_state[name], observed_state[name]) for name in plain_state)


@pytest.mark.parametrize("mode", SketchMode)
def test_exact_gradients_take_backwards_of_their_own_whatever_is_asked(mode):
    model, batch = tiny().eval(), tokens()
    forward = SequenceSketcher(model, SketchSettings(exact=True)).record(mode)
    assert forward.mode is SketchMode.OWN
    sketch, reduce_loss = forward.sketch_and_share(sequence_losses(model, batch))
    assert reduce_loss is weighted_sum
    assert torch.equal(sketch, sketch_of(model, batch, exact=True))


def test_projections_depend_on_seed_and_step_only():
    model, batch = tiny().eval(), tokens()
    first = sketch_of(model, batch, step=1)
    assert torch.equal(first, sketch_of(model, batch, step=2))
    assert not torch.equal(first, sketch_of(model, batch, seed=1))
    fresh = sketch_of(model, batch, step=1, fresh=True)
    assert torch.equal(fresh, sketch_of(model, batch, step=1, fresh=True))
    assert not torch.equal(fresh, sketch_of(model, batch, step=2, fresh=True))


def test_bf16_autocast_is_close_to_float32():
    model, batch = tiny().eval(), tokens()
    plain = sketch_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        sketcher = SequenceSketcher(model, SketchSettings())
        mixed = sketcher.record().sketch(sequence_losses(model, batch))
        forward = sketcher.record()
        losses = sequence_losses(model, batch)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, forward.sketch(losses))  # autocast does not reach the projection
    # bf16 keeps 8 bits: a few roundings in a row stay within 5 %.
    assert (mixed - plain).norm() < 0.05 * plain.norm()
    assert not torch.equal(mixed, plain)


def test_one_forward_is_recorded_and_sketched_once():
    model, batch = tiny(), tokens()
    sketcher = SequenceSketcher(model, SketchSettings())
    forward = sketcher.record()
    losses = sequence_losses(model, batch)
    assert len(forward._calls) == len(sketcher.modules)
    for _ in range(3):  # later forwards are not recorded
        sequence_losses(model, batch)
    assert len(forward._calls) == len(sketcher.modules)
    forward.sketch(losses)
    assert forward._calls == []
    with pytest.raises(UserError, match="nothing was recorded"):
        forward.sketch(losses)


def test_without_a_forward_there_is_nothing_to_sketch():
    model, batch = tiny(), tokens()
    sketcher = SequenceSketcher(model, SketchSettings())
    losses = sequence_losses(model, batch)
    with pytest.raises(UserError, match="nothing was recorded"):
        sketcher.record().sketch(losses)
    forward = sketcher.record()
    with torch.no_grad():  # a validation is no forward to sketch
        sequence_losses(model, batch)
    assert len(forward.sketch(sequence_losses(model, batch))) == len(batch)
    forward = sketcher.record()
    sketcher.detach()
    with pytest.raises(UserError, match="nothing was recorded"):
        forward.sketch(sequence_losses(model, batch))


def test_activation_checkpointing_records_once():
    model, batch = tiny().train(), tokens()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = sketch_of(model, batch, blocks="all")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    sketcher = SequenceSketcher(model, SketchSettings(blocks="all"))
    forward = sketcher.record()
    losses = sequence_losses(model, batch)
    torch.testing.assert_close(forward.sketch(losses), plain)
    losses.sum().backward()
    assert forward._calls == []


def test_blocks_by_name_and_mistakes():
    model = tiny()
    chosen = SequenceSketcher(model, SketchSettings(blocks=["transformer.h.1.mlp"])).modules
    assert list(chosen) == ["transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj"]
    with pytest.raises(UserError, match=r"transformer\.h\.1\.mpl.*transformer\.h\.1\.mlp"):
        SequenceSketcher(model, SketchSettings(blocks=["transformer.h.1.mpl"]))
    with pytest.raises(UserError, match="no trainable"):
        SequenceSketcher(model, SketchSettings(blocks="transformer.wte"))
    with pytest.raises(UserError, match="ModuleList"):
        SequenceSketcher(nn.Linear(2, 2), SketchSettings())
    with pytest.raises(UserError, match="rank is 0"):
        SketchSettings(rank=0)
    with pytest.raises(UserError, match="requires_grad=False"):
        SequenceSketcher(model, SketchSettings()).record().sketch(torch.zeros(3))


def test_longer_inner_lists_are_not_the_blocks():
    block = nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(8))})
    few = nn.ModuleList([nn.Linear(2, 2)])
    model = nn.ModuleDict({"few": few, "layers": nn.ModuleList([block] * 3)})
    assert transformer_blocks(model) == "layers"


def test_unused_matrix_is_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, x):
            self.layers[1](x)
            return self.layers[0](x)

    half = Half()
    sketcher = SequenceSketcher(half, SketchSettings(blocks="all"))
    with pytest.raises(UserError, match=r"layers\.1"):
        sketcher.record().sketch(half(torch.ones(3, 4, 2)).mean(dim=(1, 2)))
