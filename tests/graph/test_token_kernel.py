"""The kernel of domains' mean gradients at token embeddings, against direct computation."""

import pytest
import torch

from dograph.graph.token_kernel import SMALLEST_ROW, TokenKernel
from dograph.signals.batch_signals import TokenGradients

VOCABULARY, RANK, TOKENS = 12, 5, 7


def sequences(domain, seed, means=None, noise=1.0, scale=None):
    """Token gradients of (n,) domains: a mean for each domain and token, and noise."""
    generator = torch.Generator().manual_seed(seed)
    domain = torch.as_tensor(domain)
    tokens = torch.randint(VOCABULARY, (len(domain), TOKENS), generator=generator)
    gradients = noise * torch.randn(len(domain), TOKENS, RANK, generator=generator)
    if means is not None:
        gradients = gradients + means[domain[:, None], tokens]
    if scale is not None:
        gradients = gradients * scale[tokens][:, :, None]
    return TokenGradients(domain, tokens, gradients)


def filled(batches, rows, close_each=False):
    kernel = TokenKernel(rows)
    for batch in batches:
        kernel.add(batch, VOCABULARY)
        if close_each:
            kernel.close()
    kernel.close()
    return kernel


def everything(rows):
    return torch.ones(rows, dtype=torch.bool)


def half_means(batches, rows):
    """(2, R, V, r) means of each half's sequences, by loops."""
    sums, counts = torch.zeros(2, rows, VOCABULARY, RANK).double(), torch.zeros(2, rows)
    for batch in batches:
        for place, domain in enumerate(batch.domain.tolist()):
            half = int(batch.tokens[place].sum()) % 2
            counts[half, domain] += 1
            for token, gradient in zip(batch.tokens[place], batch.gradients[place], strict=True):
                sums[half, domain, token] += gradient
    return sums / counts.clamp(min=1)[:, :, None, None]


def test_it_is_the_kernel_of_means_with_rows_of_one_size():
    batches = [sequences(torch.arange(8) % 3, seed) for seed in range(4)]
    found, error = filled(batches, 3).kernel(everything(3))
    halves = half_means(batches, 3)
    whole = halves.mean(dim=0)
    size = whole.square().mean(dim=(0, 2))
    scale = (size + SMALLEST_ROW * size.mean()).rsqrt()  # once a product, as in Adam's step
    expected = torch.einsum("ivr,v,jvr->ij", whole, scale, whole)
    own = torch.einsum("ivr,v,ivr->i", halves[0], scale, halves[1])
    expected = expected - torch.diag(expected.diagonal()) + torch.diag(own)
    ratio = found / expected  # the means' common size is another
    torch.testing.assert_close(ratio, ratio[0, 0].expand(3, 3), rtol=1e-4, atol=0)
    difference = torch.einsum("ivr,v,jvr->ij", halves[0] - halves[1], scale, whole).abs() / 2
    torch.testing.assert_close(error, difference * ratio[0, 0], rtol=1e-3, atol=1e-7)
    assert found.dtype == error.dtype == torch.float64
    assert torch.equal(found, found.T)


def test_a_domains_own_product_is_without_bias():
    """In the mean over many draws; of one mean over all sequences, noise would add its part."""
    means = torch.randn(1, VOCABULARY, RANK, generator=torch.manual_seed(0)) / 3
    found, biased = [], []
    for seed in range(300):
        first, second = half_means([sequences([0] * 12, seed, means)], 1)[:, 0]
        found.append((first * second).sum().item())
        biased.append(((first + second) / 2).square().sum().item())
    # A sequence holds each token TOKENS / VOCABULARY times in the mean.
    expected = means.square().sum().item() * (TOKENS / VOCABULARY) ** 2
    spread = torch.tensor(found).std().item() / 300**0.5
    assert sum(found) / 300 == pytest.approx(expected, abs=3 * spread)
    assert sum(biased) / 300 > 1.3 * expected
    # `kernel` gives that product, with rows of one size, here that of another domain.
    batches = [sequences(torch.arange(24) % 2, seed) for seed in range(40)]
    by_other = torch.tensor([False, True])
    noise = torch.stack([filled([each], 2).kernel(by_other)[0][0, 0] for each in batches])
    assert noise.mean().abs() < 3 * noise.std() / 40**0.5
    assert noise.std() > 0


def test_the_error_tells_how_far_noise_moves_a_product():
    means = torch.randn(2, VOCABULARY, RANK, generator=torch.manual_seed(1))
    found, errors = [], []
    for seed in range(80):
        batches = [sequences(torch.arange(16) % 2, 100 * seed + n, means) for n in range(4)]
        kernel, error = filled(batches, 2).kernel(everything(2))
        found.append(kernel[0, 1])
        errors.append(error[0, 1])
    spread = torch.stack(found).std().item()
    assert torch.stack(errors).square().mean().sqrt().item() == pytest.approx(spread, rel=0.5)


def test_a_token_of_larger_gradients_counts_as_its_size_not_as_its_square():
    """As in Adam's step, which divides a row by the root of its mean square."""

    def shared(size):
        """⟨g_0, g_1⟩ of token 4, which both have, over the part of token 3, which is 0's alone."""
        kernel, domain = TokenKernel(2), torch.tensor([0, 1])
        gradients = torch.ones(2, 3, RANK)
        gradients[1, 0] = gradients[:, 2] = 0
        gradients[:, 1] *= size
        for other in (0, 1):  # one sequence of each half
            tokens = torch.tensor([[3, 4, other]] * 2)
            kernel.add(TokenGradients(domain, tokens, gradients), VOCABULARY)
        kernel.close()
        found, error = kernel.kernel(everything(2))
        assert error.abs().max() < 1e-6
        return (found[0, 1] / (found[0, 0] - found[0, 1])).item()

    assert shared(10.0) / shared(1.0) == pytest.approx(10, rel=0.03)
    assert shared(1e-9) < 1e-6


def test_gradients_that_shrink_count_alike():
    """Each time between two calls of `close` is brought to one size."""
    means = torch.randn(2, VOCABULARY, RANK, generator=torch.manual_seed(3))
    batches = [sequences([0, 1, 0, 1, 0, 1, 0, 1], seed, means) for seed in range(4)]
    shrunk = [
        TokenGradients(each.domain, each.tokens, each.gradients * 0.1**number)
        for number, each in enumerate(batches)
    ]
    plain, small = (filled(each, 2, close_each=True) for each in (batches, shrunk))
    for found, expected in zip(
        small.kernel(everything(2)), plain.kernel(everything(2)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_closing_without_anything_new_changes_nothing():
    kernel = filled([sequences([0, 1, 0, 1, 1, 0], 0)], 2)
    before = kernel.kernel(everything(2))
    kernel.close()
    TokenKernel(2).close()
    assert all(map(torch.equal, before, kernel.kernel(everything(2))))


def one(domain, tokens):
    """A sequence of given tokens."""
    return TokenGradients(torch.tensor([domain]), torch.tensor([tokens]), torch.ones(1, 3, RANK))


def test_domains_that_are_not_known_are_zero():
    """Domain 1 has sequences of one half only, which stands for both; domain 2 has none."""
    kernel = filled([one(0, [1, 2, 3]), one(0, [1, 2, 4]), one(1, [5, 5, 5])], 3)
    assert kernel.known.tolist() == [True, True, False]
    found, error = kernel.kernel(torch.tensor([True, True, False]))
    assert found[0, 0] != 0 and found[1, 1] > 0
    assert (found[2:] == 0).all() and (found[:, 2:] == 0).all()
    assert (error[2:] == 0).all() and (error[:, 2:] == 0).all()
    assert TokenKernel(3).known.tolist() == [False] * 3


def test_unknown_domains_leave_the_others_alone():
    batches = [sequences(torch.arange(8) % 2, seed) for seed in range(3)]
    two, _ = filled(batches, 2).kernel(everything(2))
    three, _ = filled(batches, 3).kernel(torch.tensor([True, True, False]))
    torch.testing.assert_close(three[:2, :2], two, rtol=1e-6, atol=0)


def test_halves_are_of_content_so_that_places_do_not_matter():
    """A sequence that repeats stays in its half; the order of a batch changes rounding alone."""
    kernel = filled([one(0, [1, 2, 4])] * 5, 1)
    assert (kernel._closed == 0).sum() == 1
    batch = sequences(torch.arange(24) % 3, seed=0)
    order = torch.randperm(24, generator=torch.manual_seed(0))
    shuffled = TokenGradients(*(part[order] for part in vars(batch).values()))
    for found, expected in zip(
        filled([shuffled], 3).kernel(everything(3)),
        filled([batch], 3).kernel(everything(3)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_state_continues_to_the_bit(after):
    batches = [sequences(torch.arange(6) % 3, seed) for seed in range(5)]
    whole, part = TokenKernel(3), TokenKernel(3)
    for number, batch in enumerate(batches):
        if number == after:
            other = TokenKernel(3)
            other.load_state_dict(part.state_dict())
            part = other
        for each in (whole, part):
            each.add(batch, VOCABULARY)
            if number % 2:
                each.close()
    whole.close()
    part.close()
    assert all(map(torch.equal, whole.kernel(everything(3)), part.kernel(everything(3))))


def test_a_reset_forgets_everything():
    kernel = filled([sequences([0, 0, 1, 1, 0], 0)], 2)
    kernel.reset()
    assert not kernel.known.any()
    assert kernel.state_dict()["means"] is None
