"""Refinement: exact where the binding constraints are known, harmless where they are not."""

import numpy as np
import pytest

from dograph.graph.programme import Programme
from dograph.graph.refinement import Face, refine

LINEAR, NONE = np.array([0.0, 0.4, 9.0]), np.zeros(3)
PROGRAMME = Programme(np.eye(3), LINEAR, NONE, np.zeros((0, 3)), np.zeros(0))
MINIMUM = np.array([0.6, 0.4, 0.0])  # 2 w_1 = 2 w_2 + 0.4, and the third is too dear


def refined(programme, found):
    """Refines with what is within 1e-5 of binding."""
    difference = programme.rows @ found
    side = np.where(np.abs(difference) > programme.limits - 1e-5, np.sign(difference), 0.0)
    return refine(Face(programme, found - programme.lowest < 1e-5, side), found)[0]


def test_a_close_answer_becomes_exact():
    near = MINIMUM + np.array([3e-6, -4e-6, 1e-6])
    found = refined(PROGRAMME, near)
    np.testing.assert_allclose(found, MINIMUM, rtol=0, atol=1e-13)
    assert found[2] == 0
    assert PROGRAMME.gap(found, np.zeros(0)) < 1e-12 < PROGRAMME.gap(near, np.zeros(0))


def test_a_wrong_binding_constraint_leaves_the_answer_alone():
    held = np.array([1.0, 0.0, 0.0])  # the second is held at 0 and wants up
    assert refined(PROGRAMME, held).tolist() == held.tolist()
    assert PROGRAMME.gap(held, np.zeros(0)) > 0.1


def test_a_constraint_that_was_missed_is_found():
    np.testing.assert_allclose(refined(PROGRAMME, np.array([0.5, 0.4, 0.1])), MINIMUM, atol=1e-13)


def test_a_binding_edge():
    rows = np.array([[1.0, -1, 0], [1, 0, -1], [0, 1, -1]])
    programme = Programme(np.eye(3), LINEAR, NONE, rows, np.array([0.1, 2, 2]))
    expected = np.array([0.55, 0.45, 0.0])
    near = expected + np.array([2e-6, -2e-6, 0.0])
    np.testing.assert_allclose(refined(programme, near), expected, rtol=0, atol=1e-13)
    assert programme.violation(MINIMUM) == pytest.approx(0.1)
    # 2 w_1 + y = 2 w_2 + 0.4 - y: the edge's multiplier, which makes the bound tight.
    assert programme.gap(expected, np.array([0.1, 0, 0])) == pytest.approx(0, abs=1e-15)
    assert programme.gap(expected, np.zeros(3)) > 0.01


def test_binding_edges_that_depend_on_each_other():
    rows = np.array([[1.0, -1, 0], [1, 0, -1], [0, 1, -1]])
    programme = Programme(np.eye(3), LINEAR, NONE, rows, np.zeros(3))
    face = Face(programme, np.zeros(3, dtype=bool), np.ones(3))
    assert len(face.bound) == 2
    np.testing.assert_allclose(face.minimum[0], 1 / 3, rtol=0, atol=1e-15)
