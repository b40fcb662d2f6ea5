"""Curves over seeds: what is averaged, and what is left out."""

import math

import numpy as np
import pytest
from written_runs import DOMAINS, write_run, write_study

from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.curves import (
    difference_curve,
    loss_curve,
    score_curves,
    trajectory,
)
from dograph.experiments.comparison.figures import comparison_figures
from dograph.experiments.comparison.page import as_page
from dograph.experiments.comparison.tensorboard import write_board
from dograph.reports.history import MixtureHistory, Validation

NAN = float("nan")


def rewrite(folder, steps, shares, tokens_a_step=100):
    """Gives a run another history: shares of the first domain and validations at some steps."""
    history = MixtureHistory(domains=DOMAINS)
    total, before = np.zeros(2), 0
    for step, share in zip(steps, shares, strict=True):
        row = np.array([share, 1 - share])
        total, before = total + (step - before) * row, step
        history.add(step, row, total, total)
        losses = dict(zip(DOMAINS, (5 - step / 100, 6 - step / 100), strict=True))
        history.add_validation(Validation(step, tokens_a_step * step, 1.0, losses))
    history.write(folder)


def two_seeds(runs, name="uniform_gpt2", mixer="Stratified"):
    return [write_run(runs / name / f"seed_{s}", s, [(3.0, 4.0)], mixer) for s in (0, 1)]


def test_a_diverged_domain_is_a_gap(tmp_path):
    for seed in (0, 1):
        curve = [(5.0, 6.0), (5.0, NAN if seed else 5.5), (3.0, 4.0)]
        write_run(tmp_path / "uniform" / f"seed_{seed}", seed, curve)
    method = compare([tmp_path]).baseline
    for score, ends in (("target", (5.5, 3.5)), ("mean", (5.5, 3.5)), ("worst", (6.0, 4.0))):
        curve = loss_curve(method, score)
        np.testing.assert_array_equal(curve.mean, [ends[0], NAN, ends[1]])
        assert np.isnan(curve.bounds[0][1]) and np.isnan(curve.bounds[1][1])


def test_shares_are_averaged_at_equal_steps(tmp_path):
    every_10, every_20 = two_seeds(tmp_path)
    rewrite(every_10, [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4])
    rewrite(every_20, [20, 40], [0.4, 0.8])
    moved = trajectory(compare([tmp_path]).baseline, DOMAINS)
    assert moved.steps.tolist() == [20, 40]
    np.testing.assert_allclose(moved.shares, [[0.3, 0.7], [0.6, 0.4]])
    turned = trajectory(compare([tmp_path]).baseline, DOMAINS[::-1])
    np.testing.assert_allclose(turned.shares, moved.shares[:, ::-1])


def test_seeds_without_a_common_step_give_empty_curves(tmp_path):
    for name, mixer in (("uniform_gpt2", "Stratified"), ("other_gpt2", "Fixed")):
        first, second = two_seeds(tmp_path / "runs", name, mixer)
        rewrite(first, [10, 30], [0.5, 0.5])
        rewrite(second, [20, 40], [0.5, 0.5])
    comparison = compare([tmp_path / "runs"])
    assert not any(len(curve.mean) for curve in score_curves(comparison.baseline).values())
    assert trajectory(comparison.baseline, DOMAINS).shares.shape == (0, 2)
    figures = comparison_figures(comparison)
    assert "<svg" in as_page(comparison, figures)
    write_board(comparison, figures, tmp_path / "board")


def test_differences_are_taken_after_equal_tokens(tmp_path):
    base = two_seeds(tmp_path)
    other = two_seeds(tmp_path, "other_gpt2", "Fixed")
    for folder in base:
        rewrite(folder, [10, 20, 30, 40], [0.5] * 4)
    for folder in other:  # of twice the batch
        rewrite(folder, [10, 20], [0.5] * 2, tokens_a_step=200)
    comparison = compare([tmp_path])
    curve = difference_curve(comparison.methods[1], comparison.baseline)
    assert curve.steps.tolist() == [10, 20] and curve.tokens.tolist() == [2000, 4000]
    np.testing.assert_allclose(curve.mean, [0.1, 0.2])


def test_one_seed_has_no_bounds_and_perplexities_follow_the_loss(tmp_path):
    comparison = compare([write_study(tmp_path / "one", seeds=(0,))])
    assert loss_curve(comparison.baseline).bounds is None
    curves = score_curves(compare([write_study(tmp_path / "more")]).baseline)
    loss, perplexity = curves["worst_loss"], curves["worst_perplexity"]
    assert perplexity.mean[-1] == pytest.approx(math.exp(loss.mean[-1]))
    np.testing.assert_allclose(perplexity.bounds, np.exp(loss.bounds))
