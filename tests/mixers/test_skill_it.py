"""Skill-It against hand-computed cases and a transcription of its formula (Chen et al. 2023)."""

import math
import random

import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import BatchSignals, SkillIt

DOMAINS = ("books", "code", "web")


def ready(mixer, **more):
    mixer.setup(DOMAINS, [1] * 3, 4, **more)
    return mixer


def validated(mixer, step, **losses):
    """The weights after an update that follows a validation."""
    mixer.validated(losses)
    return updated(mixer, step)


def updated(mixer, step):
    mixer.step(BatchSignals(step, torch.tensor([0, 1, 2, 0]), torch.ones(4)))
    return mixer.weights.tolist()


def test_weights_by_hand():
    mixer = ready(SkillIt({"books": {"books": 1, "web": 1}, "code": {"code": 1}}, rate=math.log(2)))
    # Losses of 1: books help by 2, code by 1, web by nothing.
    assert mixer.weights.tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert updated(mixer, 0) == pytest.approx([4 / 7, 2 / 7, 1 / 7])  # nothing is validated yet
    weights = validated(mixer, 1, books=1.0, code=3.0, web=1.0)
    assert weights == pytest.approx([4 / 13, 8 / 13, 1 / 13])


def test_the_window_s_losses_are_summed_and_a_validation_counts_once():
    mixer = ready(SkillIt(rate=math.log(2), window=2))
    validated(mixer, 0, books=9.0, code=9.0, web=0.0)
    validated(mixer, 1, books=1.0, code=0.0, web=0.0)
    assert updated(mixer, 2) == mixer.history[-2][1].tolist()
    weights = validated(mixer, 3, books=1.0, code=0.0, web=0.0)
    assert weights == pytest.approx([1024 / 1537, 512 / 1537, 1 / 1537])
    weights = validated(mixer, 4, books=0.0, code=2.0, web=0.0)
    assert weights == pytest.approx([2 / 7, 4 / 7, 1 / 7])


def test_a_validation_counts_once_where_a_domain_has_none():
    mixer = ready(SkillIt(rate=math.log(2)), target={"books": 1, "code": 1})
    weights = validated(mixer, 0, books=1.0, code=3.0)  # nothing of web
    validated(mixer, 1, books=3.0, code=1.0)
    assert updated(mixer, 2) == updated(mixer, 3) != weights
    assert len(mixer.validations) == 2


def test_with_a_target_its_losses_alone_count_by_their_mean():
    graph = {"books": {"web": 1.0}, "code": {"code": 1.0}}
    mixer = ready(SkillIt(graph, rate=math.log(2), window=2), target="web", unseen=["web"])
    assert mixer.weights.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    validated(mixer, 0, books=5.0, code=7.0, web=4.0)
    weights = validated(mixer, 1, books=5.0, code=7.0, web=2.0)
    assert weights == pytest.approx([8 / 9, 1 / 9, 0])


def test_the_worst_domain_is_not_the_first_by_name_before_it_is_known():
    mixer = ready(SkillIt(rate=math.log(2)), target="worst")
    assert mixer.weights.tolist() == pytest.approx([1 / 3] * 3)
    weights = validated(mixer, 0, books=1.0, code=2.0, web=1.0)
    assert weights == pytest.approx([1 / 6, 4 / 6, 1 / 6])


def transcribed(graph, prior, losses, rate, window):
    """The rule once more, in plain numbers by name."""
    total = {name: sum(each[name] for each in losses[-window:]) for name in prior}
    raised = {
        source: prior[source]
        * math.exp(rate * sum(a * total[name] for name, a in graph.get(source, {}).items()))
        for source in prior
    }
    return [each / sum(raised.values()) for each in raised.values()]


@pytest.mark.parametrize("seed", range(20))
def test_the_rule_is_the_formula(seed):
    chance = random.Random(seed)
    for _ in range(10):
        graph = {
            source: {name: chance.uniform(0.01, 1) for name in DOMAINS if chance.random() < 0.7}
            for source in DOMAINS
        }
        graph["web"] = {"web": 1.0}
        prior = {name: chance.uniform(0.1, 1) for name in DOMAINS}
        rate, window = chance.uniform(0.05, 1), chance.randint(1, 4)
        mixer, losses = ready(SkillIt(graph, rate, window, prior=prior)), []
        for step in range(5):
            losses.append({name: chance.uniform(1, 6) for name in DOMAINS})
            weights = validated(mixer, step, **losses[-1])
            assert weights == pytest.approx(
                transcribed(graph, prior, losses, rate, window), rel=1e-6
            )


def test_state_continues_exactly(tmp_path):
    whole, part, other = (ready(SkillIt(window=2)) for _ in range(3))
    for mixer in (whole, part):
        validated(mixer, 0, books=1.0, code=2.0, web=3.0)
    torch.save(part.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert updated(other, 1) == updated(whole, 1)
    losses = {"books": 2.0, "code": 2.0, "web": 1.0}
    assert validated(other, 2, **losses) == validated(whole, 2, **losses)


@pytest.mark.parametrize(
    ("graph", "more", "message"),
    [
        ({"book": {"code": 1}}, {}, "'book' is no domain; did you mean 'books'"),
        ({"books": {"cod": 1}}, {}, r"graph\.books\.cod.*did you mean 'code'"),
        ({"books": {"code": -1}}, {}, r"graph\.books\.code is -1"),
        (None, {"target": "web", "unseen": ["web"]}, "helps web by nothing"),
    ],
)
def test_a_graph_that_cannot_be_is_named(graph, more, message):
    with pytest.raises(UserError, match=message):
        ready(SkillIt(graph), **more)


def test_a_domain_that_is_not_validated_is_named():
    mixer = ready(SkillIt())
    with pytest.raises(UserError, match="validation loss of web"):
        validated(mixer, 0, books=1.0, code=1.0)
