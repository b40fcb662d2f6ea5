"""Problems of one's own: equal to the built-in one they copy, checked, differentiable."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from dograph.errors import UserError
from dograph.graph.bounds import Bound
from dograph.graph.cvxpy_problem import CvxpyProblem
from dograph.graph.domain_graph import edge_rows
from dograph.graph.kernel import kernel_root
from dograph.graph.polytope import Polytope
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.mixers.schedule_problem import parameters_of

KAPPA, NU = 0.3, 0.1


class Copied(CvxpyProblem):
    """``ScheduleSolver``'s objective without edges."""

    def problem(self, w, given):
        curvature = KAPPA / 2 * cp.sum_squares(given.root @ w) - KAPPA * given.pull @ w
        pull = NU / 2 * cp.sum_squares(cp.multiply(given.root_prior, w)) - NU * cp.sum(w)
        return curvature + pull - given.influence @ w, []


class EntropyFloor(CvxpyProblem):
    """The most influence with so much entropy."""

    def __init__(self, least: float = 1.0):
        self.least = least

    def problem(self, w, given):
        return -given.influence @ w, [cp.sum(cp.entr(w)) >= self.least]


def schedule_problem_of(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(4 * size, size, generator=generator, dtype=torch.float64)
    kernel = rows.T @ rows / (4 * size)
    prior = torch.rand(size, generator=generator, dtype=torch.float64) + 0.2
    influence = torch.randn(size, generator=generator, dtype=torch.float64) / 3
    laplacian = edge_rows(torch.zeros(size, size, dtype=torch.float64))
    return ScheduleProblem(influence, kernel_root(kernel), laplacian, prior / prior.sum())


def limits():
    three, last = np.repeat([1.0, 0.0], 3), np.eye(6)[5]
    bounds = [Bound("three", three, low=0.55), Bound("last", last, high=0.1)]
    return Polytope.of(bounds, np.ones(6, dtype=bool))


@pytest.mark.parametrize("within", [None, limits()])
@pytest.mark.parametrize("seed", range(10))
def test_a_copy_of_the_built_in_problem_equals_it(seed, within):
    problem = schedule_problem_of(seed)
    floor = 0.1 * problem.prior
    built_in = ScheduleSolver(floor=0.1)(problem, kappa=KAPPA, nu=NU, within=within)
    own = Copied()(parameters_of(problem), problem.prior, floor, within)
    assert own.ok, own.status
    assert built_in.ok, built_in.status
    assert own.weights.tolist() == pytest.approx(built_in.weights.tolist(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_its_gradients_equal_the_built_in_ones(seed):
    problem = schedule_problem_of(seed)
    upstream = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def gradient(solve):
        influence = problem.b.clone().requires_grad_()
        (solve(problem._replace(b=influence)).weights @ upstream).backward()
        return influence.grad

    floor = 0.1 * problem.prior
    built_in = gradient(lambda p: ScheduleSolver(floor=0.1)(p, kappa=KAPPA, nu=NU))
    own = gradient(lambda p: Copied()(parameters_of(p), p.prior, floor))
    assert own.tolist() == pytest.approx(built_in.tolist(), abs=1e-4)


def test_an_entropy_floor_binds():
    problem = schedule_problem_of(0)
    weights = EntropyFloor(1.5)(parameters_of(problem), problem.prior).weights
    assert torch.special.entr(weights).sum().item() == pytest.approx(1.5, abs=1e-5)


def test_what_cannot_be_solved_falls_back_and_is_counted():
    problem, own = schedule_problem_of(0), EntropyFloor(5.0)  # more than log 6
    solution = own(parameters_of(problem), problem.prior)
    assert not solution.ok
    assert torch.equal(solution.weights, problem.prior)
    assert (own.solves, own.failures) == (1, 1)


class Squares(CvxpyProblem):
    def problem(self, w, given):
        return cp.sum_squares(given.root @ (w - given.prior)), []


class Concave(CvxpyProblem):
    def problem(self, w, given):
        return -cp.sum_squares(w), []


class Misspelt(CvxpyProblem):
    def problem(self, w, given):
        return given.influnce @ w, []


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (Squares, r"Squares.problem multiplies parameters with one another: .*root @ .*prior"),
        (Concave, r"Concave.problem minimises what is not convex: -.*w"),
        (Misspelt, r"Misspelt.problem asks for what is not given .*influnce.* given are infl"),
        (CvxpyProblem, r"states no problem: define problem\(w, given\)"),
    ],
)
def test_what_is_wrong_is_told(own, words):
    problem = schedule_problem_of(0)
    with pytest.raises((UserError, NotImplementedError), match=words):
        own()(parameters_of(problem), problem.prior)


def test_a_domain_that_limits_hold_below_the_floor_leaves_the_problem_feasible():
    problem = schedule_problem_of(0)
    none_of_last = Polytope.of([Bound("last", np.eye(6)[5], high=0.0)], np.ones(6, dtype=bool))
    own = Copied()(parameters_of(problem), problem.prior, 0.1 * problem.prior, none_of_last)
    assert own.ok and own.weights[5] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (cp.sum_squares, "returned a .*: return .what to minimise, .constraints"),
        (lambda w: (cp.square(w), []), r"minimises a \(6,\), which is no scalar expression"),
        (lambda w: (cp.Maximize(cp.sum(w)), []), "minimises a Maximize"),
        (lambda w: (0.0, []), "minimises a float"),
        (lambda w: (cp.sum_squares(w), w >= 0), "has constraints in a Inequality"),
        (lambda w: (cp.sum_squares(w), [True]), "has True among its constraints"),
    ],
)
def test_what_is_no_problem_is_told_in_a_sentence(stated, words):
    class Wrong(CvxpyProblem):
        def problem(self, w, given):
            return stated(w)

    problem = schedule_problem_of(0)
    with pytest.raises(UserError, match=f"Wrong.problem {words}"):
        Wrong()(parameters_of(problem), problem.prior)


def test_an_objective_of_cvxpy_is_taken():
    class Minimised(CvxpyProblem):
        def problem(self, w, given):
            return cp.Minimize(cp.sum_squares(w)), []

    problem = schedule_problem_of(0)
    solution = Minimised()(parameters_of(problem), problem.prior)
    torch.testing.assert_close(solution.weights, torch.full_like(problem.prior, 1 / 6))
