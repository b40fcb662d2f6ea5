"""Settings of a problem in whose place one's own is solved are refused, not ignored."""

import pytest

from dograph.errors import UserError
from dograph.graph.cvxpy_problem import CvxpyProblem
from dograph.mixers import DoGraph, DoGraphSchedule
from dograph.mixers.schedule_settings import ProblemSettings


@pytest.mark.parametrize(
    "given",
    [{"objective": "robust"}, {"beta": 0.2}, {"anchor": 1.0}, {"laplacian": 1.0}, {"tau": 2.0}],
)
def test_a_setting_of_the_published_problem_is_refused_beside_ones_own(given):
    (name,) = given
    with pytest.raises(UserError, match=rf"{name} is .*CvxpyProblem is solved in place"):
        DoGraph(solver=CvxpyProblem(), **given)
    DoGraph(solver=CvxpyProblem(), clusters=4, spread="printed", objective="uncertainty")


@pytest.mark.parametrize(
    "given", [{"prior_pull": 0.2}, {"laplacian": 1.0}, {"max_difference": 0.1}]
)
def test_a_setting_of_the_schedules_problem_is_refused_beside_ones_own(given):
    (name,) = given
    with pytest.raises(UserError, match=rf"problem.{name} is .*CvxpyProblem is solved in place"):
        DoGraphSchedule(solver=CvxpyProblem(), problem=ProblemSettings(**given))
    DoGraphSchedule(solver=CvxpyProblem(), problem=ProblemSettings(kappa=0.5, floor=0.2))
