import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixing_callback import train
from torch.nn import functional

from dograph.mixers import DoGraph, Stratified
from dograph.signals.sketches import SketchSettings
from dograph.training import cross_entropy
from dograph.training.cross_entropy import token_losses


def by_torch(logits, targets):
    flat = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 5),
    tokens=st.integers(1, 9),
    vocabulary=st.integers(1, 40),
    at_once=st.integers(1, 300),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_it_is_torchs_whatever_is_worked_on_at_once(
    batch, tokens, vocabulary, at_once, scale, seed
):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, tokens, vocabulary)
    logits = (scale * torch.randn(shape, generator=generator).double()).requires_grad_()
    targets = torch.randint(vocabulary, (batch, tokens), generator=generator)
    weights = torch.randn(batch, tokens, generator=generator).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cross_entropy.AT_ONCE, "cpu", at_once)
        found = token_losses(logits, targets)
        (gradient,) = torch.autograd.grad((weights * found).sum(), logits)
    expected = by_torch(logits, targets)
    (of_torch,) = torch.autograd.grad((weights * expected).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * scale)
    torch.testing.assert_close(gradient, of_torch, rtol=1e-12, atol=1e-12)


def test_half_precision_logits_give_float32_losses():
    logits = torch.randn(2, 3, 50).bfloat16().requires_grad_()
    targets = torch.randint(50, (2, 3))
    losses = token_losses(logits, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, by_torch(logits.float(), targets))
    losses.sum().backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_it_agrees_with_finite_differences():
    logits = torch.randn(2, 2, 7).double().requires_grad_()
    targets = torch.randint(7, (2, 2))
    assert torch.autograd.gradcheck(token_losses, (logits, targets))


def test_logits_that_are_not_finite_give_losses_that_are_not():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = torch.nan
    logits[0, 2, 2] = torch.inf
    losses = token_losses(logits, torch.zeros(1, 3, dtype=torch.int64))
    assert losses[0].isfinite().tolist() == [True, False, False]


def test_the_backward_can_be_taken_twice():
    logits = torch.randn(2, 3, 5).requires_grad_()
    losses = token_losses(logits, torch.randint(5, (2, 3)))
    first = torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]
    again = torch.autograd.grad(losses.sum(), logits)[0]
    assert torch.equal(first, again)


@pytest.mark.slow
def test_a_compiled_run_trains_as_one_that_is_not(store, corpus_settings):
    """Blocks and loss compiled for real, with gradients of sequences taken before training's."""
    for mixer, blocks in ((Stratified, "last"), (lambda: DoGraph(clusters=4), "last")):
        given = {"steps": 3, "sketch": SketchSettings(rank=4, blocks=blocks)}
        given["val_check_interval"], given["limit_val_batches"] = 2, 1.0
        plain = train(corpus_settings, mixer(), **given)
        compiled = train(corpus_settings, mixer(), model={"compile": True}, **given)
        for (losses, weights), (expected, wanted) in zip(compiled[1], plain[1], strict=True):
            torch.testing.assert_close(losses, expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(weights, wanted, atol=1e-3, rtol=0)
        torch.testing.assert_close(compiled[0], plain[0], atol=1e-3, rtol=0)
