"""What a comparison leaves in TensorBoard, read back."""

import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from dograph.errors import UserError
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.statistics import estimate
from dograph.experiments.comparison.tensorboard import MARK, OVERALL, write_board

DOMAINS = ("animals", "code", "numbers")
METHODS = ("uniform", "dynamic loss")
SCORES = tuple(
    f"{name}_{kind}" for name in ("target", "mean", "worst") for kind in ("loss", "perplexity")
)


def figure(title="Losses"):
    """A figure that Agg draws at 300 × 200 pixels."""
    drawn = Figure(figsize=(3, 2), dpi=100)
    drawn.suptitle(title)
    return drawn


def events(folder):
    """A TensorBoard run's events, all kept."""
    kept = {"images": 0, "scalars": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=kept).Reload()


def layout_of(folder):
    """Titles to charts, by category."""
    content = events(folder / OVERALL).Tensors("custom_scalars__config__")[0]
    layout = layout_pb2.Layout.FromString(content.tensor_proto.string_val[0])
    return {c.title: {chart.title: chart for chart in c.chart} for c in layout.category}


def hparams_of(folder, tag):
    content = events(folder).summary_metadata[tag].plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def texts_of(folder):
    """Markdown by tag."""
    found = events(folder / OVERALL)
    tags = [tag for tag in found.Tags()["tensors"] if tag.startswith("tables/")]
    return {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags}


@pytest.fixture(scope="module")
def board(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "tensorboard"
    write_board(finished, {"losses": figure()}, folder)
    return folder


def test_each_method_and_each_of_its_seeds_is_a_tensorboard_run(board):
    runs = {str(file.parent.relative_to(board)) for file in board.glob("**/events.*")}
    seeds = {f"{method}/seed_{seed}" for method in METHODS for seed in (0, 1)}
    assert runs == {OVERALL, *METHODS, *seeds}


def test_curves_are_means_over_seeds_with_their_bounds(board, finished):
    for method in finished.methods:
        found = events(board / method.label)
        for name, score in (("target", np.mean), ("mean", np.mean), ("worst", max)):
            validations = [run.history.validations for run in method.runs]
            for at, points in enumerate(zip(*validations, strict=True)):
                over_seeds = estimate([score([*point.losses.values()]) for point in points])
                for kind, change in (("loss", float), ("perplexity", math.exp)):
                    tags = (
                        f"comparison/{name}_{kind}",
                        *(f"{end}_bound/{name}_{kind}" for end in ("lower", "upper")),
                    )
                    shown = [found.Scalars(tag)[at] for tag in tags]
                    assert {event.step for event in shown} == {points[0].step}
                    expected = [change(v) for v in (over_seeds.mean, *over_seeds.bounds)]
                    assert [event.value for event in shown] == pytest.approx(expected, rel=1e-5)
        assert [event.step for event in found.Scalars("comparison/mean_loss")] == [4, 8, 12]
        assert found.Scalars("comparison/mean_loss")[-1].value == pytest.approx(method.mean.mean)


def test_weights_and_effective_shares_are_means_over_seeds(board, finished):
    for method in finished.methods:
        found = events(board / method.label)
        for kind in ("weights", "effective"):
            for index, domain in enumerate(DOMAINS):
                rows = np.mean([getattr(run.history, kind) for run in method.runs], axis=0)
                shown = found.Scalars(f"{kind}/{domain}")
                assert [event.step for event in shown] == [4, 8, 12]
                assert [event.value for event in shown] == pytest.approx(rows[:, index], rel=1e-5)
            last = [found.Scalars(f"{kind}/{domain}")[-1].value for domain in DOMAINS]
            assert sum(last) == pytest.approx(1)


def test_every_chart_finds_one_curve_of_each_method(board):
    layout = layout_of(board)
    assert [len(charts) for charts in layout.values()] == [6, 6, 3, 3]
    for method in METHODS:
        tags = events(board / method).Tags()["scalars"]
        for charts in layout.values():
            for title, chart in charts.items():
                for series in chart.margin.series:
                    assert {series.value, series.lower, series.upper} <= set(tags), title
                if not chart.margin.series:
                    (regex,) = chart.multiline.tag
                    assert len([tag for tag in tags if re.match(regex, tag)]) == 1, title


def test_a_run_has_its_hyperparameters_and_final_metrics(board, finished):
    run = finished.methods[1].runs[1]
    folder = board / "dynamic loss" / "seed_1"
    start = hparams_of(folder, "_hparams_/session_start_info").session_start_info.hparams
    words = {key: value.string_value for key, value in start.items() if value.string_value}
    numbers = {key: value.number_value for key, value in start.items() if key not in words}
    assert words == {
        "method": "dynamic loss",
        "mixer": "DynamicLoss",
        "seed": "1",
        "model/architecture": "gpt2",
        "mixer/DynamicLoss/strategy": "linupper",
    }
    assert numbers["batch_size"] == 8 and numbers["context"] == 16 and numbers["steps"] == 12
    assert numbers["model/n_embd"] == 16 and numbers["mixer/DynamicLoss/warmup"] == 2
    found = events(folder)
    final = {tag: found.Scalars(tag)[0] for tag in found.Tags()["scalars"]}
    assert {f"final/{name}" for name in (*SCORES, "tokens", "flops", "seconds")} == set(final)
    assert final["final/worst_loss"].value == pytest.approx(run.worst_loss)
    assert final["final/tokens"].value == 12 * 8 * 16
    assert final["final/tokens"].step == 12


def test_one_list_of_columns_covers_runs_with_different_hyperparameters(board):
    holders = [
        file.parent.name
        for file in board.glob("**/events.*")
        if "_hparams_/experiment" in events(file.parent).summary_metadata
    ]
    assert holders == [OVERALL]
    experiment = hparams_of(board / OVERALL, "_hparams_/experiment").experiment
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    assert differing == {"method", "mixer", "seed"}
    names = {info.name: info for info in experiment.hparam_infos}
    assert {"mixer/DynamicLoss/warmup", "model/n_layer", "learning_rate"} <= names.keys()
    shown = [value.string_value for value in names["method"].domain_discrete.values]
    assert shown == sorted(METHODS)
    assert len(experiment.metric_infos) == 9


def test_figures_and_tables_are_shown(board, finished):
    (image,) = events(board / OVERALL).Images("figures/losses")
    assert (image.width, image.height, image.step) == (300, 200, 12)
    texts = texts_of(board)
    assert list(texts) == sorted(texts) and len(texts) == 4
    html = markdown_to_safe_html(texts["tables/final_loss/text_summary"])
    assert re.search(r"<th[^>]*>mean loss</th>", html)
    for method in finished.methods:
        assert f"{method.mean.mean:.3f} ± {method.mean.half:.3f}" in html


def test_names_are_shown_as_they_are(oddly_named_runs, tmp_path):
    comparison = compare([oddly_named_runs])
    write_board(comparison, {}, tmp_path / "board")
    (name,) = set(comparison.domains) - set(DOMAINS)
    text = texts_of(tmp_path / "board")["tables/loss_of_each_domain/text_summary"]
    html = markdown_to_safe_html(text)
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert escaped in html
    assert html.count("<td") == 2 * 4
    chart = layout_of(tmp_path / "board")["Weight of each domain"][name]
    tags = events(tmp_path / "board" / "uniform").Tags()["scalars"]
    assert [t for t in tags if re.match(chart.multiline.tag[0], t)] == [f"weights/{name}"]


def test_one_seed_has_no_bounds_and_no_bands(finished_runs, tmp_path):
    runs = [finished_runs / name / "seed_0" for name in ("uniform_gpt2", "dynamic_loss_gpt2")]
    write_board(compare(runs), {}, tmp_path / "board")
    tags = events(tmp_path / "board" / "uniform").Tags()["scalars"]
    assert {tag.split("/")[0] for tag in tags} == {"comparison", "weights", "effective"}
    charts = [chart for c in layout_of(tmp_path / "board").values() for chart in c.values()]
    assert not [chart for chart in charts if chart.margin.series]


def test_methods_of_one_label_keep_their_own_names(finished, tmp_path):
    alike = tuple(replace(method, label="same") for method in finished.methods)
    write_board(replace(finished, methods=alike), {}, tmp_path / "board")
    shown = {path.name for path in (tmp_path / "board").iterdir()}
    assert shown == {OVERALL, MARK, "uniform_gpt2", "dynamic_loss_gpt2"}


def test_writing_again_doubles_nothing(finished, tmp_path):
    folder = tmp_path / "board"
    folder.mkdir()
    for _ in range(2):
        write_board(finished, {}, folder)
    assert len(list(folder.glob("**/events.*"))) == 7
    assert len(events(folder / "uniform").Scalars("comparison/mean_loss")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_a_folder_of_something_else_is_left_alone(finished, finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs / "uniform_gpt2", tmp_path / "runs")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="name a new or an empty folder"):
        write_board(finished, {}, folder)
    assert sorted(folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_place_that_cannot_be_written_is_named(finished, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/board: cannot be written"):
        write_board(finished, {}, tmp_path / "file" / "board")


def test_a_failure_leaves_the_earlier_board(finished, tmp_path):
    folder = tmp_path / "board"
    write_board(finished, {}, folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="frac"):
        write_board(finished, {"broken": figure(r"$\frac{$")}, folder)
    assert sorted(folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
