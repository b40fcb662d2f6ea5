"""Every exported mixer's rule is held against its formula; here the shortest of them are."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dograph.mixers
from dograph.mixers import (
    BaseMixer,
    BatchSignals,
    DynamicLoss,
    Fixed,
    Proportional,
    Stratified,
    Temperature,
)

TRANSCRIBED = {
    "ADO": "test_ado.py: test_preferences_agree_with_their_transcription_on_random_inputs",
    "Aioli": "test_aioli.py: test_weights_agree_with_their_transcription_on_random_inputs",
    "ByLevel": "test_by_level.py: test_shares_agree_with_a_transcription_on_random_levels",
    "DoGE": "test_transcriptions.py: test_doge",
    "DoGEOnline": "test_transcriptions.py: test_doge",
    "DoGraph": "test_graph_transcriptions.py: test_dograph",
    "DoGraphSchedule": "test_graph_transcriptions.py: test_the_schedule",
    "DoReMi": "test_transcriptions.py: test_doremi",
    "DoReMiOnline": "test_transcriptions.py: test_online_doremi",
    "DynamicLoss": "test_exported_transcribed.py: test_dynamic_loss",
    "Fixed": "test_exported_transcribed.py: test_weights_that_stay",
    "GRAPE": "test_transcriptions.py: test_grape",
    "ODM": "test_odm.py: test_updates_agree_with_a_transcription_on_random_inputs",
    "Phases": "test_phases.py: test_ramps_agree_with_a_transcription_on_random_phases",
    "Proportional": "test_exported_transcribed.py: test_weights_that_stay",
    "SkillIt": "test_skill_it.py: test_the_rule_is_the_formula",
    "Stratified": "test_exported_transcribed.py: test_weights_that_stay",
    "Temperature": "test_exported_transcribed.py: test_weights_that_stay",
    "UniMax": "test_unimax.py: test_shares_agree_with_the_water_level_on_random_inputs",
}
"""By exported mixer the test that holds its rule against its formula on 200 random inputs."""


def test_every_exported_mixer_is_transcribed():
    exported = [getattr(dograph.mixers, name) for name in dograph.mixers.__all__]
    mixers = [each for each in exported if isinstance(each, type) and issubclass(each, BaseMixer)]
    assert {each.__name__ for each in mixers if each is not BaseMixer} == TRANSCRIBED.keys()
    for place in TRANSCRIBED.values():
        file, _, test = place.partition(": ")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize("strategy", ["linupper", "extremes"])
def test_dynamic_loss(strategy):
    draw = np.random.default_rng(3)
    for _ in range(200):
        losses, temperature = draw.uniform(0, 9, draw.integers(2, 20)), draw.uniform(0.1, 2)
        mixer = DynamicLoss(strategy, temperature, warmup=0)
        mixer.setup(("a", "b"), [9, 9], len(losses))
        middle, half = (losses.max() + losses.min()) / 2, (losses.max() - losses.min()) / 2
        raised = []
        for loss in losses:
            scaled = (loss - middle) / half
            raised.append(min(scaled + 1, 1) if strategy == "linupper" else abs(scaled))
        expected = np.exp(np.array(raised) / temperature)
        domain = torch.zeros(len(losses), dtype=torch.int64)
        weights = mixer.checked_loss_weights(BatchSignals(0, domain, torch.from_numpy(losses)))
        assert weights.tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=1e-6)


def test_weights_that_stay():
    draw = np.random.default_rng(4)
    for _ in range(200):
        count = int(draw.integers(1, 9))
        domains, tokens = [str(index) for index in range(count)], draw.integers(1, 10**9, count)
        tau, given = draw.uniform(0.2, 9), draw.uniform(0.1, 9, count)
        rules = {
            Stratified(): np.ones(count),
            Proportional(): tokens,
            Temperature(tau): (tokens / tokens.max()) ** (1 / tau),
            Fixed(dict(zip(domains, given.tolist(), strict=True))): given,
        }
        for mixer, shares in rules.items():
            mixer.setup(domains, tokens.tolist(), 4)
            expected = (shares / shares.sum()).tolist()
            assert mixer.sampling_weights.tolist() == pytest.approx(expected, abs=1e-6)
