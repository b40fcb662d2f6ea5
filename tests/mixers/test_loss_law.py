"""Power laws of losses: their misfit as printed, and known laws found again."""

import math
import random

import numpy as np
import pytest

from dograph.mixers.loss_law import STARTS, fit_law, misfit, smoothed


def transcribed(law, n, losses):
    """The misfit of ADO's public code in plain numbers."""
    a, irreducible, exponent = law
    total = 0.0
    for count, loss in zip(n, losses, strict=True):
        predicted = math.log(math.exp(irreducible) + math.exp(a) / count**exponent)
        error = abs(predicted - math.log(loss))
        total += error**2 / 2 if error <= 1e-3 else 1e-3 * (error - 1e-3 / 2)
    total += max(a - 6.5, 0) + max(0.5 - irreducible, 0) + max(exponent - 0.8, 0)
    return total + max(0.001 - exponent, 0)


def test_the_misfit_by_hand():
    # L = e + e²/n is 2e at n = e, and the loss is e²: an error of ln 2 − 1, beyond Huber's 1e-3.
    value, gradient = misfit(np.array([2.0, 1.0, 1.0]), np.array([1.0]), np.array([2.0]))
    error = 1 - math.log(2)
    assert value == pytest.approx(1e-3 * (error - 5e-4) + 0.2)  # α is 0.2 above its bound
    assert gradient == pytest.approx([-5e-4, -5e-4, 5e-4 + 1])


def test_the_misfit_agrees_with_its_transcription_on_random_inputs():
    draw = random.Random(0)
    for _ in range(250):
        law = [draw.uniform(-3, 8), draw.uniform(-1, 3), draw.uniform(-0.2, 1)]
        n = [draw.uniform(1, 1e6) for _ in range(draw.randint(1, 9))]
        close = draw.choice([1e-3, 0.5])
        losses = [
            math.exp(draw.uniform(-close, close))
            * (math.exp(law[1]) + math.exp(law[0]) / x ** law[2])
            for x in n
        ]
        value, gradient = misfit(np.array(law), np.log(n), np.log(losses))
        assert value == pytest.approx(transcribed(law, n, losses), rel=1e-6, abs=1e-12)
        for index in range(3):
            ends = []
            for move in (-1e-7, 1e-7):
                moved = np.array(law)
                moved[index] += move
                ends.append(transcribed(moved, n, losses))
            assert gradient[index] == pytest.approx((ends[1] - ends[0]) / 2e-7, rel=1e-3, abs=1e-5)


def test_the_starts_are_those_of_the_public_code():
    assert STARTS.shape == (512, 3)
    assert STARTS.min(axis=0).tolist() == [-2, -2, 0]
    assert STARTS.max(axis=0) == pytest.approx([5, 1.5, 0.7])


@pytest.mark.parametrize(
    "law", [(3.0, 1.0, 0.5), (4.5, 0.7, 0.3), (1.0, 1.2, 0.1), (6.0, 0.5, 0.75)]
)
def test_a_law_is_found_again(law):
    n = np.arange(100.0, 20_000.0, 500.0)
    loss = math.exp(law[1]) + math.exp(law[0]) / n ** law[2]
    found = fit_law(n, loss)
    fall = [each[2] * math.exp(each[0]) / n[-1] ** each[2] for each in (law, found)]
    assert fall[1] == pytest.approx(fall[0], rel=0.02)
    assert np.array_equal(found, fit_law(n, loss))  # to the bit


def test_bounds_are_kept_until_breaking_them_pays():
    """Beyond a bound costs 1 for each unit: few points below e^0.5 nats keep to it, many do not."""
    for points, kept in ((100, True), (2000, False)):
        n = np.linspace(1e3, 1e6, points)
        losses = 0.8 + 5 / n**0.5
        law = fit_law(n, losses)
        assert (law[1] == 0.5) == kept
        found = misfit(law, np.log(n), np.log(losses))[0]
        for index in range(3):
            for move in (-0.01, 0.01):
                moved = law.copy()
                moved[index] += move
                assert misfit(moved, np.log(n), np.log(losses))[0] >= found - 1e-4


def test_what_does_not_fall_has_nothing_to_reduce():
    n = np.arange(100.0, 20_000.0, 500.0)
    level = fit_law(n, np.full_like(n, 3.0))
    assert level[2] * math.exp(level[0]) / n[-1] ** level[2] < 0.01
    easy = fit_law(n, np.full_like(n, 0.2))  # below e^0.5, the least irreducible loss
    assert easy[2] * math.exp(easy[0]) / n[-1] ** easy[2] < 0.01


def test_losses_without_a_logarithm_have_no_law():
    assert np.isnan(fit_law(np.array([1.0, 2.0, 3.0]), np.array([1.0, -0.1, 0.0]))).all()


def test_smoothing_keeps_cubics():
    steps = np.linspace(-1, 1, 40)[:, None]
    cubic = steps**3 - steps
    assert smoothed(cubic, 11) == pytest.approx(cubic, abs=1e-9)
