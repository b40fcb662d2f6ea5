"""Gradients at the token embeddings against autograd, sequence by sequence."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dograph.errors import UserError
from dograph.signals.token_gradients import EmbeddingReader

VOCABULARY, WIDTH, COUNT, LENGTH = 19, 16, 5, 9


def build(kind, tied):
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "tie_word_embeddings": tied}
    if kind == "gpt2":
        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        sizes = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
        return GPT2LMHeadModel(GPT2Config(**shape, **sizes, **none, bos_token_id=0, eos_token_id=0))
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
    sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "max_position_embeddings": LENGTH}
    return LlamaForCausalLM(LlamaConfig(**shape, **sizes, **heads, bos_token_id=0, eos_token_id=0))


def batch(seed=0):
    return torch.randint(VOCABULARY, (COUNT, LENGTH), generator=torch.manual_seed(seed))


def losses_of(model, tokens):
    """(B,) mean token losses, as training computes them."""
    logits = model(input_ids=tokens[:, :-1]).logits.transpose(1, 2)
    return torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(dim=1)


def exact_rows(model, tokens):
    """(B, V, d) gradients of the input embedding's rows, the output layer held apart."""
    weight = model.get_input_embeddings().weight
    found = []
    for row in tokens:
        table = weight.detach().clone().requires_grad_()
        embedded = table[row[None, :-1]]
        logits = model(inputs_embeds=embedded).logits.transpose(1, 2)
        loss = torch.nn.functional.cross_entropy(logits, row[None, 1:])
        found.append(torch.autograd.grad(loss, table)[0])
    return torch.stack(found)


def by_row(tokens, gradients):
    """(B, V, r) gradients summed by token."""
    rows = torch.zeros(len(tokens), VOCABULARY, gradients.shape[-1])
    for sequence, (ids, values) in enumerate(zip(tokens, gradients, strict=True)):
        rows[sequence].index_add_(0, ids, values)
    return rows


def read(model, reader, tokens, weights=None):
    """Training's own backward, read, with the losses' weights divided out."""
    weights = torch.full((COUNT,), 1 / COUNT) if weights is None else weights
    reader.record()
    losses = losses_of(model, tokens)
    assert reader.recorded
    reader.arm()
    (weights @ losses).backward()
    ids, gradients = reader.take()
    assert not reader.recorded
    return ids, gradients / weights[:, None, None]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_summed_by_token_they_are_the_embeddings_own_gradients(kind, tied):
    """With a tied output layer, without that layer's part."""
    model, tokens = build(kind, tied), batch()
    expected = exact_rows(model, tokens)
    ids, gradients = read(model, EmbeddingReader(model, rank=WIDTH), tokens)
    assert torch.equal(ids, tokens[:, :-1])
    assert gradients.shape == (COUNT, LENGTH - 1, WIDTH) and gradients.dtype == torch.float32
    torch.testing.assert_close(by_row(ids, gradients), expected, rtol=1e-4, atol=1e-6)
    if not tied:
        model.zero_grad()
        losses_of(model, tokens).mean().backward()
        whole = model.get_input_embeddings().weight.grad
        torch.testing.assert_close(expected.mean(dim=0), whole, rtol=1e-4, atol=1e-6)


def test_losses_weights_are_divided_out():
    model, tokens = build("gpt2", tied=True), batch()
    reader = EmbeddingReader(model, rank=8)
    _, even = read(model, reader, tokens)
    _, weighed = read(model, reader, tokens, torch.tensor([0.5, 0.1, 0.2, 0.15, 0.05]))
    torch.testing.assert_close(weighed, even, rtol=1e-4, atol=1e-7)


def test_a_backward_of_their_own_gives_the_same_and_no_gradients():
    model, tokens = build("llama", tied=True), batch()
    reader = EmbeddingReader(model, rank=8)
    _, expected = read(model, reader, tokens)
    model.zero_grad()
    reader.record()
    ids, found = reader.differentiate(losses_of(model, tokens))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(ids, tokens[:, :-1])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_projections_keep_inner_products_in_expectation():
    model, tokens = build("gpt2", tied=True), batch()
    _, exact = read(model, EmbeddingReader(model, rank=WIDTH), tokens)
    exact = exact.flatten(0, 1)
    products = []
    for seed in range(400):
        reader = EmbeddingReader(model, rank=4, seed=seed)
        projected = reader._project(exact)
        assert projected.shape == (len(exact), 4)
        products.append(projected @ projected.T)
        reader.detach()
    products = torch.stack(products)
    spread = products.std(dim=0) / 400**0.5
    off = (products.mean(dim=0) - exact @ exact.T).abs() / spread.clamp(min=1e-12)
    assert off.max() < 5 and off.mean() < 1.2


@pytest.mark.parametrize(("rank", "kept"), [(WIDTH - 1, WIDTH - 1), (WIDTH, WIDTH), (99, WIDTH)])
def test_narrow_embeddings_stay_as_they_are(rank, kept):
    model, tokens = build("gpt2", tied=True), batch()
    _, exact = read(model, EmbeddingReader(model, rank=10**6), tokens)
    _, found = read(model, EmbeddingReader(model, rank), tokens)
    assert found.shape[-1] == kept
    assert torch.equal(found, exact) == (kept == WIDTH)


def test_embeddings_that_are_not_trained_are_read_too():
    model, tokens = build("llama", tied=False), batch()
    expected = exact_rows(model, tokens)
    model.get_input_embeddings().weight.requires_grad_(False)
    reader = EmbeddingReader(model, rank=WIDTH)
    ids, gradients = read(model, reader, tokens)
    torch.testing.assert_close(by_row(ids, gradients), expected, rtol=1e-4, atol=1e-6)
    assert model.get_input_embeddings().weight.grad is None


def test_they_are_read_in_float32_where_the_model_is_in_bfloat16():
    model, tokens = build("gpt2", tied=True), batch()
    reader = EmbeddingReader(model, rank=8)
    _, expected = read(model, reader, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = read(model, reader, tokens)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


def test_training_is_not_touched_to_the_bit():
    """Gradients and random state, with dropout, and with a probe between forward and backward."""

    def trained(with_readers):
        model, tokens = build("gpt2", tied=True), batch()
        model.transformer.drop.p = 0.1
        readers = [EmbeddingReader(model, rank=8) for _ in range(2)] if with_readers else []
        torch.manual_seed(7)
        for step in range(2):
            if readers:
                readers[0].record()
            loss = losses_of(model, tokens).mean()
            if readers:
                with torch.random.fork_rng(devices=[]):
                    readers[1].record()
                    readers[1].differentiate(losses_of(model, batch(seed=1 + step)))
                readers[0].arm()
            loss.backward()
            if readers:
                readers[0].take()
        return [parameter.grad for parameter in model.parameters()], torch.get_rng_state()

    plain, random_state = trained(with_readers=False)
    found, other_state = trained(with_readers=True)
    assert all(map(torch.equal, plain, found))
    assert torch.equal(random_state, other_state)


def test_two_readers_do_not_disturb_each_other():
    model, tokens, others = build("llama", tied=True), batch(), batch(seed=1)
    reader, probe = EmbeddingReader(model, rank=8), EmbeddingReader(model, rank=8)
    _, alone = read(model, reader, tokens)
    _, probed_alone = read(model, probe, others)
    reader.record()
    losses = losses_of(model, tokens)
    probe.record()
    ids, probed = probe.differentiate(losses_of(model, others))
    reader.arm()
    losses.mean().backward()
    mine, found = reader.take()
    torch.testing.assert_close(found * COUNT, alone, rtol=1e-4, atol=1e-7)
    assert torch.equal(mine, tokens[:, :-1])
    torch.testing.assert_close(probed, probed_alone, rtol=1e-4, atol=1e-7)
    assert torch.equal(ids, others[:, :-1])


def test_only_what_is_recorded_and_armed_is_read():
    model, tokens = build("gpt2", tied=True), batch()
    reader = EmbeddingReader(model, rank=8)
    losses_of(model, tokens).mean().backward()
    assert not reader.recorded
    reader.record()
    with torch.no_grad():  # a validation in between is none of its business
        losses_of(model, batch(seed=1))
    assert not reader.recorded
    losses = losses_of(model, tokens)
    losses.sum().backward(retain_graph=True)  # not armed
    with pytest.raises(UserError, match="no gradient"):
        reader.take()
    with pytest.raises(UserError, match="nothing was recorded"):
        reader.differentiate(losses)


def test_detaching_removes_the_hook():
    model = build("gpt2", tied=True)
    embedding = model.get_input_embeddings()
    before = len(embedding._forward_hooks)
    readers = [EmbeddingReader(model, rank=8) for _ in range(2)]
    assert len(embedding._forward_hooks) == before + 2
    for reader in readers:
        reader.detach()
    assert len(embedding._forward_hooks) == before
    readers[0].record()
    losses_of(model, batch())
    assert not readers[0].recorded
