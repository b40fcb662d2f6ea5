"""Numbers that are not finite: the step is skipped and counted, many in a row stop the run."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from dograph.data.corpus.prepare import prepare
from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import quieten, train
from dograph.files.run_dir import NON_FINITE
from dograph.signals.backward_reader import BackwardReader
from dograph.signals.recorded_forward import RecordedForward
from dograph.training.language_model import LanguageModel


class Poison(Callback):
    """Makes the losses of some steps not finite, and records the parameters around each step."""

    def __init__(self, steps):
        self.steps, self.weights, self.moments = set(steps), {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights[trainer.global_step] = pl_module.network.lm_head.weight.detach().clone()
        if trainer.global_step in self.steps:
            whole = type(pl_module).token_losses

            def poisoned(tokens):
                return whole(pl_module, tokens) * torch.tensor(float("nan"))

            pl_module.token_losses = poisoned

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.__dict__.pop("token_losses", None)
        self.last = pl_module


def trained(small_recipe, tmp_path, steps, mixer="Stratified", name="poisoned", **more):
    quieten()
    recipe = check(compose(small_recipe(name, f"dograph.mixers.{mixer}", **more)))
    poison = Poison(steps)
    summary = train(recipe, prepare(recipe.corpus), tmp_path / name, callbacks=[poison])
    return poison, summary, recipe.mixer


@pytest.mark.parametrize(
    "mixer",
    [
        *("Stratified", "DoGraph\n  init_args: {clusters: 4}", "DoReMiOnline", "DynamicLoss"),
        "ODM\n  init_args: {warmup: 0}",
        "ADO\n  init_args: {start: 4, refit_every: 1, ignore: 0, window: 5, stride: 1}",
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(small_recipe, tmp_path, mixer):
    poison, summary, _ = trained(small_recipe, tmp_path, {2, 5}, mixer)
    for step in range(7):
        changed = not torch.equal(poison.weights[step], poison.weights[step + 1])
        assert changed == (step not in (2, 5)), step
    assert poison.last.skipped.tolist() == [2, 0]
    assert summary.steps == 8
    weights = [domain.weight for domain in summary.domains]
    assert sum(weights) == pytest.approx(1)
    assert all(loss is not None for loss in summary.scores.values())


def test_too_many_in_a_row_stop_the_run_and_keep_their_documents(small_recipe, tmp_path):
    path = small_recipe("long", steps=12)
    recipe = check(compose(path, ["report.non_finite_limit=2"]))
    with pytest.raises(UserError, match="3 optimiser steps in a row") as stop:
        train(recipe, prepare(recipe.corpus), tmp_path / "long", callbacks=[Poison(range(5, 12))])
    assert NON_FINITE in str(stop.value)
    report = json.loads((tmp_path / "long" / NON_FINITE).read_text())
    assert sorted(report["steps"]) == ["6", "7", "8"]
    first = report["steps"]["6"][0]
    assert first["domain"] in ("animals", "code", "numbers")
    assert first["documents"][0] <= first["documents"][1]
    assert len(report["steps"]["6"]) == 8


def test_the_documents_of_every_micro_batch_are_kept(small_recipe, tmp_path):
    path = small_recipe("small_parts", steps=12)
    overrides = ["report.non_finite_limit=2", "trainer.accumulate_grad_batches=4"]
    recipe = check(compose(path, overrides))
    with pytest.raises(UserError, match="3 optimiser steps in a row"):
        train(recipe, prepare(recipe.corpus), tmp_path / "parts", callbacks=[Poison(range(5, 12))])
    report = json.loads((tmp_path / "parts" / NON_FINITE).read_text())
    assert {step: len(found) for step, found in report["steps"].items()} == {
        "6": 32,
        "7": 32,
        "8": 32,
    }


def test_a_sketch_that_is_not_finite_skips_the_step(small_recipe, tmp_path, monkeypatch):
    sketch = RecordedForward.sketch_and_share

    def poisoned(self, losses, step):
        found, weighted_loss = sketch(self, losses, step)
        return found * (float("nan") if step == 3 else 1), weighted_loss

    monkeypatch.setattr(RecordedForward, "sketch_and_share", poisoned)
    mixer = "DoGraph\n  init_args: {clusters: 4}"
    poison, _, _ = trained(small_recipe, tmp_path, (), mixer)
    assert poison.last.skipped.tolist() == [1, 0]
    assert torch.equal(poison.weights[3], poison.weights[4])


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_so_does_one_that_is_read_from_the_backward(
    small_recipe, tmp_path, monkeypatch, micro_batches
):
    sketch, calls = BackwardReader.sketch, []

    def poisoned(self, scale):
        calls.append(None)
        return sketch(self, scale) * (float("nan") if len(calls) == 3 * micro_batches + 1 else 1)

    monkeypatch.setattr(BackwardReader, "sketch", poisoned)
    path = small_recipe("read", "dograph.mixers.DoGEOnline")
    recipe = check(compose(path, [f"trainer.accumulate_grad_batches={micro_batches}"]))
    poison = Poison(())
    train(recipe, prepare(recipe.corpus), tmp_path / "read", callbacks=[poison])
    assert poison.last.skipped.tolist() == [1, 0]
    assert torch.equal(poison.weights[3], poison.weights[4])
    assert not torch.equal(poison.weights[4], poison.weights[5])


def test_infinite_gradients_of_a_finite_loss_are_skipped_too(small_recipe, tmp_path):
    class Explode(Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 3:
                pl_module.network.lm_head.weight.grad[0, 0] = float("inf")

    mixer = "dograph.mixers.DoReMiOnline\n  init_args: {step_size: 0.5}"
    recipe = check(compose(small_recipe("exploding", mixer)))
    watched = Poison(())
    train(recipe, prepare(recipe.corpus), tmp_path / "exploding", callbacks=[Explode(), watched])
    assert [step for step, _ in recipe.mixer.history] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(watched.weights[3], watched.weights[4])
    assert watched.last.skipped.tolist() == [1, 0]


def test_the_counts_go_with_the_checkpoint():
    config = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 300}
    model = LanguageModel(config={**config, "bos_token_id": 0, "eos_token_id": 0})
    model.skipped = torch.tensor([4.0, 2.0])
    content = {}
    model.on_save_checkpoint(content)
    model.skipped = torch.zeros(2)
    model.on_load_checkpoint(content)
    assert model.skipped.tolist() == [4, 2]


def test_a_gradient_scalers_skipped_steps_are_counted(small_recipe, tmp_path):
    scaled = "{precision: 16-mixed, device: cpu}"
    plugin = f"{{class_path: lightning.pytorch.plugins.MixedPrecision, init_args: {scaled}}}"
    overrides = [f"trainer.plugins=[{plugin}]", "trainer.gradient_clip_val=1.0"]
    recipe = check(compose(small_recipe("scaled"), overrides))
    poison = Poison({4})
    train(recipe, prepare(recipe.corpus), tmp_path / "scaled", callbacks=[poison])
    assert poison.last.trainer.precision_plugin.scaler is not None
    assert torch.equal(poison.weights[4], poison.weights[5])
    assert not torch.equal(poison.weights[6], poison.weights[7])
    assert poison.last.skipped.tolist()[1] == 0
    assert poison.last.skipped.tolist()[0] >= 1
    assert poison.weights[7].isfinite().all()
