"""A mixer over levels: it sees sums, and what is below a level shares by tokens."""

import numpy as np
import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import ByLevel, DoGE, DoReMiOnline, DynamicLoss, Fixed, Proportional, SkillIt
from dograph.mixers.limits import Limits
from dograph.signals.batch_signals import BatchSignals

DOMAINS = ("books", "code/c", "code/python", "web/news")
TOKENS = (100, 30, 10, 60)


def ready(mixer, **options):
    mixer.setup(DOMAINS, TOKENS, 8, **options)
    return mixer


def batch(step, losses):
    return BatchSignals(step, torch.arange(4).repeat(2), torch.tensor([*losses, *losses]))


def test_a_level_is_weighed_as_a_whole_and_shared_by_tokens():
    mixer = ready(ByLevel())
    assert mixer.sampling_weights.tolist() == pytest.approx([1 / 3, 1 / 4, 1 / 12, 1 / 3])
    assert ready(ByLevel(Proportional())).weights.tolist() == pytest.approx([0.5, 0.15, 0.05, 0.3])
    named = ready(ByLevel(Fixed({"books": 0.2, "code": 0.8, "web": 0.0})))
    assert named.weights.tolist() == pytest.approx([0.2, 0.6, 0.2, 0.0])
    unseen = ready(ByLevel(), unseen=["code/python", "web/news"])
    assert unseen.weights.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_shares_agree_with_a_transcription_on_random_levels():
    """α_s = W_l n_s / Σ_l n."""
    draw = np.random.default_rng(5)
    for _ in range(200):
        names = sorted({f"{draw.integers(4)}/{draw.integers(5)}" for _ in range(8)})
        tokens = draw.integers(100, 10_000, len(names)).tolist()
        levels = sorted({name[0] for name in names})
        weights = dict(zip(levels, draw.dirichlet(np.ones(len(levels))).tolist(), strict=True))
        mixer = ByLevel(Fixed(weights))
        mixer.setup(names, tokens, 8)
        expected = [
            weights[name[0]] * count
            / sum(n for other, n in zip(names, tokens, strict=True) if other[0] == name[0])
            for name, count in zip(names, tokens, strict=True)
        ]  # fmt: skip
        assert mixer.sampling_weights.tolist() == pytest.approx(expected, abs=1e-6)


def test_it_learns_as_the_mixer_does_over_domains_of_the_levels_names():
    settings = {"step_size": 0.5, "smoothing": 0.1}
    mixer, alone = ready(ByLevel(DoReMiOnline(**settings))), DoReMiOnline(**settings)
    alone.setup(("books", "code", "web"), (100, 40, 60), 8)
    level = torch.tensor([0, 1, 1, 2])
    for step in range(3):
        signals = batch(step, [1.0, 2.0 + step, 4.0, 3.0])
        assert mixer.step(signals)
        alone.step(BatchSignals(step, level.repeat(2), signals.sequence_loss))
    books, c, python, web = mixer.sampling_weights.tolist()
    assert [books, c + python, web] == pytest.approx(alone.sampling_weights.tolist())
    assert c == pytest.approx(3 * python) and alone.sampling_weights[1] > 1 / 3


def test_limits_hold_below_a_level():
    limits = Limits(at_most={"code/c": 0.1}, at_least={"web": 0.5})
    mixer = ready(ByLevel(), limits=limits.of_run(DOMAINS, [True] * 4, TOKENS, 100))
    assert mixer.weights[1] <= 0.1 + 1e-8 and mixer.weights[3] >= 0.5 - 1e-8


def test_validations_and_targets_reach_the_mixer_by_level():
    levels = ("books", "code", "web")
    inner = SkillIt(graph={name: dict.fromkeys(levels, 1.0) for name in levels})
    mixer = ready(ByLevel(inner), target={"code": 1, "books": 1})
    assert inner.target.value == {"books": 0.5, "code": 0.5, "web": 0.0}
    mixer.validated({"books": 1.0, "code/c": 2.0, "code/python": 4.0, "web/news": 5.0})
    assert inner.validation_loss.tolist() == [1.0, 3.0, 5.0]


def test_losses_are_weighed_by_the_mixer_alone():
    mixer = ready(ByLevel(DynamicLoss()))
    weights = mixer.checked_loss_weights(batch(0, [1.0, 2.0, 3.0, 4.0]))
    alone = DynamicLoss()
    alone.setup(("books", "code", "web"), (100, 40, 60), 8)
    assert torch.equal(weights, alone.checked_loss_weights(batch(0, [1.0, 2.0, 3.0, 4.0])))


def test_a_mixer_that_measures_by_domain_is_refused():
    with pytest.raises(UserError, match=r"is DoGE, which asks for (Probe|DomainGradients)"):
        ByLevel(DoGE()).check(8)


def test_its_state_is_restored():
    first, second = ready(ByLevel(DoReMiOnline())), ready(ByLevel(DoReMiOnline()))
    first.step(batch(0, [1.0, 2.0, 3.0, 4.0]))
    second.load_state_dict(first.state_dict())
    for mixer in (first, second):
        mixer.step(batch(1, [4.0, 2.0, 3.0, 1.0]))
    assert torch.equal(first.sampling_weights, second.sampling_weights)
