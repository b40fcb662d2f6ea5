"""A signal in the midst of a validation: the run stops there, and ends as if it never had."""

import os
import signal
from dataclasses import dataclass, field

import pytest
from lightning.pytorch import Callback
from outcomes import differing, outcome

from dograph.experiments.open_run import is_finished, open_run
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import train
from dograph.training.checkpoint_writer import Interrupted

STEPS = 16
"""Of the runs, which validate every four."""


@dataclass
class Signals(Callback):
    """Sends a signal after so many batches of the validation at a step; counts all batches."""

    step: int = 0
    batches: int = 0
    seen: list[int] = field(default_factory=list)

    def on_validation_batch_end(self, trainer, *_):
        self.seen.append(trainer.global_step)
        if trainer.global_step == self.step and self.seen.count(self.step) == self.batches:
            os.kill(os.getpid(), signal.SIGINT)


def start(recipe, store, callback):
    """Starts a run, or resumes it from where it is."""
    folder = recipe.runs / "seed_0"
    with open_run(folder, recipe.steps) as checkpoint:
        train(recipe, store, folder, checkpoint, [callback])
    return folder


@pytest.fixture
def recipe(small_recipe, tmp_path):
    """Dropout draws random numbers, as the loaders of every validation do."""
    path = small_recipe("small", "dograph.mixers.DoReMiOnline", STEPS)
    config = "model.config={n_layer: 1, n_embd: 16, n_head: 2, resid_pdrop: 0.5}"
    sequences = "data.validation_sequences=24"  # three batches a domain

    def recipe(runs):
        return check(compose(path, [config, sequences, f"runs={tmp_path / runs}"]))

    return recipe


def test_an_interrupted_validation_is_begun_again(recipe, store):
    """Twice in the same validation, once in the next; later checkpoints do not repeat theirs."""
    whole = start(recipe("whole"), store, counted := Signals())
    length = counted.seen.count(4)
    assert length == 9
    stopped = recipe("stopped")
    for step, batches in ((4, 2), (4, 5), (8, 1)):
        with pytest.raises(Interrupted, match=rf"step={step}\.ckpt"):
            start(stopped, store, sent := Signals(step, batches))
        assert sent.seen.count(step) == batches  # and it ended at the next, before this counts
    folder = start(stopped, store, last := Signals())
    assert [last.seen.count(step) for step in (4, 8, 12)] == [0, length, length]
    assert not differing(outcome(folder), outcome(whole))
    (folder / "checkpoints" / "final.ckpt").unlink()  # as if it had been killed before its end
    start(stopped, store, last := Signals())
    assert set(last.seen) == {STEPS}
    assert not differing(outcome(folder), outcome(whole))


def test_the_last_validation_is_finished_and_the_run_with_it(recipe, store, capfd):
    folder = start(recipe("stopped"), store, sent := Signals(STEPS, 1))
    assert "Stopping after the last validation (again to stop at once)" in capfd.readouterr().err
    assert sent.seen.count(STEPS) == sent.seen.count(4)
    assert is_finished(folder)
