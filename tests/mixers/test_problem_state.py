"""What a problem of one's own keeps between two solves survives a resume, or is told."""

import threading

import cvxpy as cp
import pytest
import torch

from dograph.errors import UserError
from dograph.graph.cvxpy_problem import CvxpyProblem
from dograph.mixers import BaseMixer, BatchSignals, DoGraph, Phases
from dograph.mixers.dry_run import dry_run

SHARES = {"shares": torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)}
EVEN = torch.full((3,), 1 / 3, dtype=torch.float64)


class Smoothed(CvxpyProblem):
    """Draws by shares, smoothed over the solves."""

    def __init__(self):
        self.shares = None

    def problem(self, w, given):
        return cp.sum_squares(w - given.shares), []

    def __call__(self, given, fallback, lower=None, within=None):
        known = given["shares"] if self.shares is None else self.shares
        self.shares = 0.5 * known + 0.5 * given["shares"]
        return super().__call__({**given, "shares": self.shares}, fallback, lower, within)


class Annealed(CvxpyProblem):
    """Comes nearer to the even mixture from solve to solve."""

    def __init__(self):
        self.pull = 0.0

    def problem(self, w, given):
        return cp.sum_squares(w - given.shares) + self.pull * cp.sum_squares(w), []

    def __call__(self, given, fallback, lower=None, within=None):
        self.pull += 1.0
        return super().__call__(given, fallback, lower, within)


def ready(mixer):
    mixer.setup(("books", "code", "web"), [100] * 3, 6)
    return mixer


def signals(step):
    draw = torch.Generator().manual_seed(step)
    domain = torch.arange(6) % 3
    sketch = torch.randn(6, 8, generator=draw)
    return BatchSignals(step, domain, torch.rand(6, generator=draw), sketch=sketch)


@pytest.mark.parametrize("kind", [Smoothed, Annealed])
def test_a_resumed_problem_solves_as_one_that_was_not_stopped(kind):
    """Its mixer's clusters differ in size from batch to batch."""
    whole, resumed = (ready(DoGraph(clusters=3, solver=kind())) for _ in range(2))
    for step in range(4):
        whole.loss_weights(signals(step))
    resumed.load_state_dict(whole.state_dict())
    assert resumed.own_problem.solves == 4
    for step in range(4, 8):
        expected = whole.loss_weights(signals(step))
        assert torch.equal(resumed.loss_weights(signals(step)), expected)
    ready(whole)  # another run begins as the first did
    again = ready(DoGraph(clusters=3, solver=kind()))
    assert torch.equal(whole.loss_weights(signals(0)), again.loss_weights(signals(0)))


def test_an_attribute_that_changes_between_solves_takes_effect():
    problem = Annealed()
    for pull in (1.0, 2.0):
        weights = problem(SHARES, EVEN).weights
        expected = 1 / 3 + (SHARES["shares"] - 1 / 3) / (1 + pull)
        torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)


def test_a_statement_that_changes_its_problem_is_refused():
    class Counts(CvxpyProblem):
        calls = 0

        def problem(self, w, given):
            self.calls += 1
            return self.calls * cp.sum_squares(w - given.shares), []

    with pytest.raises(
        UserError, match=r"Counts.problem changes self.calls.*change it in __call__"
    ):
        Counts()(SHARES, EVEN)


def test_the_dry_run_tells_of_what_a_problem_would_lose(caplog):
    class Locks(Smoothed):
        def __call__(self, given, fallback, lower=None, within=None):
            self.lock = threading.Event()
            return super().__call__(given, fallback, lower, within)

    class Shared(Smoothed):
        solved = [0]  # noqa: RUF012

        def __call__(self, given, fallback, lower=None, within=None):
            self.solved[0] += 1
            return super().__call__(given, fallback, lower, within)

    with pytest.raises(UserError, match=r"DoGraph.problem_state.problem.lock is a Event"):
        dry_run(ready(DoGraph(clusters=3, solver=Locks())), 6)
    dry_run(ready(DoGraph(clusters=3, solver=Shared())), 6)
    assert "DoGraph changes Shared.solved (of the class) while training" in caplog.text


def test_the_dry_run_looks_into_the_mixer_of_phases():
    class Counts(BaseMixer):
        calls = [0]  # noqa: RUF012

        def update(self, signals):
            self.calls[0] += 1
            return torch.softmax(torch.arange(3.0) * self.calls[0], dim=0)

    class Opens(BaseMixer):
        def update(self, signals):
            self.event = threading.Event()
            return self.weights

    with pytest.raises(UserError, match=r"Phases changes Counts.calls"):
        dry_run(ready(Phases(mixer=Counts())), 6)
    with pytest.raises(UserError, match=r"Phases.mixer.event is a Event"):
        dry_run(ready(Phases(mixer=Opens())), 6)
