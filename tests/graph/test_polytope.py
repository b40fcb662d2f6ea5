"""The mixtures that limits allow, and the nearest of them."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.graph.bounds import Bound, conflict
from dograph.graph.polytope import Polytope


def random_bounds(draw, inside):
    """Up to five bounds on random sets of domains, all kept by the mixture ``inside``."""
    count, bounds = len(inside), []
    for number in range(draw.integers(1, 6)):
        row = np.zeros(count)
        row[draw.choice(count, draw.integers(1, count + 1), replace=False)] = 1
        value, slack = row @ inside, draw.random() * 0.05
        if draw.random() < 0.5:
            bounds.append(Bound(f"most {number}", row, high=min(1.0, value + slack)))
        else:
            bounds.append(Bound(f"least {number}", row, low=max(0.0, value - slack)))
    if draw.random() < 0.5:
        row = np.zeros(count)
        row[0], row[1] = 1, -1.1 * inside[0] / inside[1]
        bounds.append(Bound("ratio", row, high=0.0))
    return bounds


def by_cvxpy(bounds, weights, distance):
    x = cp.Variable(len(weights))
    euclidean = distance == "euclidean"
    objective = cp.sum_squares(x - weights) if euclidean else cp.sum(cp.kl_div(x, weights))
    kept = [cp.sum(x) == 1, x >= 0]
    kept += [bound.row @ x <= bound.high for bound in bounds if np.isfinite(bound.high)]
    kept += [bound.row @ x >= bound.low for bound in bounds if np.isfinite(bound.low)]
    cp.Problem(cp.Minimize(objective), kept).solve(solver="CLARABEL")
    return x.value


@pytest.mark.parametrize("distance", ["kl", "euclidean"])
@pytest.mark.parametrize("seed", range(25))
def test_the_projection_is_that_of_a_cone_solver(distance, seed):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, 12))
    weights, inside = draw.dirichlet(np.ones(count) / 2), draw.dirichlet(np.ones(count))
    bounds = random_bounds(draw, inside)
    polytope = Polytope.of(bounds, np.ones(count, dtype=bool))
    nearest = polytope.project(weights, distance)
    assert polytope.violation(nearest) <= 1e-7
    assert nearest.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(nearest - by_cvxpy(bounds, weights, distance)).max() < 1e-4


def test_kl_keeps_the_ratios_of_weights_that_no_limit_holds():
    polytope = Polytope.of([Bound("most", np.array([1.0, 0, 0]), high=0.4)], np.ones(3, dtype=bool))
    assert polytope.project(np.array([0.5, 0.3, 0.2])) == pytest.approx([0.4, 0.36, 0.24])
    euclidean = polytope.project(np.array([0.5, 0.3, 0.2]), "euclidean")
    assert euclidean == pytest.approx([0.4, 0.35, 0.25])


def test_an_allowed_mixture_is_returned_as_it_is():
    weights = np.array([0.5, 0.5])
    polytope = Polytope.of([Bound("most", np.array([1.0, 0]), high=0.5)], np.ones(2, dtype=bool))
    assert polytope.project(weights) is weights


def test_weight_is_given_to_what_had_none():
    row = np.array([1.0, 1, 0])
    polytope = Polytope.of([Bound("least", row, low=0.2)], np.ones(3, dtype=bool))
    assert polytope.project(np.array([0.0, 0, 1])) == pytest.approx([0.1, 0.1, 0.8])


def test_what_is_not_drawn_stays_at_0():
    drawn = np.array([True, False, True])
    polytope = Polytope.of([Bound("most", np.array([1.0, 0, 0]), high=0.25)], drawn)
    assert polytope.project(np.array([0.5, 0, 0.5])) == pytest.approx([0.25, 0, 0.75])


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_symmetric_rows_allow_the_same_mixtures(seed):
    draw = np.random.default_rng(seed)
    inside = draw.dirichlet(np.ones(5))
    polytope = Polytope.of(random_bounds(draw, inside), np.ones(5, dtype=bool))
    rows, limits = polytope.symmetric_rows()
    for weights in (inside, *draw.dirichlet(np.ones(5), 20)):
        allowed = (np.abs(rows @ weights) <= limits + 1e-12).all()
        above = (weights >= polytope.lower - 1e-12).all()
        below = (weights <= polytope.upper + 1e-12).all()
        assert (allowed and above and below) == (polytope.violation(weights) <= 1e-12)


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_conflict_is_infeasible_and_smallest(seed):
    draw = np.random.default_rng(seed)
    bounds = []
    for number in range(6):
        row = np.zeros(5)
        row[draw.choice(5, draw.integers(1, 4), replace=False)] = 1
        share = float(draw.random())
        low_or_high = {"low": share} if draw.random() < 0.5 else {"high": share}
        bounds.append(Bound(f"{number}", row, **low_or_high))
    drawn = np.ones(5, dtype=bool)
    found = conflict(bounds, drawn)
    if not found:
        nearest = Polytope.of(bounds, drawn).project(np.full(5, 0.2), "euclidean")
        assert Polytope.of(bounds, drawn).violation(nearest) <= 1e-7
        return
    assert conflict(found, drawn)
    for bound in found:
        assert not conflict([each for each in found if each is not bound], drawn)


def test_a_price_is_what_the_objective_would_gain():
    """Half the squared distance falls by price × how far a limit is moved."""
    weights, row = np.array([0.7, 0.2, 0.1]), np.array([1.0, 0, 0])

    def cost(limit):
        polytope = Polytope.of([Bound("most", row, high=limit)], np.ones(3, dtype=bool))
        return polytope, polytope.project(weights, "euclidean")

    polytope, nearest = cost(0.4)
    price = polytope.prices(nearest - weights, nearest)["most"]
    _, further = cost(0.4 + 1e-6)
    gain = (np.square(nearest - weights).sum() - np.square(further - weights).sum()) / 2
    assert price == pytest.approx(gain / 1e-6, rel=1e-4)
    assert polytope.prices(0 * weights, weights)["most"] == 0


def test_bounds_of_the_problems_own_take_no_price_from_a_limit():
    row, weights = np.array([1.0, 0, 0]), np.array([0.4, 0.1, 0.5])
    polytope = Polytope.of([Bound("least", row, low=0.4)], np.ones(3, dtype=bool))
    gradient = np.array([2.0, 3, 1])  # the second weight is at a lower bound of its own
    assert polytope.prices(gradient, weights, np.array([0, 0.1, 0]))["least"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(8))
def test_prices_explain_a_projection_on_many_bounds(seed):
    """Most weights are at a bound; a multiplier for each explains the objective's gradient."""
    draw = np.random.default_rng(seed)
    weights, group = draw.dirichlet(np.ones(40) / 2), np.repeat([1.0, 0], 20)
    caps = [Bound(f"most {i}", np.eye(40)[i], high=1.5 / 40) for i in range(40)]
    bounds = [*caps, Bound("group", group, low=0.6), Bound("again", np.eye(40)[0], high=1.5 / 40)]
    polytope = Polytope.of(bounds, np.ones(40, dtype=bool))
    nearest = polytope.project(weights, "euclidean")
    gradient = nearest - weights
    prices = polytope.prices(gradient, nearest)
    assert all(price >= 0 for price in prices.values())
    highs = sum(
        price * b.row for b, price in zip(bounds, prices.values(), strict=True) if b.high < 1
    )
    residual = gradient + highs - prices["group"] * group
    free = nearest > 1e-9
    assert np.ptp(residual[free]) < 1e-6  # all the same: the multiplier of the sum
    assert (residual[~free] > residual[free].mean() - 1e-6).all()


def test_prices_where_every_weight_is_at_a_bound():
    bounds = [
        Bound("most", np.array([1.0, 0]), high=0.4),
        Bound("least", np.array([0, 1.0]), low=0.6),
    ]
    polytope = Polytope.of(bounds, np.ones(2, dtype=bool))
    prices = polytope.prices(np.array([-1.0, 0]), np.array([0.4, 0.6]))
    assert sum(prices.values()) == pytest.approx(1)
