"""Laws recover known ones from made-up tables, and their optima."""

import json

import numpy as np
import pytest

from dograph.errors import UserError
from dograph.experiments.laws import regression
from dograph.experiments.laws.exponential import BiMix, Exponential
from dograph.experiments.laws.fit import LAWS, Fit, FitSettings
from dograph.experiments.laws.regression import Linear
from dograph.experiments.laws.table import MixtureTable, Points
from dograph.graph.bounds import Bound
from dograph.graph.polytope import Polytope

T = np.array([[-2.0, 0.3, 0.1, 0.0], [0.2, -1.5, 0.2, -0.6], [0.1, 0.0, -3.0, 0.4]])
C, K = np.array([2.0, 3.0, 1.0]), np.array([1.5, 2.0, 3.0])
DOMAINS = ("web", "code", "books", "chat")


def exponential(mixtures):
    return C + K * np.exp(mixtures @ T.T)


def table(losses=exponential, count=60, noise=0.0, repeats=0, seed=0, **more):
    draw = np.random.default_rng(seed)
    mixtures = draw.dirichlet(np.ones(4), count)
    mixtures = np.concatenate([mixtures, np.tile(mixtures[:1], (repeats, 1))])
    values = losses(mixtures)
    values = values + noise * draw.normal(size=values.shape)
    return MixtureTable(DOMAINS, mixtures, DOMAINS[:3], values, np.ones(len(mixtures)), **more)


def least(losses, weights, most=1.0):
    """The best of a fine grid of mixtures of four domains."""
    edge = np.linspace(0, 1, 41)
    grid = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[grid.sum(axis=1) <= 1 + 1e-9]
    grid = np.column_stack([grid, 1 - grid.sum(axis=1)])
    grid = grid[(grid <= most + 1e-9).all(axis=1)]
    return (losses(grid) @ weights).min()


@pytest.mark.parametrize("name", ["exponential", "log-linear"])
def test_the_exponential_law_is_recovered(name):
    given = table()
    for loss in range(3):
        fitted = LAWS[name]().fit(given.points, given.losses[:, loss], None).as_json()
        mean = T[loss].mean()
        assert fitted["c"] == pytest.approx(C[loss], abs=1e-3)
        assert fitted["k"] == pytest.approx(K[loss] * np.exp(mean), rel=1e-3)
        assert fitted["t"] == pytest.approx(T[loss] - mean, abs=2e-3)


def test_far_losses_count_linearly():
    given = table(count=80)
    losses = given.losses[:, 0].copy()
    losses[:4] += 2.0  # runs that diverged
    fitted = Exponential("exponential", delta=0.01).fit(given.points, losses, None)
    assert fitted.predict(given.points)[4:] == pytest.approx(given.losses[4:, 0], abs=0.02)


def test_gradients_are_those_of_the_losses():
    given, rows = table(), np.eye(4) * 1e-6
    for law in (Exponential("exponential", 0.05), BiMix()):
        fitted = law.fit(given.points, given.losses[:, 1], 1)
        mixture = np.array([0.2, 0.4, 0.1, 0.3])
        ends = [fitted.predict(Points.at(mixture + way * rows, 1.0)) for way in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-6
        assert fitted.gradient(mixture, 1.0) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def bimix(mixtures, steps):
    share = mixtures[:, :3]
    b, beta, c, alpha = [2.0, 1.0, 3.0], [0.5, 0.3, 0.8], [1.5, 2.0, 1.0], [0.05, 0.1, 0.2]
    level = np.array(b) / steps[:, None] ** np.array(beta) + np.array(c)
    return level * share ** -np.array(alpha)


def test_bimix_is_recovered_over_shares_and_steps():
    mixtures = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    points = Points(np.tile(mixtures, (4, 1)), np.repeat([100.0, 200, 400, 800], 30))
    losses = bimix(points.mixtures, points.steps)
    for loss, (alpha, beta) in enumerate([(0.05, 0.5), (0.1, 0.3), (0.2, 0.8)]):
        fitted = BiMix().fit(points, losses[:, loss], loss)
        assert fitted.alpha == pytest.approx(alpha, rel=0.01)
        assert fitted.beta == pytest.approx(beta, rel=0.05)
        assert fitted.predict(points) == pytest.approx(losses[:, loss], rel=1e-3)


def test_bimix_of_ends_alone_is_a_power_of_the_share():
    given = table(lambda m: np.array([2.0, 3.0, 4.0]) * m[:, :3] ** -np.array([0.05, 0.1, 0.3]))
    result = Fit(given, FitSettings("bimix")).run()
    assert result.parameters["books"]["alpha"] == pytest.approx(0.3, rel=1e-3)
    assert result.parameters["books"]["b"] == 0
    assert result.target_errors.error < 1e-3
    assert result.proposal.weights["chat"] < 1e-3  # no loss depends on it
    with pytest.raises(UserError, match=r"law bimix .* use --law exponential"):
        BiMix().fit(given.points, given.losses[:, 0], None)


def test_linear_regression_is_exact_for_linear_losses():
    given = table(lambda m: m @ np.array([[1.0, 2, 3], [2, 1, 3], [3, 3, 1], [2, 2, 2]]))
    fitted = Linear().fit(given.points, given.losses[:, 0], 0)
    assert fitted.as_json()["t"] == pytest.approx([1, 2, 3, 2])


@pytest.mark.parametrize(
    ("law", "count", "near"),
    [("exponential", 40, 0.01), ("log-linear", 40, 0.05), ("gp", 40, 0.06), ("regmix", 150, 0.25)],
)
def test_the_proposal_is_near_the_true_optimum(law, count, near, monkeypatch):
    monkeypatch.setattr(regression, "ROUNDS", 100)  # instead of a minute
    monkeypatch.setattr(regression, "RATE", 0.1)
    given = table(count=count, noise=0.005, repeats=4)
    weights = np.array([0.5, 0.3, 0.2])
    target = dict(zip(DOMAINS, weights, strict=False))
    result = Fit(given, FitSettings(law, target, prior="even", folds=5)).run()
    proposed, worst, prior = (
        float((exponential(np.array([list(each.weights.values())])) @ weights)[0])
        for each in (result.proposal, result.worst, result.at_prior)
    )
    best = least(exponential, weights)
    assert proposed - best < near * (prior - best)
    assert worst > prior
    assert result.proposal.loss == pytest.approx(proposed, abs=0.05)
    assert result.target_errors.error < 0.4 * result.target_errors.spread
    assert result.target_errors.spearman > 0.9
    assert json.loads(json.dumps(result.as_json()))["weights"] == result.proposal.weights


def test_the_exact_optimum_keeps_limits_and_says_what_is_missing():
    given, weights = table(), np.array([1, 1, 1]) / 3
    settings = FitSettings("exponential", prior="even", at_most={"books": 0.2, "code": 0.3})
    result = Fit(given, settings).run()
    assert result.gap < 1e-6
    most = np.array([1, 0.3, 0.2, 1])
    assert (np.array(list(result.proposal.weights.values())) <= most + 1e-9).all()
    assert result.proposal.loss < least(exponential, weights, most) + 1e-4
    tried = np.array(list(result.best_tried.weights.values()))
    assert (tried <= most + 1e-6).all()
    pulled = Fit(given, FitSettings("exponential", prior="even", pull=100.0)).run()
    assert list(pulled.proposal.weights.values()) == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize("law", ["exponential", "linear", "gp"])
def test_the_proposal_keeps_a_recipes_limits(law):
    """A stage's swarm once proposed without them, and its main run drew another mixture."""
    bounds = [
        Bound("least", np.array([0.0, 0, 0, 1]), low=0.2),
        Bound("group", np.array([1.0, 1, 0, 0]), high=0.3),
    ]
    within = Polytope.of(bounds, np.ones(4, dtype=bool))
    given = table(count=24)
    free = Fit(given, FitSettings(law=law)).run().proposal.weights
    assert within.violation(np.array(list(free.values()))) > 1e-3
    settings = FitSettings(law=law, at_most={"books": 0.4})
    kept = Fit(given, settings, within=within).run().proposal.weights
    assert within.violation(np.array(list(kept.values()))) <= 1e-6
    assert kept["books"] <= 0.4 + 1e-6
    with pytest.raises(UserError, match="recipe's limits together with --at-most"):
        Fit(given, FitSettings(law=law, at_most={"books": 0.1, "chat": 0.3}), within=within)


def test_interactions_are_the_changes_of_moving_a_tenth():
    result = Fit(table(), FitSettings(prior="even")).run()
    even = np.full((1, 4), 0.25)
    more_books = 0.9 * even + 0.1 * np.eye(4)[2]
    expected = (exponential(more_books) - exponential(even))[0]
    assert [row[2] for row in result.interactions.values()] == pytest.approx(expected, abs=1e-3)


def test_a_law_of_noise_says_so():
    noise = table(lambda m: np.full((len(m), 3), 2.0), noise=0.01, repeats=5)
    sentence = Fit(noise, FitSettings("linear")).run().sentence
    assert sentence.startswith("law linear says nothing about the mean of all losses")
    # A law that holds, of losses that hardly depend on the mixture near the prior.
    flat = table(lambda m: 2 + 0.03 * exponential(m), noise=0.02, repeats=40, count=100)
    result = Fit(flat, FitSettings("exponential", prior=dict.fromkeys(DOMAINS, 1.0))).run()
    assert "no mixture is surely ahead of the prior" in result.sentence
    # The target is the mean of three losses.
    assert result.target_errors.noise == pytest.approx(0.02 / 3**0.5, rel=0.3)
    assert result.errors["web"].noise == pytest.approx(0.02, rel=0.3)
    assert "and repeats differ by 0.01" in result.sentence
    sure = Fit(table(noise=0.001), FitSettings(prior="even")).run()
    assert "law exponential proposes" in sure.sentence


def test_a_tried_mixture_that_beats_the_law_is_named():
    bent = table(lambda m: exponential(m) - 3.0 * (m[:, :1] > 0.58))  # what no exponential does
    assert bent.mixtures[:, 0].max() > 0.58
    result = Fit(bent, FitSettings("linear", "web", prior="even")).run()
    assert "was tried and is" in result.sentence
    assert "better yet: run it to be sure" in result.sentence


def test_repeats_of_a_mixture_are_in_one_fold():
    given = table(count=10, repeats=6)
    from dograph.experiments.laws.crossval import fold_of_rows

    fold = fold_of_rows(given.groups, 5, 0)
    assert given.count == 10
    assert len(set(fold[given.groups == given.groups[0]])) == 1
    assert np.bincount(fold_of_rows(np.arange(10), 5, 0)).tolist() == [2] * 5
    assert len(set(fold_of_rows(np.arange(3), 10, 0))) == 3


def test_mistakes_name_key_and_remedy():
    for settings, message in [
        ({"law": "expnential"}, "law is 'expnential'; did you mean 'exponential'"),
        ({"target": "wbe"}, "target is 'wbe', which no loss is of; did you mean 'web'"),
        ({"target": {"web": 0.0}}, "at least one above 0"),
        ({"at_most": {"cod": 0.1}}, "--at-most names 'cod', which no mixture draws"),
        ({"at_most": {"code": 1.5}}, "--at-most code=1.5: give a share from 0 to 1"),
        ({"at_most": dict.fromkeys(DOMAINS, 0.2)}, "the limits add up to 0.800"),
        ({"tokens": 1e9}, "--tokens needs the tokens of web, code, books, chat: give --sizes"),
        ({"prior": "tokens"}, "--prior tokens: not all domains' tokens are known"),
        ({"prior": {"nosuch": 1.0}}, "--prior names 'nosuch'"),
        ({"folds": 1}, "folds is 1"),
        ({"epochs": 0}, "epochs is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            Fit(table(), FitSettings(**settings))
    with pytest.raises(UserError, match=r"5 parameters for each loss, and there are 5 mixtures"):
        Fit(table(count=5), FitSettings())
    with pytest.raises(UserError, match=r"there are 2 mixtures: add mixtures$"):
        Fit(table(count=2), FitSettings(law="gp"))


def test_epochs_limit_what_the_tokens_allow():
    sizes = {"web": 1e9, "code": 2e7, "books": 5e7, "chat": 1e8}
    settings = FitSettings(prior="even", tokens=1e9, epochs=4, sizes=sizes)
    fit = Fit(table(), settings)
    assert fit.most == pytest.approx([1, 0.08, 0.2, 0.4])
    assert Fit(table(sizes=sizes), FitSettings()).prior[0] == pytest.approx(1e9 / 1.17e9)


@pytest.mark.parametrize("law", ["exponential", "linear"])
def test_laws_without_steps_read_ends_alone(law):
    """Earlier losses of the same runs once moved a proposal's expected loss by half a nat."""
    ends = table(count=24)
    both = MixtureTable(
        DOMAINS,
        np.concatenate([ends.mixtures, ends.mixtures]),
        DOMAINS[:3],
        np.concatenate([ends.losses, ends.losses + 1.5]),
        np.repeat([200.0, 100.0], 24),
    )
    alone, result = (Fit(each, FitSettings(law)).run() for each in (ends, both))
    assert vars(result.proposal) == vars(alone.proposal)
    assert result.target_errors == alone.target_errors
    assert result.notes == (
        "24 of 48 rows are of fewer than 200 steps: only --law bimix reads them",
    )


def test_sizes_of_unknown_domains_are_refused():
    with pytest.raises(UserError, match=r"--sizes names 'wbe', which no mixture draws.*web"):
        Fit(table(sizes={"web": 1e9}), FitSettings(sizes={"wbe": 1e6}))


def test_a_loss_that_is_called_mean_is_not_the_mean():
    given = MixtureTable(("a", "b"), np.eye(2), ("a", "mean"), np.eye(2), np.ones(2))
    with pytest.raises(UserError, match="also a loss's name: write mean=1"):
        given.target_weights("mean")
    assert given.target_weights({"mean": 1.0}).tolist() == [0.0, 1.0]
