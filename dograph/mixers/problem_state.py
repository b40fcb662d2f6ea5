"""What a problem of one's own keeps between two solves, as part of its mixer's state."""

from __future__ import annotations

from typing import Any

from dograph.graph.cvxpy_problem import CvxpyProblem
from dograph.mixers.state import changed_state, lost_attributes, restore_state, start_of


class ProblemState:
    """Saves and restores the attributes of a problem that have changed since it was made.

    Attributes:
        problem: whose they are.
    """

    def __init__(self, problem: CvxpyProblem) -> None:
        self.problem = problem
        problem.solves = problem.failures = 0
        self._start = start_of(vars(problem))

    def reset(self) -> None:
        """Puts the problem back to its start."""
        self.load_state_dict({})

    def lost(self) -> list[str]:
        """Names of attributes that have changed and cannot be saved."""
        return lost_attributes(vars(self.problem), self._start)

    def state_dict(self) -> dict[str, Any]:
        """The changed attributes, in plain form."""
        return changed_state(vars(self.problem), self._start, {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them; all others are as at the start."""
        restore_state(self.problem, state, self._start, frozenset())
