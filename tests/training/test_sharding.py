"""FSDP2: parameters in shards on two real ranks, beside one process that has them whole."""

import pytest
import torch
from lightning.pytorch import Callback
from test_mixing_callback import train
from two_ranks import run_on_two_ranks

from dograph.mixers import DoGraph, DoGraphSchedule, DoReMi, Stratified
from dograph.signals.sketches import SketchSettings
from dograph.training.checkpoint_reader import load_model

CASES = {
    "stratified": (Stratified, "last", {}),
    "observed": (Stratified, "model", {"observe_every": 1, "observe_window": 1}),
    "last": (lambda: DoGraph(clusters=4), "last", {}),
    "model": (lambda: DoGraph(clusters=4), "model", {}),
    "schedule": (lambda: DoGraphSchedule(interval=2, measure=3, skip=0), "last", {}),
}
ON_TWO_RANKS = """
from lightning.pytorch.strategies import ModelParallelStrategy
from dograph.errors import UserError
from dograph.mixers import DoGE
from dograph.signals.sketches import SketchSettings
from pathlib import Path
from dograph.training.checkpoint_writer import AtomicCheckpoints, CheckpointSaver
from test_sharding import CASES, Saved, options

def sharded():
    return ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )

both = dict(devices=2, batch_size=8, plugins=[AtomicCheckpoints()])
cases = {{**CASES, "doremi": (lambda: DoReMi({reference!r}), "last", {{}})}}
for name, (mixer, blocks, more) in cases.items():
    after = [Saved({folder!r} + "/sharded.ckpt")] if name == "model" else []
    given = options(blocks, more)
    _, trace, _ = train(settings, mixer(), strategy=sharded(), after=after, **both, **given)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    torch.save(trace, f"{{name}}{{rank}}.pt")
resumed = {{**options("model", {{}}), "steps": 8, "ckpt_path": {folder!r} + "/sharded.ckpt"}}
_, trace, _ = train(settings, CASES["model"][0](), strategy=sharded(), **both, **resumed)
torch.save(trace, f"resumed{{rank}}.pt")
try:
    train(settings, DoGE("exact"), strategy=sharded(), **both)
except UserError as error:
    assert "set trainer.strategy to ddp" in str(error), error
else:
    raise SystemExit("exact DoGE ran on shards")
saver = CheckpointSaver(Path("checkpoints"), 100, 100.0, 1)
resumed["ckpt_path"] = None if rank else resumed["ckpt_path"]
saver.resumes_from = None if rank else Path(resumed["ckpt_path"])
try:
    train(settings, CASES["model"][0](), strategy="ddp", after=[saver], **both, **resumed)
except UserError as error:
    assert "rank 0 resumes from sharded.ckpt, rank 1 from none" in str(error), error
else:
    raise SystemExit("ranks resumed from different checkpoints")
"""


class Saved(Callback):
    """Saves a checkpoint at the end."""

    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, module):
        trainer.save_checkpoint(self.path)


def options(blocks, more):
    return {"steps": 4, "sketch": SketchSettings(rank=4, blocks=blocks), **more}


@pytest.mark.slow
def test_two_ranks_with_shards_train_as_one_process(store, corpus_settings, tmp_path, monkeypatch):
    """All signals but exact gradients; a checkpoint is whole, and resumes on either.

    Ranks that find different checkpoints stop.
    """
    reference = str(tmp_path / "reference.ckpt")
    monkeypatch.chdir(tmp_path)
    train(corpus_settings, Stratified(), steps=2, after=[Saved(reference)])
    code = ON_TWO_RANKS.format(folder=str(tmp_path), reference=reference)
    run_on_two_ranks(tmp_path, corpus_settings, code)
    cases = {**CASES, "doremi": (lambda: DoReMi(reference), "last", {})}
    for name, (mixer, blocks, more) in cases.items():
        alone = train(corpus_settings, mixer(), batch_size=16, **options(blocks, more))
        assert_near(alone[1], tmp_path, name)
    load_model(tmp_path / "sharded.ckpt", "model")
    whole = {**options("model", {}), "steps": 8, "ckpt_path": str(tmp_path / "sharded.ckpt")}
    resumed = train(corpus_settings, CASES["model"][0](), batch_size=16, **whole)
    assert_near(resumed[1], tmp_path, "resumed")


def assert_near(alone, folder, name):
    first, second = (torch.load(folder / f"{name}{rank}.pt") for rank in range(2))
    assert len(first) == len(alone)
    for one, other, expected in zip(first, second, alone, strict=True):
        for mine, theirs, single in zip(one, other, expected, strict=True):
            assert torch.equal(mine, theirs), name
            torch.testing.assert_close(mine, single, atol=2e-6, rtol=0, msg=name)
