"""What a run leaves in TensorBoard, and that a report can be stopped and continued."""

import io
import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from outcomes import scalars_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers.dograph import DoGraph
from dograph.mixers.dograph_schedule import DoGraphSchedule
from dograph.reports.domain_logger import DomainLogger
from dograph.reports.history import LossMeans, MixtureHistory, TrainingClock
from dograph.reports.mixture_report import MixtureReport
from dograph.reports.observation import ObservationWindow, observed_graph
from dograph.reports.tensorboard import Board, chart_layout
from dograph.signals.batch_signals import BatchSignals
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback

DOMAINS = ("animals", "code", "numbers")


def events(folder):
    """The run's events, all kept."""
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return found.Reload()


def test_scalars_have_the_steps_and_values_of_the_run(stratified_run):
    found = events(stratified_run.folder)
    for name in DOMAINS:
        for group in ("sampling", "realised", "effective", "tokens", "epochs"):
            assert [event.step for event in found.Scalars(f"{group}/{name}")] == [4, 8, 12]
        assert found.Scalars(f"sampling/{name}")[-1].value == pytest.approx(1 / 3)
        assert found.Scalars(f"effective/{name}")[-1].value == pytest.approx(1 / 3, abs=0.05)
        assert len(found.Scalars(f"validation/loss/{name}")) == 2
    assert sum(found.Scalars(f"tokens/{name}")[-1].value for name in DOMAINS) == 12 * 8 * 16
    assert sum(found.Scalars(f"realised/{name}")[1].value for name in DOMAINS) == pytest.approx(1)
    assert found.Scalars("train/loss")[0].value == pytest.approx(5.7, abs=0.3)
    assert "train/weighted_loss" not in found.Tags()["scalars"]
    assert [event.step for event in found.Scalars("observed/mutual_information")] == [2, 6, 12]
    assert 1 <= found.Scalars("observed/effective_clusters")[-1].value <= 3
    assert all(event.value > 0 for event in found.Scalars("speed/tokens_per_second"))


def test_every_chart_of_the_layout_finds_its_tags(stratified_run):
    found = events(stratified_run.folder)
    content = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    titles = {c.title: [chart.title for chart in c.chart] for c in layout.category}
    assert titles == {category: list(charts) for category, charts in chart_layout().items()}
    for category in layout.category:
        for chart in category.chart:
            tags = found.Tags()["scalars"]
            hits = {tag for tag in tags for regex in chart.multiline.tag if re.match(regex, tag)}
            assert len(hits) == (2 if chart.title == "Mean and worst" else 3), chart.title


def test_figures_are_shown_and_saved(stratified_run):
    found = events(stratified_run.folder)
    steps = {tag: [e.step for e in found.Images(tag)] for tag in found.Tags()["images"]}
    assert steps == {
        "figures/domain_graph": [2, 6, 12],
        "figures/gradient_directions": [2, 6, 12],
        "figures/gradient_directions_early_and_late": [12],
        "figures/weight_trajectories": [6, 12],
    }
    saved = {path.name for path in (stratified_run.folder / "figures").iterdir()}
    assert {"domain_graph_0000012.png", "gradient_directions_0000002.png"} <= saved
    assert {"weight_trajectories.png", "gradient_directions_early_and_late.png"} <= saved


def test_hparams_and_final_metrics_are_in_the_runs_own_folder(stratified_run):
    found = events(stratified_run.folder)
    plugin = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(plugin).session_start_info
    assert start.hparams["model/n_embd"].number_value == 16
    assert start.hparams["mixer"].string_value == "Stratified"
    assert found.Scalars("final/tokens")[0].value == 12 * 8 * 16
    assert found.Scalars("final/tokens")[0].step == 12
    last = found.Scalars("validation/mean_loss")[-1].value
    assert found.Scalars("final/mean_loss")[0].value == pytest.approx(last)
    assert not [path for path in stratified_run.folder.iterdir() if path.name[0].isdigit()]


def test_summary_json_agrees_with_the_run(stratified_run):
    found = json.loads((stratified_run.folder / "summary.json").read_text())
    assert found["tokens"] == 12 * 8 * 16 and found["steps"] == 12
    assert found["losses"] == stratified_run.report.perplexity.losses


def test_a_mixer_of_the_loss_shows_its_diagnostics_and_weighted_loss(fit_tiny, tmp_path, capsys):
    run = fit_tiny(tmp_path, DoGraph(clusters=3), steps=6)
    found = events(run.folder)
    tags = set(found.Tags()["scalars"])
    assert {"mixer/effective_clusters", "mixer/mutual_information", "train/weighted_loss"} <= tags
    assert "mixer/solver_milliseconds" in tags
    last = [found.Scalars(f"effective/{name}")[-1].value for name in DOMAINS]
    assert sum(last) == pytest.approx(1)
    assert "tensorboard --logdir" in capsys.readouterr().out


def test_a_schedule_shows_influences_charts_figures_and_its_finding(fit_tiny, tmp_path, capsys):
    run = fit_tiny(tmp_path, DoGraphSchedule(interval=2, measure=4, skip=0, rank=4))
    found = events(run.folder)
    tags = found.Tags()["scalars"]
    for group in ("influence", "influence_error"):
        for name in DOMAINS:
            points = found.Scalars(f"mixer/{group}/{name}")
            assert [event.step for event in points] == [4, 8, 12]
    content = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    hits = {
        chart.title: sum(any(re.match(r, tag) for r in chart.multiline.tag) for tag in tags)
        for chart in layout.category[-1].chart
    }
    assert hits == {
        "Influence on the target": 3,
        "Standard error of the influence": 3,
        "Terms of the objective": 4,
    }
    steps = [event.step for event in found.Images("figures/schedule")]
    assert steps == [6, 12]
    sentence = json.loads((run.folder / "summary.json").read_text())["finding"]
    assert " the even target" in sentence and sentence in capsys.readouterr().out


def test_a_resumed_run_continues_its_trajectory(fit_tiny, tmp_path, stratified_run):
    checkpoint = stratified_run.folder.parent / "five.ckpt"  # between two points
    again = fit_tiny(tmp_path, checkpoint=checkpoint, print_at_end=False).report
    whole = stratified_run.report
    assert again.history.outcome() == whole.history.outcome()
    assert again.pictures.state_dict() == whole.pictures.state_dict()
    assert again.summary.as_json()["losses"] == whole.summary.as_json()["losses"]
    before, after = events(stratified_run.folder), events(tmp_path / "run")
    late = [event.value for event in before.Scalars("train/loss")][1:]
    assert [event.value for event in after.Scalars("train/loss")] == late


def test_a_resumed_run_takes_back_the_points_after_its_checkpoint(tmp_path):
    for first, last in ((0, 10), (5, 8)):  # killed at 10, resumed from 5
        time.sleep(1.1)  # readers order event files by the second in their names
        board = Board(DomainLogger(tmp_path, name="", version="run"), (), tmp_path)
        board.begin(["web", "code"], first)
        for step in range(first + 1, last + 1):
            board.scalars({"train/loss": float(last), "sampling/code": last / 10}, step)
        board.flush()
    steps = [*((step, 10) for step in range(1, 6)), *((step, 8) for step in range(6, 9))]
    points = scalars_of(tmp_path / "run")
    assert points["train/loss"] == steps
    assert points["mixture/sampling/code"] == [(step, pytest.approx(v / 10)) for step, v in steps]


def test_each_domain_s_curves_are_a_run_of_its_own(tmp_path):
    logger = DomainLogger(tmp_path, name="", version="run")
    logger.log_metrics({"validation/loss/web": 3.0}, step=0)  # no domain is known yet
    logger.begin(["web", "loss"], step=0)
    logger.log_metrics({"tokens/web": 5, "validation/loss/web": 2.0, "validation/loss": 9.0}, 4)
    logger.log_metrics({"train/loss": 1.0, "mixer/influence/web": 0.5}, 4)
    logger.finalize("success")
    assert scalars_of(tmp_path / "run") == {
        "validation/loss/web": [(4, 2.0)],
        "validation/loss": [(4, 9.0)],
        "train/loss": [(4, 1.0)],
        "mixture/tokens/web": [(4, 5.0)],
        "mixer/influence/web": [(4, 0.5)],
    }


def test_the_layout_of_domain_runs_finds_their_charts():
    charts = chart_layout(schedule=True, domain_runs=True)
    patterns = [tags[1][0] for group in charts.values() for tags in group.values()]
    for tag in ("mixture/sampling", "mixture/epochs", "validation/loss", "mixer/influence"):
        assert len([each for each in patterns if re.match(each, tag)]) == 1


def test_history_continues_over_its_state():
    whole, first, second = (MixtureHistory(("a", "b", "c")) for _ in range(3))
    draw = np.random.default_rng(0)
    realised, effective = draw.integers(1, 9, (6, 3)).cumsum(0), draw.random((6, 3)).cumsum(0)
    for step in range(6):
        part = first if step < 3 else second
        if step == 3:
            buffer = io.BytesIO()
            torch.save(first.state_dict(), buffer)
            buffer.seek(0)
            second.load_state_dict(torch.load(buffer, weights_only=True))
        for history in (whole, part):
            history.add(step, np.ones(3) / 3, realised[step], effective[step])
    np.testing.assert_array_equal(second.realised, whole.realised)
    np.testing.assert_array_equal(second.effective, whole.effective)
    np.testing.assert_allclose(np.sum(whole.realised, axis=1), 1)
    np.testing.assert_allclose(
        whole.realised[2], (realised[2] - realised[1]) / (realised[2] - realised[1]).sum()
    )


def seen_of(step, n=4, sketch=True, weights=None):
    """A batch of n sequences."""
    draw = torch.Generator().manual_seed(step)
    return BatchSignals(
        step=step,
        domain=torch.arange(n) % 2,
        sequence_loss=torch.arange(n).float(),
        sketch=torch.randn(n, 6, generator=draw) if sketch else None,
        loss_weights=weights,
    )


def test_losses_are_means_since_last_asked():
    losses = LossMeans()
    assert losses.take() is None
    losses.add(seen_of(0, weights=torch.tensor([0.0, 0, 0, 1])))
    losses.add(seen_of(1, weights=torch.tensor([0.0, 1, 0, 0])))
    again = LossMeans()
    again.load_state_dict(losses.state_dict())
    assert losses.take() == again.take() == (1.5, 2.0)
    assert losses.take() is None


def test_window_keeps_what_can_be_compared_and_survives_its_state():
    window, latest, restored = (
        ObservationWindow(),
        ObservationWindow(comparable=False),
        ObservationWindow(),
    )
    for step in range(3):
        window.add(seen_of(step))
        latest.add(seen_of(step))
    window.add(seen_of(3, sketch=False))
    restored.load_state_dict(window.state_dict())
    observed = window.take()
    assert observed.sketches.shape == (12, 6) and observed.weights.sum() == pytest.approx(1)
    assert torch.equal(restored.take().sketches, observed.sketches)
    assert torch.equal(latest.take().sketches, seen_of(2).sketch)
    assert window.take() is None


def test_a_window_that_has_diverged_is_not_drawn():
    window = ObservationWindow()
    signals = seen_of(0)
    signals.sketch[1, 1] = torch.nan
    window.add(signals)
    assert window.take() is None


def test_observed_graph_weighs_clusters_by_the_loss():
    window = ObservationWindow()
    window.add(seen_of(0, weights=torch.tensor([0.7, 0.1, 0.1, 0.1])))
    graph = observed_graph(window.take(), clusters=2, seed=0)
    assert graph.weights.sum() == pytest.approx(1)
    assert graph.weights[graph.labels[0]] >= 0.7 - 1e-6


def test_clock_stands_still_while_paused():
    clock = TrainingClock(5.0)
    with clock.paused():
        time.sleep(0.01)
    assert clock.seconds == 5.0  # a clock that stood stays so
    clock.start()
    time.sleep(0.01)
    with clock.paused():
        before = clock.seconds
        time.sleep(0.02)
        assert clock.seconds == before > 5.0
    time.sleep(0.001)
    assert clock.seconds > before


@pytest.mark.parametrize("setting", [{"every": 0}, {"figures_every": -1}, {"clusters": 0}])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        MixtureReport(MixingCallback(), DomainPerplexity(), **setting)


def test_report_must_follow_mixing_and_needs_a_logger():
    mixing = MixingCallback()
    report = MixtureReport(mixing, DomainPerplexity())
    wrong = SimpleNamespace(callbacks=[report, mixing], loggers=[])
    with pytest.raises(UserError, match="before MixtureReport"):
        report.setup(wrong, None, "fit")
    trainer = Trainer(logger=False, callbacks=[mixing, report], accelerator="cpu")
    with pytest.raises(UserError, match="TensorBoardLogger"):
        report.setup(trainer, None, "fit")


def test_the_same_report_of_another_run_starts_anew(corpus_settings, store, tmp_path):
    mixing, perplexity = MixingCallback(), DomainPerplexity()
    report = MixtureReport(mixing, perplexity, every=2, figures_every=0, print_at_end=False)
    data = DataMixer(None, corpus_settings, context=16, batch_size=8, validation_sequences=8)
    config = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 300, "n_positions": 16}
    for validated in (1, 0):
        trainer = Trainer(
            max_steps=4,
            max_epochs=-1,
            limit_val_batches=validated,
            accelerator="cpu",
            logger=TensorBoardLogger(tmp_path),
            callbacks=[mixing, perplexity, report],
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(LanguageModel(config=config), datamodule=data)
        assert report.history.steps == [2, 4]
        assert len(report.history.validations) == validated
        assert report.summary.tokens == 4 * 8 * 16
        assert bool(report.summary.scores) == bool(validated)
