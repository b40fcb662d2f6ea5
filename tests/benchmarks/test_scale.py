"""The cost model: its identities, real models and tensors, and the page that quotes it."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.imports import arrows, levels
from benchmarks.scale import counts, seconds
from benchmarks.scale.counted import counted_flops, network, sequence_losses, sketch_flops
from benchmarks.scale.figure import draw
from benchmarks.scale.seconds import Changes, Setting
from benchmarks.scale.tables import GPUS, PAGE, page_with_tables
from dograph.mixers import DoGraphSchedule
from dograph.reports import cost
from dograph.signals.batch_signals import EmbeddingGradients, Probe
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.signals.token_gradients import EmbeddingReader

SMALL = counts.gpt2("small", 3, 64, 1, vocabulary=300, context=32)
LLAMA = counts.llama("llama", 2, 64, 96, 1, vocabulary=300, context=32)
SETTINGS = [Setting(model, gpus) for model, gpus in itertools.product(counts.MODELS, GPUS)]


@pytest.fixture(params=[SMALL, LLAMA], ids=lambda model: model.name)
def model(request):
    return request.param


def test_page_has_the_tables_that_the_model_prints():
    page = PAGE.read_text()
    assert page == page_with_tables(page)


def test_page_without_a_place_for_a_table_is_told():
    with pytest.raises(ValueError, match="no place for the table 'sizes'"):
        page_with_tables("# Nothing")


def test_figure(tmp_path):
    draw(tmp_path / "new" / "scale.png")
    assert (tmp_path / "new" / "scale.png").stat().st_size > 10_000


def test_parameters_of_published_sizes():
    millions = [model.parameters // 10**6 for model in counts.MODELS]
    assert millions == [124, 354, 774, 1557, 6738]


def test_parameters_and_training_flops_of_real_models(model):
    real = network(model)
    assert model.parameters == sum(each.numel() for each in real.parameters())
    assert counts.training_flops(model) == pytest.approx(counted_flops(model), rel=0.01)
    assert counts.forward_flops(model) == cost.forward_flops(real, model.context)


@pytest.mark.parametrize("blocks", ["last", "all"])
def test_sketch_flops_of_real_models(model, blocks):
    assert sketch_flops(model, blocks) == pytest.approx(counted_flops(model, blocks), rel=0.01)


def test_bytes_of_real_tensors(model):
    real = network(model)
    sketcher = SequenceSketcher(real, SketchSettings())
    outputs = []
    for module in sketcher.modules.values():
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
    tokens = torch.randint(model.vocabulary, (2, model.context + 1))
    sketch = sketcher.record().sketch(sequence_losses(real, tokens))
    assert sketch.nbytes == 2 * counts.sketch_numbers(model) * sketch.element_size()
    held = 2 * model.context * counts.gradient_bytes(model, number=counts.SINGLE)
    assert sum(output.nbytes for output in outputs) == held


def test_gradients_at_the_embeddings_of_real_models(model):
    real, tokens = network(model), torch.randint(model.vocabulary, (2, model.context + 1))
    reader = EmbeddingReader(real, rank=4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        reader.record()
        ids, gradients = reader.differentiate(sequence_losses(real, tokens))
    counted = counter.get_total_flops() / ids.numel() - 2 * model.width * 4
    assert counts.probe_flops(model) == pytest.approx(counted, rel=0.01)
    by_rank = (counts.token_gradient_bytes() - 8) / counts.TOKEN_RANK
    assert by_rank * gradients.numel() == gradients.nbytes
    assert ids.nbytes == 8 * ids.numel()


def test_constants_are_the_schedules():
    mixer = DoGraphSchedule(measure=seconds.SKIP + seconds.READ)
    read = sum(mixer.needs_at(step, EmbeddingGradients) for step in range(seconds.RUN))
    assert (mixer.update_every, read) == (seconds.INTERVAL, seconds.READ)
    assert mixer.request(Probe).per_update == seconds.PROBE
    assert mixer.request(EmbeddingGradients).rank == counts.TOKEN_RANK


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.model.name}-{s.gpus}")
def test_identities(setting):
    assert setting.batch == setting.share * setting.gpus <= seconds.LARGEST_BATCH
    alone = replace(setting, gpus=1)
    assert seconds.published(alone)["messages"] == seconds.schedule(alone)["messages"] == 0


@pytest.mark.parametrize("changes", [Changes(fitted=512), Changes(packed=True), Changes(late=True)])
def test_no_change_makes_a_step_longer(changes):
    for setting in SETTINGS:
        parts = seconds.published(setting, changes)
        assert min(parts.values()) >= 0
        assert sum(parts.values()) <= sum(seconds.published(setting).values())


def test_collectives_grow_with_ranks_and_not_on_one():
    times = [seconds.ring_seconds(Setting(counts.MODELS[0], gpus), 1e6) for gpus in GPUS]
    assert times[0] == 0
    assert times == sorted(times)
    assert seconds.tree_seconds(SETTINGS[0]) == 0
    # 127 hops between nodes, 896 inside: NCCL's formula.
    expected = 6.6e-6 + 896 * 1.0e-6 + 127 * 2.7e-6
    assert seconds.ring_seconds(Setting(counts.MODELS[0], 1024), 0) == pytest.approx(expected)


def test_page_names_the_files_it_speaks_of():
    root = PAGE.parent.parent
    for name in ("benchmarks/scale/counts.py", "benchmarks/scale/seconds.py"):
        assert f"`{name}`" in PAGE.read_text()
        assert (root / name).exists()


def test_its_files_import_one_another_without_a_circle():
    assert levels(arrows("benchmarks.scale"))
