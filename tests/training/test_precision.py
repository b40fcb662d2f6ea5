"""Weights stay float64 on the simplex and parameters finite, whatever type the network has."""

import pytest
import torch
from test_mixing_callback import PRECISIONS, train

from dograph.mixers import GRAPE, ODM, DoGE, DoGraph, DoGraphSchedule, DynamicLoss, UniMax

MIXERS = {
    "DoGE": lambda: DoGE(gradients="sketch"),
    "DoGraph": lambda: DoGraph(clusters=2),
    "DoGraphSchedule": lambda: DoGraphSchedule(interval=1, measure=2, skip=0),
    "DynamicLoss": lambda: DynamicLoss(warmup=1),
    "GRAPE": lambda: GRAPE(update_every=1, probe=2),
    "ODM": lambda: ODM(warmup=1),
    "UniMax": UniMax,
}


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("name", MIXERS)
def test_any_mixer_takes_any_precision(store, corpus_settings, name, precision):
    parameters, trace, data = train(
        corpus_settings, MIXERS[name](), steps=3, batch_size=12, precision=precision
    )
    assert parameters.dtype == PRECISIONS[precision] and parameters.isfinite().all()
    assert all(weights.dtype == torch.float64 for _, weights in trace)
    assert data.mixer.weights.sum().item() == pytest.approx(1, abs=1e-12)
