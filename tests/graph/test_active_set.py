"""Polishing: exact where the binding constraints are known, harmless where they are not."""

import numpy as np
import pytest

from dograph.graph.active_set import ActiveSet, polish
from dograph.graph.problem import SimplexProgram

LINEAR, NONE, ALL = np.array([0.0, 0.4, 9.0]), np.zeros(3), np.ones(3)
PROGRAM = SimplexProgram(np.eye(3), LINEAR, NONE, ALL, np.zeros((0, 3)), np.zeros(0))
MINIMUM = np.array([0.6, 0.4, 0.0])  # 2 w_1 = 2 w_2 + 0.4, and the third is too dear


def polished(program, found):
    """Polishes with what is within 1e-5 of binding."""
    difference = program.rows @ found
    side = np.where(np.abs(difference) > program.limits - 1e-5, np.sign(difference), 0.0)
    at_lower, at_upper = found - program.lower < 1e-5, program.upper - found < 1e-5
    return polish(ActiveSet(program, at_lower, at_upper, side), found)[0]


def test_a_close_answer_becomes_exact():
    near = MINIMUM + np.array([3e-6, -4e-6, 1e-6])
    found = polished(PROGRAM, near)
    np.testing.assert_allclose(found, MINIMUM, rtol=0, atol=1e-13)
    assert found[2] == 0
    assert PROGRAM.duality_gap(found, np.zeros(0)) < 1e-12 < PROGRAM.duality_gap(near, np.zeros(0))


def test_a_wrong_binding_constraint_leaves_the_answer_alone():
    held = np.array([1.0, 0.0, 0.0])  # the second is held at 0 and wants up
    assert polished(PROGRAM, held).tolist() == held.tolist()
    assert PROGRAM.duality_gap(held, np.zeros(0)) > 0.1


def test_a_constraint_that_was_missed_is_found():
    np.testing.assert_allclose(polished(PROGRAM, np.array([0.5, 0.4, 0.1])), MINIMUM, atol=1e-13)


def test_a_binding_edge():
    rows = np.array([[1.0, -1, 0], [1, 0, -1], [0, 1, -1]])
    program = SimplexProgram(np.eye(3), LINEAR, NONE, ALL, rows, np.array([0.1, 2, 2]))
    expected = np.array([0.55, 0.45, 0.0])
    near = expected + np.array([2e-6, -2e-6, 0.0])
    np.testing.assert_allclose(polished(program, near), expected, rtol=0, atol=1e-13)
    assert program.violation(MINIMUM) == pytest.approx(0.1)
    # 2 w_1 + y = 2 w_2 + 0.4 - y: the edge's multiplier, which makes the bound tight.
    assert program.duality_gap(expected, np.array([0.1, 0, 0])) == pytest.approx(0, abs=1e-15)
    assert program.duality_gap(expected, np.zeros(3)) > 0.01


def test_binding_edges_that_depend_on_each_other():
    rows = np.array([[1.0, -1, 0], [1, 0, -1], [0, 1, -1]])
    program = SimplexProgram(np.eye(3), LINEAR, NONE, ALL, rows, np.zeros(3))
    free = np.zeros(3, dtype=bool)
    active = ActiveSet(program, free, free, np.ones(3))
    assert len(active.binding) == 2
    np.testing.assert_allclose(active.minimum[0], 1 / 3, rtol=0, atol=1e-15)
