"""Exact domain gradients against autograd, term by term."""

import pytest
import torch
from torch import nn

from dograph.signals.domain_gradients import DomainGradientSums


@pytest.fixture
def problem():
    """A small network of two layers, eight points, their domains (domain 2 is absent)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return network, torch.randn(8, 3), torch.tensor([0, 1, 1, 3, 0, 3, 3, 3])


def losses_of(network, points):
    return lambda rows: network(points[rows]).squeeze(1).square()


def gradient(network, loss):
    """The whole gradient as one vector, by a backward of its own."""
    network.zero_grad()
    loss.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    network.zero_grad()
    return gradients.clone()


def test_every_inner_product_is_that_of_the_mean_losses_gradients(problem):
    network, points, domain = problem
    sums = DomainGradientSums(network.parameters(), 4)
    sums.add(domain, losses_of(network, points))
    kernel = sums.take_kernel()
    losses = losses_of(network, points)
    expected = {
        s: gradient(network, losses((domain == s).nonzero().flatten()).mean()) for s in (0, 1, 3)
    }
    for first in range(4):
        for second in range(4):
            if 2 in (first, second):
                assert kernel[first, second] == 0
            else:
                exact = expected[first] @ expected[second]
                assert kernel[first, second].item() == pytest.approx(exact.item(), rel=1e-4)


def test_micro_batches_add_up_to_the_whole_batch(problem):
    network, points, domain = problem
    whole, parts = (DomainGradientSums(network.parameters(), 4) for _ in range(2))
    whole.add(domain, losses_of(network, points))
    for half in (slice(0, 3), slice(3, 8)):
        parts.add(domain[half], losses_of(network, points[half]))
    kernel = whole.take_kernel()
    assert torch.allclose(parts.take_kernel(), kernel, rtol=1e-4)
    # And the next step starts anew.
    parts.add(domain, losses_of(network, points))
    assert torch.allclose(parts.take_kernel(), kernel, rtol=1e-4)


def test_parameters_and_their_gradients_are_left_alone(problem):
    network, points, domain = problem
    network[0].weight.requires_grad_(False)
    before = [parameter.clone() for parameter in network.parameters()]
    sums = DomainGradientSums(network.parameters(), 4)
    sums.add(domain, losses_of(network, points))
    assert sums.take_kernel().diagonal().min() >= 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(map(torch.equal, before, network.parameters()))
