"""The cost model: its identities, real models and tensors, and the page that quotes it."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cost_counts as counts
from benchmarks import cost_model as model_of
from benchmarks.cost_model import A100, H100, Changes, Setting
from benchmarks.scale import GPUS, PAGE, TABLES, page_with_tables
from benchmarks.scale_counted import network, sequence_losses, sketch_counted, training_counted
from dograph.graph.window import SketchWindow
from dograph.reports import cost
from dograph.signals.sketches import SequenceSketcher, SketchSettings

SMALL = counts.gpt2("small", 3, 64, 1, vocabulary=300, context=32)
LLAMA = counts.llama("llama", 2, 64, 96, 1, vocabulary=300, context=32)
SETTINGS = [Setting(model, gpus) for model, gpus in itertools.product(counts.MODELS, GPUS)]


@pytest.fixture(params=[SMALL, LLAMA], ids=lambda model: model.name)
def model(request):
    return request.param


def test_page_has_the_tables_that_the_model_prints():
    page = PAGE.read_text()
    assert page == page_with_tables(page)
    assert all(build(H100) in page for build in TABLES.values())


def test_page_without_a_place_for_a_table_is_told():
    with pytest.raises(ValueError, match="no place for the table 'sizes'"):
        page_with_tables("# Nothing")


def test_figure(tmp_path):
    from benchmarks.scale_figure import draw

    assert draw(tmp_path / "new" / "scale.png").stat().st_size > 10_000


def test_parameters_of_published_sizes():
    millions = [model.parameters // 10**6 for model in counts.MODELS]
    assert millions == [124, 354, 774, 1557, 6738]


def test_parameters_and_training_flops_of_real_models(model):
    real = network(model)
    assert model.parameters == sum(each.numel() for each in real.parameters())
    assert counts.training_flops(model) == pytest.approx(training_counted(model), rel=0.01)
    assert counts.forward_flops(model) == cost.forward_flops(real, model.context)


@pytest.mark.parametrize("blocks", ["last", "all"])
def test_sketch_flops_of_real_models(model, blocks):
    number = 1 if blocks == "last" else model.layers
    predicted = counts.partial_backward_flops(model, number)
    predicted += counts.projection_flops(model, number)
    assert predicted == pytest.approx(sketch_counted(model, blocks), rel=0.01)


@pytest.mark.parametrize("blocks", ["last", "all"])
def test_bytes_of_real_tensors(model, blocks):
    real, number = network(model), 1 if blocks == "last" else model.layers
    sketcher = SequenceSketcher(real, SketchSettings(blocks=blocks))
    outputs = []
    for module in sketcher.modules.values():
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
    tokens = torch.randint(model.vocabulary, (2, model.context + 1))
    sketch = sketcher.sketch(sequence_losses(real, tokens))
    assert sketch.nbytes == 2 * counts.sketch_numbers(model, number) * sketch.element_size()
    held = 2 * model.context * counts.record_bytes(model, number, number=counts.SINGLE)
    assert sum(output.nbytes for output in outputs) == held


def test_window_bytes():
    window = SketchWindow(50)
    window.add(torch.randn(80, 12), torch.zeros(80, dtype=torch.int64))
    state = window.state_dict()
    assert counts.window_bytes(50, 12) == sum(each.nbytes for each in state.values())


def test_domain_gradients_and_checkpoints(model):
    assert counts.domain_gradient_bytes(model, 7) == 28 * model.parameters
    assert counts.checkpoint_bytes(model) == 12 * model.parameters


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.model.name}-{s.gpus}")
def test_identities(setting):
    assert setting.batch == setting.share * setting.gpus <= model_of.LARGEST_BATCH
    two, one = (model_of.published(setting, Changes(one_backward=each)) for each in (False, True))
    passed = model_of.backward_seconds(setting)
    assert sum(two.values()) - sum(one.values()) == pytest.approx(passed)
    assert one["backward"] == 0
    assert min(two.values()) >= 0
    alone = replace(setting, gpus=1)
    assert model_of.published(alone)["messages"] == model_of.schedule(alone)["messages"] == 0
    shared = model_of.schedule(setting, Changes(shared_probe=True))
    assert shared["probe"] == pytest.approx(model_of.schedule(setting)["probe"] / setting.gpus)


def test_what_changes_promise():
    for setting in SETTINGS:
        plain = sum(model_of.published(setting).values())
        for changes in (Changes(clustered=512), Changes(packed=True), Changes(late=True)):
            assert sum(model_of.published(setting, changes).values()) <= plain


def test_collectives_grow_with_ranks_and_not_on_one():
    times = [model_of.ring_seconds(Setting(counts.MODELS[0], gpus), 1e6) for gpus in GPUS]
    assert times[0] == 0
    assert times == sorted(times)
    assert model_of.tree_seconds(SETTINGS[0]) == 0
    # 127 hops between nodes, 896 inside: NCCL's formula.
    expected = 6.6e-6 + 896 * 1.0e-6 + 127 * 2.7e-6
    assert model_of.ring_seconds(SETTINGS[4], 0) == pytest.approx(expected)


def test_a_faster_gpu_makes_the_host_weigh_more():
    share = {}
    for device in (A100, H100):
        setting = Setting(counts.MODELS[-1], 1024, device)
        parts = model_of.published(setting)
        share[device.name] = parts["K-means, solve"] / model_of.step_seconds(setting)
    assert share["H100"] > 2 * share["A100"]


def test_page_names_the_files_it_speaks_of():
    root = Path(__file__).parent.parent.parent
    for name in ("cost_counts.py", "cost_model.py"):
        assert f"`benchmarks/{name}`" in PAGE.read_text()
        assert (root / "benchmarks" / name).exists()
