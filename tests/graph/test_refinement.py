"""Refinement: exact where the binding constraints are known, harmless where they are not."""

import pytest
import torch

from dograph.graph.refinement import Programme, refine
from dograph.graph.solver import pair_differences

PROGRAMME = Programme(
    torch.eye(3).double(),
    torch.tensor([0.0, 0.4, 9.0], dtype=torch.float64),
    lowest=torch.zeros(3, dtype=torch.float64),
)
MINIMUM = torch.tensor(
    [0.6, 0.4, 0.0], dtype=torch.float64
)  # 2 w_1 = 2 w_2 + 0.4, and the third is too dear


def test_a_close_answer_becomes_exact():
    near = MINIMUM + torch.tensor([3e-6, -4e-6, 1e-6])
    found = refine(PROGRAMME, near)
    torch.testing.assert_close(found, MINIMUM, rtol=0, atol=1e-13)
    assert found[2] == 0
    assert PROGRAMME.gap(found) < 1e-12 < PROGRAMME.gap(near)


@pytest.mark.parametrize("wrong", [[1.0, 0.0, 0.0], [0.5, 0.4, 0.1]], ids=["multiplier", "bound"])
def test_wrong_binding_constraints_leave_the_answer_alone(wrong):
    # Either a weight is held at 0 that wants up, or one is let go that then falls below 0.
    weights = torch.tensor(wrong, dtype=torch.float64)
    assert torch.equal(refine(PROGRAMME, weights), weights)
    assert PROGRAMME.gap(weights) > 0.1


def test_a_binding_edge():
    limits = torch.tensor([0.1, 2.0, 2.0], dtype=torch.float64)
    rows = torch.from_numpy(pair_differences(3))
    even = torch.full((3,), 1 / 3).double()
    programme = Programme(PROGRAMME.root, PROGRAMME.linear, PROGRAMME.lowest, rows, limits, even)
    expected = torch.tensor([0.55, 0.45, 0.0], dtype=torch.float64)
    near = expected + torch.tensor([2e-6, -2e-6, 0.0])
    torch.testing.assert_close(refine(programme, near), expected, rtol=0, atol=1e-13)
    assert programme.violation(MINIMUM) == pytest.approx(0.1)
