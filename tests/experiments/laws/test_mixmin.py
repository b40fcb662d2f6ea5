"""MixMin against hand-computed cases, an independent transcription, and models of one domain."""

import json
import math

import numpy as np
import pytest

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.laws.fit import Fit, FitSettings
from dograph.experiments.laws.mixmin import FittedMixMin, descend
from dograph.experiments.laws.table import MixtureTable, Points, SequenceLosses


def at(*mixtures):
    return Points.at(np.array(mixtures, dtype=float), 1.0)


def table(nats, tokens=2, more=()):
    """S models of one domain alone, and further mixtures with their measured losses."""
    domains = tuple("abcd"[: len(nats)])
    mixtures = np.concatenate([np.eye(len(nats)), *[[mixture] for mixture, _ in more]])
    own = np.asarray(nats).mean(axis=1) / tokens
    losses = np.concatenate([own, [loss for _, loss in more]])[:, None]
    given = {"sequences": SequenceLosses({"aim": np.array(nats, dtype=float)}, tokens)}
    return MixtureTable(domains, mixtures, ("aim",), losses, np.ones(len(mixtures)), **given)


def test_two_models_by_hand():
    # P(x) = 1/2 and 1/8 by one model, 1/4 and 1/2 by the other; two tokens each.
    law = FittedMixMin(np.log([[2.0, 8.0], [4.0, 2.0]]), 2)
    likelihoods = 0.75 / 2 + 0.25 / 4, 0.75 / 8 + 0.25 / 2
    expected = -sum(map(math.log, likelihoods)) / 2 / 2
    assert law.predict(at((0.75, 0.25))) == pytest.approx([expected])
    first = -(0.5 / likelihoods[0] + 0.125 / likelihoods[1]) / 2 / 2
    second = -(0.25 / likelihoods[0] + 0.5 / likelihoods[1]) / 2 / 2
    derivative = law.gradient(np.array([0.75, 0.25]), 1.0)
    assert derivative == pytest.approx([first, second])
    start = law.gradient(np.array([0.5, 0.5]), 1.0)
    grown = np.exp(-start)
    assert descend(lambda mixture: law.gradient(mixture, 1.0), 2, steps=1) == pytest.approx(
        grown / grown.sum()
    )


def test_likelihoods_of_whole_sequences_do_not_underflow():
    law = FittedMixMin(np.array([[1000.0, 9000.0], [9000.0, 1000.0]]), 1000)
    assert law.predict(at((0.5, 0.5), (0.9, 0.1))) == pytest.approx(
        [1 + math.log(2) / 1000, 1 - math.log(0.09) / 2000]
    )
    assert law.predict(at((1, 0))) == pytest.approx([1 + math.log(1e9) / 2000])
    assert np.isfinite(law.gradient(np.array([1.0, 0.0]), 1.0)).all()


def transcribed(likelihoods, tokens, rate, steps):
    """Weights by the published descent, likelihoods as they are and a sequence at a time."""
    models, sequences = likelihoods.shape
    weights = [1 / models] * models
    for _ in range(steps):
        derivatives = [0.0] * models
        for x in range(sequences):
            joint = sum(weights[s] * likelihoods[s, x] for s in range(models))
            for s in range(models):
                derivatives[s] -= likelihoods[s, x] / joint / tokens / sequences
        grown = [
            w * math.exp(-rate * derivative)
            for w, derivative in zip(weights, derivatives, strict=True)
        ]
        weights = [each / sum(grown) for each in grown]
    return weights


def test_the_descent_agrees_with_a_transcription():
    draw = np.random.default_rng(0)
    for _ in range(200):
        models, sequences, tokens = draw.integers([2, 1, 10], [6, 6, 50])
        nats = draw.uniform(0, 20, (models, sequences))
        law, rate, steps = FittedMixMin(nats, int(tokens)), draw.uniform(0.1, 2), 8
        weights = descend(lambda p, law=law: law.gradient(p, 1.0), int(models), rate, steps)
        expected = transcribed(np.exp(-nats), tokens, rate, steps)
        assert weights.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_is_that_of_the_loss():
    draw = np.random.default_rng(1)
    law, mixture = FittedMixMin(draw.uniform(0, 9, (4, 5)), 3), draw.dirichlet(np.ones(4))
    moved = mixture + 1e-6 * np.array([np.eye(4), -np.eye(4)]).reshape(8, 4)
    losses = law.predict(at(*moved))
    assert law.gradient(mixture, 1.0) == pytest.approx((losses[:4] - losses[4:]) / 2e-6, abs=1e-6)


def test_each_model_gets_the_share_of_sequences_that_it_alone_explains():
    """Of short sequences the published descent ends at the optimum; of long ones before it."""
    far = 60 * np.ones((3, 10))
    far[0, :5], far[1, 5:8], far[2, 8:] = 1, 1, 1
    result = Fit(table(far), FitSettings("mixmin", prior="even")).run()
    assert list(result.proposal.weights.values()) == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
    assert result.gap == pytest.approx(0, abs=1e-3)
    longer = Fit(table(far, 1000), FitSettings("mixmin", prior="even")).run()
    assert list(longer.proposal.weights.values()) == pytest.approx([0.35, 0.33, 0.32], abs=0.02)
    assert longer.gap > 1e-4
    pulled = Fit(table(far, 1000), FitSettings("mixmin", prior="even", pull=1e-9)).run()
    assert list(pulled.proposal.weights.values()) == pytest.approx([0.5, 0.3, 0.2], abs=2e-3)


def test_limits_hold():
    far = 60 * np.ones((3, 10))
    far[0] = 1
    result = Fit(table(far), FitSettings("mixmin", prior="even", at_most={"a": 0.6})).run()
    assert list(result.proposal.weights.values()) == pytest.approx([0.6, 0.2, 0.2], abs=1e-3)


def test_models_alone_test_nothing_and_further_mixtures_do():
    nats = [[2.0, 8.0], [4.0, 2.0]]
    alone = Fit(table(nats), FitSettings("mixmin", prior="even")).run()
    assert "no mixture that was trained tells how far to trust that" in alone.sentence
    assert math.isnan(alone.target_errors.error)
    assert alone.as_json()["errors"]["target"]["out_of_fold_error"] is None
    expected = FittedMixMin(np.array(nats), 2).predict(at((0.5, 0.5), (0.2, 0.8)))
    more = (((0.5, 0.5), expected[0] + 0.1), ((0.2, 0.8), expected[1] + 0.1))
    tested = Fit(table(nats, more=more), FitSettings("mixmin", prior="even")).run()
    assert tested.target_errors.error == pytest.approx(0.1, abs=1e-6)


def test_a_table_without_sequences_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("weight/a,weight/b,loss/x\n1,0,2\n0,1,3\n0.5,0.5,2\n")
    assert main(["fit", str(path), "--law", "mixmin", "--output", str(tmp_path / "fit.json")]) == 2
    given = MixtureTable(("a", "b"), np.eye(2), ("a",), np.ones((2, 1)), np.ones(2))
    with pytest.raises(UserError, match=r"only runs tell: .*--mixtures 0 --corners 1"):
        Fit(given, FitSettings("mixmin")).run()


@pytest.mark.slow  # four runs: alone it holds the sequences' losses equal to the runs' own
def test_models_of_one_domain_each_choose_the_targets_own(small_recipe, tmp_path, capfd):
    """Each domain's own model explains it best, so that the target's domain is proposed."""
    path, names = small_recipe("small"), ("animals", "code", "numbers")
    mixtures = {name: {other: float(other == name) for other in names} for name in names}
    for name, weights in {**mixtures, "even": dict.fromkeys(names, 1.0)}.items():
        mixer = {"class_path": "dograph.mixers.Fixed", "init_args": {"weights": weights}}
        assert main(["run", str(path), f"name={name}", f"mixer={json.dumps(mixer)}"]) == 0
    words = ["fit", str(tmp_path / "runs"), "--law", "mixmin", "--target"]
    assert main([*words, "code"]) == 0
    content = json.loads((tmp_path / "runs" / "fit.json").read_text())
    assert content["weights"]["code"] > 0.9
    own = [content["parameters"][name]["losses"][place] for place, name in enumerate(names)]
    measured = [
        json.loads((tmp_path / "runs" / name / "seed_0" / "summary.json").read_text())
        for name in names
    ]
    for place, summary in enumerate(measured):  # the run's own validation is that of its model
        assert own[place] == pytest.approx(summary["domains"][names[place]]["validation_loss"])
    assert content["errors"]["target"]["out_of_fold_error"] < 0.05  # of the even mixture alone
    assert "law mixmin proposes code" in content["sentence"]
    (tmp_path / "runs" / "code" / "seed_0" / "summary.json").unlink()
    assert main([*words, "code"]) == 2
    assert "reads one model of each domain alone, and none is of code" in capfd.readouterr().err
