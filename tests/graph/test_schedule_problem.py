"""From kernel to problem: units, scales, discounts."""

import pytest
import torch

from dograph.graph.schedule_problem import LEAST_COSINE, relative, schedule_problem

PRIOR = torch.tensor([0.2, 0.3, 0.5, 0.0], dtype=torch.float64)
WHOLE = torch.ones(4, dtype=torch.float64)
TARGET = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)


def kernel(seed=0):
    root = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (root + 1) @ (root + 1).T


def problem(given, worth=WHOLE, mixture=TARGET, beyond_prior=1.0):
    error = 0.01 * given.abs()
    return schedule_problem(given, error, PRIOR, mixture, worth, beyond_prior, 2)


def test_the_priors_own_gradient_has_size_one():
    found, error = relative(kernel(), 0.1 * kernel(), PRIOR)
    assert (PRIOR @ found @ PRIOR).item() == pytest.approx(1)
    torch.testing.assert_close(error, 0.1 * found)


def test_only_what_is_drawn_is_in_the_problem():
    found, errors = problem(kernel())
    assert found.b.shape == errors.shape == found.prior.shape == (3,)
    own, _ = relative(kernel(), kernel(), PRIOR)
    torch.testing.assert_close(found.R.T @ found.R, own[:3, :3])


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_the_size_of_gradients_does_not_count(factor):
    found, errors = problem(factor * kernel())
    expected, expected_errors = problem(kernel())
    torch.testing.assert_close(found.b, expected.b)
    torch.testing.assert_close(found.R, expected.R)
    torch.testing.assert_close(errors, expected_errors)


def test_at_the_prior_the_target_weighs_as_much_as_the_mixture():
    """So that together they ask for nothing; the prior's own mixture asks for nothing anywhere."""
    found, _ = problem(kernel())
    assert (found.b @ found.prior).item() == pytest.approx(0, abs=1e-9)
    even, _ = problem(kernel(), mixture=PRIOR)
    torch.testing.assert_close(even.b, torch.zeros(3).double())
    whole, _ = problem(kernel(), mixture=PRIOR, beyond_prior=0.0)
    torch.testing.assert_close(whole.b, (whole.R.T @ whole.R) @ whole.prior)
    part, _ = problem(kernel(), mixture=PRIOR, beyond_prior=0.7)
    torch.testing.assert_close(part.b, 0.3 * whole.b)


def test_a_target_that_is_nearly_orthogonal_is_not_scaled_up():
    given = torch.eye(4, dtype=torch.float64)
    given[0, 3] = given[3, 0] = 1e-6
    found, _ = problem(given)
    own, _ = relative(given, given, PRIOR)
    asked = own[0, 3] / (LEAST_COSINE * own[3, 3].sqrt())
    assert found.b[0].item() == pytest.approx(asked * (1 - 0.2 * own[0, 0] * 0.2))
    assert found.b.abs().max() < 1e-4


def test_passes_take_from_influence_but_not_from_harm():
    given = kernel()
    given[0, 3] = given[3, 0] = -1.0
    worth = torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=torch.float64)
    found, plain = problem(given, worth)[0], problem(given)[0]
    assert given[0, 3] < 0
    assert found.b[0] == plain.b[0] and found.b[1] < plain.b[1] and found.b[2] == plain.b[2]
