"""A problem of one's own for the graph of domains: a few lines of cvxpy, differentiable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dograph.errors import UserError, check_choice
from dograph.graph.minimise import Backend, Solution, as_float64, solve_or_fall_back
from dograph.graph.polytope import Polytope
from dograph.graph.read_attributes import fingerprints, noting_copy

Expression = Any
"""One of cvxpy, which is imported only where it solves: that takes 0.1 s or more."""
OWN = ("lower", "upper", "rows", "low", "high")
"""Parameters of the constraints that every problem has."""


class CvxpyProblem:
    """Weights on the simplex that minimise what a subclass states in cvxpy.

    A subclass defines ``problem``. What it states is canonicalised once for each number of domains,
    and anew where an attribute that it reads has another value; solved through cvxpylayers, and
    differentiable in every parameter. ``w ≥ lower``, ``Σ w = 1`` and the run's limits are
    constraints of every problem. What an overridden ``__call__`` keeps in attributes between two
    solves is saved with the mixer's state.

    It must follow cvxpy's rules for parameters (DPP): a parameter is multiplied by no other one,
    and ``wᵀKw`` is ``cp.sum_squares(given.root @ w)``. Plain numbers may multiply anything.

    Attributes:
        solves: number of calls.
        failures: how many of them fell back.
    """

    solves: int = 0
    failures: int = 0

    def problem(
        self, w: Expression, given: SimpleNamespace
    ) -> tuple[Expression, Sequence[Expression]]:
        """(what to minimise, constraints), in cvxpy; it must not change the problem's attributes.

        Args:
            w: (m,) variable, the weights.
            given: parameters by name; the mixer that solves the problem says which.
        """
        raise NotImplementedError(
            f"{type(self).__name__} states no problem: define problem(w, given)"
        )

    def __call__(
        self,
        given: Mapping[str, Tensor],
        fallback: Tensor,
        lower: Tensor | None = None,
        within: Polytope | None = None,
    ) -> Solution:
        """Solves the problem; a failed solve gives ``fallback``, see ``Solution.ok``.

        Args:
            given: (m,) and (n, m) numbers by the parameters' names.
            fallback: (m,) on the simplex.
            lower: (m,) least weights ≥ 0. None: 0.
            within: limits on the weights. None: none.

        Raises:
            UserError: for a problem that is not convex, or breaks cvxpy's rules for parameters.
        """
        self.solves += 1
        size = len(fallback)
        rows = _rows(size, lower, within)
        inputs = {name: as_float64(value) for name, value in {**given, **rows}.items()}
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        layer, used = self._layer(size, shapes)
        values = [inputs[name] for name in used]
        solution = solve_or_fall_back(
            lambda: _on_simplex(layer(*values, solver_args=_solver_args())[0]),
            lambda: as_float64(fallback).detach().clone(),
        )
        self.failures += not solution.ok
        return solution

    def _layer(self, size: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Any, list[str]]:
        """The problem's layer, built once for parameters of these shapes, and those it uses.

        It is built anew where an attribute that ``problem`` has read has changed.
        """
        key = (size, tuple(shapes.items()))
        known = _layers.setdefault(self, {})
        if key not in known or fingerprints(self, known[key][2]) != known[key][2]:
            known[key] = self._build(size, shapes)
        layer, used, _ = known[key]
        return layer, used

    def _build(
        self, size: int, shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[Any, list[str], dict[str, Any]]:
        """The layer, the parameters it uses, and fingerprints of the attributes that it is of."""
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        w = cp.Variable(size, name="w")
        parameters = {
            name: cp.Parameter(shape, name=name, nonneg=name in ("lower", "upper", "prior"))
            for name, shape in shapes.items()
        }
        stated = SimpleNamespace(**{n: p for n, p in parameters.items() if n not in OWN})
        answer, read = self._stated(w, stated)
        objective, constraints = self._parts(answer)
        own = [w >= parameters["lower"], cp.sum(w) == 1, w <= parameters["upper"]]
        if "rows" in parameters:
            values = parameters["rows"] @ w
            own += [values >= parameters["low"], values <= parameters["high"]]
        self._check(objective, constraints)
        problem = cp.Problem(cp.Minimize(objective), [*constraints, *own])
        asked = {parameter.name() for parameter in problem.parameters()}
        used = [name for name in parameters if name in asked]
        return CvxpyLayer(problem, [parameters[name] for name in used], [w]), used, read

    def _stated(self, w: Expression, given: SimpleNamespace) -> tuple[Any, dict[str, Any]]:
        """What ``problem`` answers, and fingerprints of the attributes that it reads."""
        before = fingerprints(self, vars(self))
        copied, read = noting_copy(self)
        try:
            answer = copied.problem(w, given)
        except AttributeError as error:
            if "SimpleNamespace" not in str(error):
                raise
            names = ", ".join(vars(given))
            raise self._error(f"asks for what is not given ({error}); given are {names}") from error
        after = fingerprints(copied, vars(copied))
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                raise self._error(
                    f"changes self.{name}, but it is called once for many solves: change it in "
                    "__call__, which is called for each"
                )
        return answer, {name: before[name] for name in before if name in read}

    def _parts(self, answer: Any) -> tuple[Expression, Sequence[Expression]]:
        """The objective and the constraints of what ``problem`` returned."""
        import cvxpy as cp

        right = "return (what to minimise, [constraints])"
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._error(f"returned a {type(answer).__name__}: {right}")
        objective, constraints = answer
        if isinstance(objective, cp.Minimize):
            objective = objective.args[0]
        if not isinstance(objective, cp.Expression) or not objective.is_scalar():
            shown = getattr(objective, "shape", "") or type(objective).__name__
            raise self._error(f"minimises a {shown}, which is no scalar expression: {right}")
        if not isinstance(constraints, list | tuple):
            raise self._error(f"has constraints in a {type(constraints).__name__}: {right}")
        for constraint in constraints:
            if not isinstance(constraint, cp.Constraint):
                raise self._error(f"has {constraint!r} among its constraints: state each in w")
        return objective, constraints

    def _check(self, objective: Expression, constraints: Sequence[Expression]) -> None:
        """Raises UserError for what cvxpy cannot solve, by the term that is to blame."""
        if not objective.is_convex():
            raise self._error(f"minimises what is not convex: {_culprit(objective, 'is_dcp')}")
        for constraint in constraints:
            if not constraint.is_dcp():
                raise self._error(f"has a constraint that is not convex: {constraint}")
        for stated in (objective, *constraints):
            if not stated.is_dcp(dpp=True):
                raise self._error(
                    f"multiplies parameters with one another: {_culprit(stated, 'is_dpp')}: give "
                    "the product as one parameter, or make one of them a plain number"
                )

    def _error(self, mistake: str) -> UserError:
        return UserError(f"{type(self).__name__}.problem {mistake}")


def split_solver(solver: Backend | CvxpyProblem) -> tuple[Backend, CvxpyProblem | None]:
    """The backend of a mixer's own problem, and the problem that is solved in its place, if any."""
    if isinstance(solver, CvxpyProblem):
        return "piqp", solver
    check_choice("mixer.init_args.solver", solver, get_args(Backend))
    return solver, None


_layers: WeakKeyDictionary[CvxpyProblem, dict[Any, Any]] = WeakKeyDictionary()
"""By problem and shapes; outside the problems, so that no copy or checkpoint holds them."""


def _rows(size: int, lower: Tensor | None, within: Polytope | None) -> dict[str, Tensor]:
    """The parameters of every problem's own constraints."""
    least = torch.zeros(size, dtype=torch.float64) if lower is None else as_float64(lower)
    if within is None:
        return {"lower": least, "upper": torch.ones(size, dtype=torch.float64)}
    upper = torch.from_numpy(within.upper)  # wins over the caller's least weights
    bounds = {"lower": torch.minimum(least, upper).maximum(torch.from_numpy(within.lower))}
    bounds["upper"] = upper
    if len(within.rows):
        reach = within.rows.min(axis=1), within.rows.max(axis=1)  # finite, on the simplex
        bounds["rows"] = torch.from_numpy(within.rows)
        bounds["low"] = torch.from_numpy(within.low).maximum(torch.from_numpy(reach[0]))
        bounds["high"] = torch.from_numpy(within.high).minimum(torch.from_numpy(reach[1]))
    return bounds


def _solver_args() -> dict[str, Any]:
    """Those of the reference solver."""
    from dograph.graph.cvxpylayers_solver import SOLVER

    return dict(SOLVER)


def _on_simplex(answer: Tensor) -> Tensor:
    """The answer without its rounding; ArithmeticError where it is no mixture."""
    if not bool(torch.isfinite(answer).all()) or abs(float(answer.detach().sum()) - 1) > 1e-5:
        raise ArithmeticError("the solver's answer is not finite or off the simplex")
    positive = answer.clamp(min=0)
    return positive / positive.sum()


def _culprit(expression: Expression, rule: str) -> Expression:
    """The smallest part of an expression or constraint that breaks one of cvxpy's rules."""
    keeps = (lambda part: part.is_dcp(dpp=True)) if rule == "is_dpp" else (lambda p: p.is_dcp())
    for part in getattr(expression, "args", ()):
        if not keeps(part):
            return _culprit(part, rule)
    return expression
