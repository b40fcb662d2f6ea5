"""Losses and weights that are not finite, and a solver that never finds an answer."""

import json

import pytest
from disturbances import without_solutions
from outcomes import arguments
from subprocess_runner import run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STEPS = 30


@pytest.fixture
def given(corpus_settings, store, tmp_path):
    place = f"corpus.store={corpus_settings.store}"
    return lambda name, *more: arguments(name, corpus_settings, tmp_path, STEPS, place, *more)


def error_in(text):
    return text[text.index("dograph: error:") :]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            ["model.learning_rate=1e30"],
            "steps in a row had losses or gradients that are not finite",
        ),
        (
            ["model.learning_rate=1e18", "trainer.gradient_clip_val=null"],
            "steps in a row had losses or gradients that are not finite",
        ),
        (
            ["mixer.class_path=disturbances.NotANumber"],
            "NotANumber.update's result at step 6 has a value that is not finite",
        ),
    ],
)
def test_numbers_that_are_not_finite_stop_the_run_each_time(given, tmp_path, more, expected):
    """A whole run: the message, the steps that it names, and no result; and a second time."""
    errors = []
    for _ in range(2):
        code, text, _ = run_command(given("uniform_gpt2", *more), tmp_path / "log")
        assert code == 2, text[-3000:]
        assert "Traceback" not in text, text[-3000:]
        assert expected in text, text[-3000:]
        errors.append(error_in(text))
    assert errors[0] == errors[1]
    (folder,) = (tmp_path / "runs" / "uniform_gpt2").iterdir()
    assert not (folder / "summary.json").exists()
    assert not (folder / "checkpoints" / "final.ckpt").exists()
    if "gradients" in expected:
        steps = json.loads((folder / "non_finite.json").read_text())["steps"]
        assert len(steps) == 6 and all(len(step) == 16 for step in steps.values())


def test_a_solver_that_always_fails_does_not_stop_training(given, tmp_path):
    """What a mixer falls back on, step after step."""
    more = ["mixer.init_args.clusters=4"]
    code, text, _ = run_command(given("dograph_gpt2", *more), tmp_path / "log", without_solutions)
    assert code == 0, text[-3000:]
    folder = tmp_path / "runs" / "dograph_gpt2" / "seed_0"
    points = EventAccumulator(str(folder)).Reload().Scalars("mixer/solver_failures")
    assert points[-1].step == STEPS and points[-1].value == STEPS
    losses = json.loads((folder / "summary.json").read_text())["losses"]
    assert all(0 < loss < 20 for loss in losses.values())
    assert "no solution, by the test" in text
