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


ALONE = {
    "books": {"books": 2.0, "code": 6.0, "web": 3.0},
    "code": {"books": 5.0, "code": 1.0, "web": 4.5},
    "web": {"books": 3.0, "code": 4.0, "web": 2.0},
}


def test_the_learnt_graph_by_hand():
    mixer = SkillIt(losses_alone=ALONE, rate=math.log(2))
    ready(mixer, vocab_size=55)  # even guesses have the loss ln 55 = 4.0073…
    start = math.log(55)
    expected = [[max(1 - loss / start, 0) for loss in row.values()] for row in ALONE.values()]
    assert mixer.graph.tolist() == [pytest.approx(row) for row in expected]
    powers = [2 ** sum(row) for row in expected]
    assert mixer.weights.tolist() == pytest.approx([each / sum(powers) for each in powers])


def test_the_learnt_graph_of_a_target_needs_its_losses_alone():
    alone = {name: {"web": ALONE[name]["web"], "books": None} for name in ("books", "code")}
    more = {"target": "web", "unseen": ["web"], "vocab_size": 55}
    mixer = ready(SkillIt(losses_alone=alone), **more)
    assert mixer.graph[0, 2] == pytest.approx(1 - 3 / math.log(55))
    assert mixer.graph[:, :2].tolist() == [[0, 0]] * 3
    weights = validated(mixer, 0, books=5.0, code=7.0, web=4.0)
    assert weights[0] > 0.5 > weights[1] > weights[2] == 0


@pytest.mark.parametrize("seed", range(20))
def test_learnt_graphs_agree_with_their_transcription_on_random_inputs(seed):
    chance = random.Random(seed)
    for _ in range(10):
        alone = {name: {each: chance.uniform(0.1, 8) for each in DOMAINS} for name in DOMAINS}
        size, rate = chance.randint(600, 10**5), chance.uniform(0.05, 1)
        mixer = ready(SkillIt(losses_alone=alone, rate=rate), vocab_size=size)
        losses = {name: chance.uniform(1, 6) for name in DOMAINS}
        graph = {
            name: {
                each: max((math.log(size) - left) / math.log(size), 0.0)
                for each, left in row.items()
            }
            for name, row in alone.items()
        }
        expected = transcribed(graph, dict.fromkeys(DOMAINS, 1.0), [losses], rate, 3)
        assert validated(mixer, 0, **losses) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("alone", "more", "message"),
    [
        ({"books": ALONE["books"], "web": ALONE["web"]}, {}, "no losses of a run on code alone"),
        ({**ALONE, "code": {"books": 1.0, "code": 1.0}}, {}, r"losses_alone\.code\.web is nan"),
        ({**ALONE, "code": {**ALONE["code"], "web": None}}, {}, r"losses_alone\.code\.web is nan"),
        (ALONE, {"vocab_size": 0}, "needs vocab_size"),
        (dict.fromkeys(DOMAINS, dict.fromkeys(DOMAINS, 9.0)), {}, "helps even by nothing"),
    ],
)
def test_losses_that_no_graph_can_be_learnt_from_are_named(alone, more, message):
    with pytest.raises(UserError, match=message):
        ready(SkillIt(losses_alone=alone), **{"vocab_size": 55, **more})


def test_one_graph_is_given_or_learnt():
    with pytest.raises(UserError, match="give one of them"):
        SkillIt({"books": {"code": 1.0}}, losses_alone=ALONE)


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
