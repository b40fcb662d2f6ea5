"""Invariant 7: the theorem's identity between mean gradients and MMD, on a real model."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from dograph.graph.kernel import gradient_kernel, kernel_distances, squared_distances
from dograph.signals.sketches import SequenceSketcher, SketchSettings


def test_distance_of_mean_gradients_is_the_squared_mmd():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=23, n_positions=8, n_embd=12, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).double().eval()
    sketcher = SequenceSketcher(model, SketchSettings(blocks="all", exact=True))
    tokens = torch.randint(23, (7, 8))
    logits = model(tokens[:, :-1]).logits.transpose(1, 2)
    losses = torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(1)
    gradients = sketcher.record().sketch(losses)
    assert gradients.dtype == torch.float64
    in_first, in_second = torch.tensor([0, 3, 4]), torch.tensor([1, 2, 5, 6])
    first, second = gradients[in_first].mean(0), gradients[in_second].mean(0)
    distance = (first - second).square().sum()
    K = gradient_kernel(gradients)
    within = K[in_first][:, in_first].mean() + K[in_second][:, in_second].mean()
    mmd = within - 2 * K[in_first][:, in_second].mean()  # the biased V-statistic
    assert distance > 0.01
    torch.testing.assert_close(mmd, distance, rtol=1e-12, atol=0)
    graph = squared_distances(torch.stack([first, second]))
    torch.testing.assert_close(graph[0, 1], distance, rtol=1e-12, atol=0)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 9), k=st.integers(1, 9), shift=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_distances_against_direct_differences(m, k, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    means = shift + torch.randn(m, k, generator=generator, dtype=torch.float64)
    direct = (means[:, None] - means[None]).square().sum(-1)
    distances = squared_distances(means)
    # A common shift of 10⁴ costs nothing: it is taken out before products are formed.
    torch.testing.assert_close(distances, direct, rtol=1e-9, atol=1e-11)
    assert torch.equal(distances, distances.T) and (distances.diagonal() == 0).all()
    centred = means - means.mean(0)
    torch.testing.assert_close(kernel_distances(gradient_kernel(centred)), distances)
