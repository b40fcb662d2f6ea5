"""From kernel to problem: units, scales, discounts."""

import pytest
import torch

from dograph.mixers.schedule_problem import LEAST_COSINE, relative, schedule_problem
from dograph.mixers.schedule_settings import ProblemSettings

PRIOR = torch.tensor([0.2, 0.3, 0.5, 0.0], dtype=torch.float64)
WHOLE = torch.ones(4, dtype=torch.float64)
TARGET = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)


def kernel(seed=0):
    root = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (root + 1) @ (root + 1).T


def problem(given, worth=WHOLE, mixture=TARGET, error=0.0, **settings):
    settings = ProblemSettings(**{"least_spread": 0.0, "kappa": 0.0, "neighbours": 2, **settings})
    return schedule_problem(given, error * given.abs(), PRIOR, mixture, worth, settings)


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
    found, errors = problem(factor * kernel(), error=0.01)
    expected, expected_errors = problem(kernel(), error=0.01)
    torch.testing.assert_close(found.b, expected.b)
    torch.testing.assert_close(found.R, expected.R)
    torch.testing.assert_close(errors, expected_errors)


def test_at_the_prior_the_target_weighs_as_much_as_the_mixture():
    found, _ = problem(kernel())
    assert (found.b @ found.prior).item() == pytest.approx(1)
    even, _ = problem(kernel(), mixture=PRIOR)
    own = even.R.T @ even.R @ even.prior
    torch.testing.assert_close(even.b, own)
    curved, _ = problem(kernel(), mixture=PRIOR, kappa=0.3)
    torch.testing.assert_close(curved.b, 0.7 * own)


def test_influences_shrink_by_the_part_of_their_spread_that_tells_nothing():
    plain, _ = problem(kernel())
    spread = (plain.prior @ (plain.b - 1).square()).sqrt().item()
    half, _ = problem(kernel(), least_spread=0.5**0.5 * spread)
    torch.testing.assert_close(half.b, 0.5 * plain.b)
    nothing, _ = problem(kernel(), least_spread=1.01 * spread)
    assert not nothing.b.any()
    _, errors = problem(kernel(), error=0.1)
    unsure = (plain.prior @ errors.square()).item()
    shrunk, _ = problem(kernel(), error=0.1)
    torch.testing.assert_close(shrunk.b, max(0.0, 1 - unsure / spread**2) * plain.b)


def test_a_target_that_is_nearly_orthogonal_is_not_scaled_up():
    given = torch.eye(4, dtype=torch.float64)
    given[0, 3] = given[3, 0] = 1e-6
    found, _ = problem(given)
    own, _ = relative(given, given, PRIOR)
    asked = own[0, 3] / (LEAST_COSINE * own[3, 3].sqrt())
    assert found.b[0].item() == pytest.approx(asked.item())
    assert found.b[0] < 1e-4


def test_passes_take_from_influence_but_not_from_harm():
    given = kernel()
    given[0, 3] = given[3, 0] = -1.0
    worth = torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=torch.float64)
    found, plain = problem(given, worth)[0], problem(given)[0]
    assert given[0, 3] < 0
    assert found.b[0] == plain.b[0] and found.b[1] < plain.b[1] and found.b[2] == plain.b[2]
