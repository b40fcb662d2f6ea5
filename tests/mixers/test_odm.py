"""ODM against hand-computed cases and a transcription of its formulas (Albalak et al. 2023)."""

import math
import random

import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import ODM, BatchSignals
from dograph.mixers.odm import bandit_weights, exploration_rate

DOMAINS = ("books", "code", "web")


def ready(mixer, domains=DOMAINS, **more):
    mixer.setup(domains, [1] * len(domains), 4, **more)
    return mixer


def signals(domain, losses, step=0):
    return BatchSignals(step, torch.tensor(domain), torch.tensor(losses))


def test_the_exploration_rate_by_hand():
    assert exploration_rate(4, 1) == 0.25  # √(ln 4 / 4) is 0.59
    assert exploration_rate(4, 100) == pytest.approx(math.sqrt(math.log(4) / 400))
    assert exploration_rate(1, 1) == 0


def test_smoothed_mean_by_hand():
    mixer = ready(ODM(smoothing=0.5, warmup=0))
    rate = exploration_rate(3, 100)
    # R̂ = e^ℓ / 2 = 1, 2, 1/2; the second of books' sequences brings their mean to ln 2.
    losses = [math.log(2) - 0.1, math.log(2) + 0.1, math.log(4), 0.0]
    mixer.step(signals([0, 0, 1, 2], losses, 99))
    expected = [(1 - 3 * rate) * each / 3.5 + rate for each in (1, 2, 0.5)]
    assert mixer.weights.tolist() == pytest.approx(expected, rel=1e-6)
    # Code is absent and keeps its 2; books and web: 1/2 + e^0/2 = 1, 1/4 + 2 = 9/4.
    mixer.step(signals([0, 2], [0.0, math.log(4)], 100))
    rate = exploration_rate(3, 101)
    expected = [(1 - 3 * rate) * each / 5.25 + rate for each in (1, 2, 2.25)]
    assert mixer.weights.tolist() == pytest.approx(expected, rel=1e-6)
    assert mixer.diagnostics()["reward/code"] == pytest.approx(2)


def test_exp3_by_hand():
    mixer = ready(ODM("exp3", warmup=0), ("a", "b"))
    # R̂ = (ℓ/10)/(1/2) = ln 9, 0, and ε before the first update is 1/2: e^{ln 9 / 2} = 3 against 1.
    mixer.step(signals([0, 1], [5 * math.log(9), 0.0], 999))
    rate = math.sqrt(math.log(2) / 2000)
    first = (1 - 2 * rate) * 0.75 + rate
    assert mixer.weights.tolist() == pytest.approx([first, 1 - first], rel=1e-6)


def test_the_papers_form_by_hand():
    mixer = ready(ODM("paper", smoothing=0.75, warmup=0), ("a", "b"))
    # R̂ = (1/4) ℓ/(1/2) = ln 9, 0.
    mixer.step(signals([0, 1], [2 * math.log(9), 0.0], 999))
    rate = math.sqrt(math.log(2) / 2000)
    first = (1 - 2 * rate) * 0.75 + rate
    assert mixer.weights.tolist() == pytest.approx([first, 1 - first], rel=1e-6)


class Transcription:
    """The three forms once more, in plain numbers by name."""

    def __init__(self, names, estimate, smoothing):
        self.estimate, self.smoothing = estimate, smoothing
        self.reward = dict.fromkeys(names, 0.0)
        self.chance = dict.fromkeys(names, 1 / len(names))
        self.rate = 1 / len(names)

    def update(self, losses, step):
        count, keep = len(self.reward), self.smoothing
        for name, loss in losses.items():
            if self.estimate == "exp3":
                self.reward[name] += 0.1 * loss / self.chance[name]
            elif self.estimate == "paper":
                weighted = loss / self.chance[name]
                self.reward[name] = keep * self.reward[name] + (1 - keep) * weighted
            else:
                self.reward[name] = keep * self.reward[name] + (1 - keep) * math.exp(loss)
        before = self.rate
        self.rate = min(1 / count, math.sqrt(math.log(count) / count / step))
        counted = {
            name: reward if self.estimate == "smoothed_mean" else math.exp(before * reward)
            for name, reward in self.reward.items()
        }
        scale = (1 - count * self.rate) / sum(counted.values())
        self.chance = {name: each * scale + self.rate for name, each in counted.items()}


@pytest.mark.parametrize("estimate", ["smoothed_mean", "exp3", "paper"])
def test_updates_agree_with_a_transcription_on_random_inputs(estimate):
    draw = random.Random(estimate)
    for _ in range(50):
        count, smoothing = draw.randint(2, 8), draw.uniform(0.05, 0.95)
        names = [str(number) for number in range(count)]
        mixer = ready(ODM(estimate, smoothing, warmup=0), names)
        other, first = Transcription(names, estimate, smoothing), draw.choice([0, 10, 1000])
        for step in range(first, first + 6):  # 300 updates
            domain = draw.choices(range(count), k=draw.randint(1, 12))
            losses = [draw.uniform(0, 8) for _ in domain]
            means = {}
            for index in sorted(set(domain)):
                own = [loss for each, loss in zip(domain, losses, strict=True) if each == index]
                means[names[index]] = sum(own) / len(own)
            mixer.step(signals(domain, losses, step))
            other.update(means, step + 1)
            assert mixer.weights.tolist() == pytest.approx([*other.chance.values()], abs=1e-6)


@pytest.mark.parametrize("estimate", ["smoothed_mean", "exp3", "paper"])
def test_more_loss_gets_more_weight_and_no_domain_less_than_the_rate(estimate):
    mixer = ready(ODM(estimate, warmup=0))
    for step in range(100):
        mixer.step(signals([0, 1, 2], [1.0, 2.0, 3.0], step))
    books, code, web = mixer.weights.tolist()
    assert exploration_rate(3, 100) <= books < code < web


def test_large_rewards_do_not_overflow():
    rewards = torch.tensor([1e6, 0.0], dtype=torch.float64)
    found = bandit_weights(rewards, "exp3", 0.5, 0.1, torch.tensor([True, True]))
    assert found.tolist() == pytest.approx([0.9, 0.1])


def test_the_warm_up_gives_no_rewards():
    mixer = ready(ODM(warmup=3, prior={"books": 2, "code": 1, "web": 1}))
    for step in range(3):
        mixer.step(signals([0, 1, 2], [9.0, 1.0, 1.0], step))
    assert mixer.weights.tolist() == [0.5, 0.25, 0.25]
    mixer.step(signals([0, 1, 2], [0.0, 0.0, 0.0], 1999))
    assert mixer.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_a_prior_of_0_stays_0_and_one_domain_alone_has_all():
    mixer = ready(ODM(warmup=0, prior={"books": 1, "code": 0, "web": 1}), unseen=["web"])
    for step in range(100, 103):
        mixer.step(signals([0], [1.0], step))
    assert mixer.weights.tolist() == [1, 0, 0]


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="smoothing"):
        ODM(smoothing=1.0)


@pytest.mark.parametrize("estimate", ["smoothed_mean", "exp3"])
def test_state_keeps_rewards_and_rate(estimate):
    mixer, other = (ready(ODM(estimate, warmup=0)) for _ in range(2))
    mixer.step(signals([0, 1], [1.0, 2.0], 500))
    other.load_state_dict(mixer.state_dict())
    for each in (mixer, other):
        each.step(signals([2], [0.5], 501))
    assert torch.equal(mixer.weights, other.weights)
