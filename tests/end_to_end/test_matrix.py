"""Every mixer × accumulation × loader processes × ranks × resume, in short real runs.

Mixers come from the shipped recipes, so that a new one is here once it has a recipe. The slow tests
alone protect all combinations; a case takes some 22 seconds of one core.
"""

import json
import os
import signal
import socket
from dataclasses import asdict
from itertools import product

import pytest
import torch
from outcomes import differing
from rank_runs import ACCUMULATE, STEPS, STOP
from short_recipes import RECIPES, SHORT, stages_of
from warm import start_command

import dograph.mixers
from dograph.experiments.plan import Plan, StageRun
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.stages import Experiment
from dograph.mixers import BaseMixer

pytestmark = pytest.mark.timeout(900)
MODULES = ("dograph.experiments.stages", "rank_runs")
WORKERS = (0, 2)
LONGEST = 240
"""Seconds of one process."""
RUNS = [(path, *run) for path in RECIPES for run in stages_of(path)]
CASES = {}
"""By mixer and its arguments' names the first run that has them, rather one without stages."""
for _path, _stage, *_mixer in sorted(RUNS, key=lambda run: run[1] is not None):
    CASES.setdefault(tuple(_mixer), (_path, _stage))


def test_every_exported_mixer_is_in_the_matrix():
    exported = {name: getattr(dograph.mixers, name) for name in dograph.mixers.__all__}
    mixers = {
        name for name, kind in exported.items()
        if isinstance(kind, type) and issubclass(kind, BaseMixer) and kind is not BaseMixer
    }  # fmt: skip
    assert not mixers - {name for name, _ in CASES}, "give each of these a recipe"


def resolved(path, stage, settings, folder):
    """A file with one stage's recipe, shrunk; stages before it have run."""
    overrides = [
        f"corpus={json.dumps(asdict(settings))}",
        "data={context: 32, batch_size: 12, lookahead: 2, validation_sequences: 4}",
        "model={config: {n_layer: 1, n_embd: 16, n_head: 2}, warmup: 2}",
        f"trainer={{max_steps: {STEPS}, enable_progress_bar: false}}",
        "report={figures_every: 0, checkpoint_every: 100}",
        f"runs={folder / 'runs'}",
        *SHORT.get(path.stem, []),
    ]
    file = RecipeFile(path, overrides)
    if stage is None:
        recipe = check(file.compose())
    else:
        plan = Plan.make(file)
        recipe = plan.resolve(StageRun(stage, stage), Experiment(plan).run())
    place = folder / "recipe.yaml"
    place.write_text(recipe.as_yaml())
    return place


def ends_of(recipe, folder):
    """The ends of all runs by (ranks, rank, accumulation, workers, resumed)."""
    alone = [start(recipe, folder, 1, [workers]) for workers in WORKERS]
    ends = {(1, 0, *cell): end for each in alone for cell, end in finished(each).items()}
    port = free_port()
    pair = [start(recipe, folder, 2, WORKERS, rank, port) for rank in range(2)]
    for rank, each in enumerate(pair):
        ends |= {(2, rank, *cell): end for cell, end in finished(each).items()}
    return ends


def start(recipe, folder, ranks, workers, rank=0, port=0):
    """Starts a process that makes a rank's runs; (the process, its log, its ends' file)."""
    name = f"{ranks}_{rank}_{len(workers)}_{workers[0]}"
    job, log, ends = (folder / f"{name}.{kind}" for kind in ("json", "log", "pt"))
    content = {"recipe": recipe, "folder": folder, "ranks": ranks, "workers": workers, "ends": ends}
    job.write_text(json.dumps(content, default=str))
    environment = dict(os.environ)
    if ranks > 1:
        environment |= {
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    return start_command([str(job)], log, environment, modules=MODULES), log, ends


def finished(started):
    process, log, ends = started
    code = process.wait(LONGEST)
    if code is None:
        process.send_signal(signal.SIGKILL)
    assert code == 0, log.read_text()[-4000:]
    return torch.load(ends, weights_only=True)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], *case[1]]))
def ends(request, store, corpus_settings, tmp_path_factory):
    """The ends of a case's runs."""
    folder = tmp_path_factory.mktemp("matrix")
    recipe = resolved(*CASES[request.param], corpus_settings, folder)
    return ends_of(recipe, folder)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", ACCUMULATE)
@pytest.mark.parametrize("ranks", [1, 2])
def test_any_mixer_resumes_to_the_bit(ends, ranks, accumulate):
    """With and without loader processes, as a run that was never stopped and has none."""
    for rank, workers in product(range(ranks), WORKERS):
        whole = dict(ends[ranks, rank, accumulate, 0, False])
        whole["trace"] = whole["trace"][STOP * accumulate :]
        resumed = dict(ends[ranks, rank, accumulate, workers, True])
        if workers:  # the sampler is batches ahead then
            whole["sampler"] = resumed["sampler"] = None
        assert not differing(whole, resumed)[:9], (rank, workers)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", ACCUMULATE)
def test_any_mixer_trains_the_same_on_two_ranks(ends, accumulate):
    """Both ranks to the bit, and one process with the whole batch up to rounding."""
    alone = ends[1, 0, accumulate, 0, False]
    first, second = (ends[2, rank, accumulate, 0, False] for rank in range(2))
    assert not differing(first, second)[:9]
    # K-means amplifies rounding (docs/method.md): then the first step alone.
    alike = accumulate if alone["clusters"] else STEPS * accumulate
    for one, two in zip(alone["trace"][:alike], first["trace"], strict=False):
        assert one["domains"] == two["domains"]
        # ADO's laws of a few points, refitted, amplify rounding to some 2e-4 of a weight.
        for key, atol in (("losses", 1e-4), ("loss_weights", 1e-4), ("weights", 1e-3)):
            torch.testing.assert_close(one[key], two[key], atol=atol, rtol=1e-4)
    if not alone["clusters"]:
        for name, value in alone["network"].items():
            torch.testing.assert_close(value, first["network"][name], atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", ACCUMULATE)
def test_any_mixer_that_learns_acts_after_the_resume(ends, accumulate):
    """Else the matrix shows nothing: lower what it waits for in `short_recipes.SHORT`."""
    end = ends[1, 0, accumulate, 0, False]
    before, after = end["trace"][STOP * accumulate - 1], end["trace"][STOP * accumulate :]
    moved = any(not torch.equal(each["weights"], before["weights"]) for each in after)
    uneven = any(each["loss_weights"].max() > 1.01 * each["loss_weights"].min() for each in after)
    assert moved or uneven or not end["learns"]
