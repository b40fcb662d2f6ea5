"""A mixer's own state survives a resume unnamed, or the dry run says what would be lost."""

import collections
import itertools
import random
import time
from collections import defaultdict, deque

import numpy as np
import pytest
import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.mixers import LOSS, SAMPLING, BaseMixer, BatchSignals, DoGraphSchedule, DoReMi
from dograph.mixers.dry_run import dry_run
from dograph.mixers.plain import same, to_plain
from dograph.mixers.random_state import global_random_state, set_global_random_state

DOMAINS = ("books", "code", "web")


def ready(mixer, domains=DOMAINS, batch_size=6):
    mixer.setup(domains, [100] * len(domains), batch_size)
    return mixer


def signals(step, domains=3, batch_size=6):
    draw = torch.Generator().manual_seed(step)
    domain = torch.randint(domains, (batch_size,), generator=draw)
    return BatchSignals(step, domain, 1 + torch.rand(batch_size, generator=draw))


class Counter:
    """Something that saves itself."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Keeps(BaseMixer):
    """Keeps state of every kind that is saved, and draws by all of it."""

    def __init__(self, sharpness: float = 1.0):
        super().__init__(update_every=2)
        self.sharpness = sharpness
        self.recent: deque[Tensor] = deque(maxlen=3)
        self.counter = Counter()

    def reset(self) -> None:
        self.scores = torch.zeros(len(self.domains), dtype=torch.float64)
        self.best, self.calls, self.names = float("inf"), 0, []
        self.seen = {"array": np.zeros(len(self.domains)), "pair": (0, None)}

    def update(self, signals: BatchSignals) -> Tensor:
        self.calls += 1
        self.counter.count += 1
        self.recent.append(signals.domain_loss)
        self.scores = 0.5 * self.scores + signals.domain_loss
        self.best = min(self.best, signals.sequence_loss.min().item())
        pair = (self.calls, deque([self.calls], maxlen=2))
        self.seen = {"array": self.seen["array"] + self.calls, "pair": pair}
        self.names.append(f"update {self.calls}")
        mean = torch.stack(list(self.recent)).mean(dim=0) + self.scores / self.calls
        shift = self.counter.count * self.best + torch.from_numpy(self.seen["array"])
        return torch.softmax(self.sharpness * mean + shift / 10, dim=0)


def test_state_of_every_kind_survives_to_the_bit(tmp_path):
    whole, part = ready(Keeps()), ready(Keeps())
    for step in range(9):
        whole.step(signals(step))
        part.step(signals(step))
    torch.save(part.state_dict(), tmp_path / "state.pt")
    resumed = ready(Keeps())
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert isinstance(resumed.recent, deque) and resumed.recent.maxlen == 3
    for step in range(9, 20):
        whole.step(signals(step))
        resumed.step(signals(step))
    assert torch.equal(whole.weights, resumed.weights)
    assert torch.equal(whole.average_weights, resumed.average_weights)
    assert (whole.names, whole.best, whole.calls) == (resumed.names, resumed.best, resumed.calls)
    for (step, one), (other_step, other) in zip(whole.history, resumed.history, strict=True):
        assert step == other_step and torch.equal(one, other)


def test_settings_come_from_the_recipe_not_from_the_checkpoint():
    before = ready(Keeps(sharpness=1.0))
    before.step(signals(1))
    after = ready(Keeps(sharpness=9.0))
    after.load_state_dict(before.state_dict())
    assert (after.sharpness, after.calls) == (9.0, 1)


def test_a_value_that_is_back_at_its_start_is_restored_too():
    empty, used = ready(Keeps()), ready(Keeps())
    used.step(signals(1))
    used.load_state_dict(empty.state_dict())
    assert (used.calls, used.names, len(used.recent)) == (0, [], 0)


def test_another_mixers_state_is_refused():
    state = ready(Keeps()).state_dict()
    state["_extra_state"]["own"]["names"] = "a text"
    with pytest.raises(UserError, match=r"Keeps.names is a str, this mixer's a list"):
        ready(Keeps()).load_state_dict(state)


@pytest.mark.parametrize("name", ["update", "update_every", "domains", "_modules", "history"])
def test_a_checkpoint_replaces_no_method_and_no_setting(name):
    state = ready(Keeps()).state_dict()
    state["_extra_state"]["own"][name] = 1
    with pytest.raises(UserError, match=rf"would replace Keeps.{name}"):
        ready(Keeps()).load_state_dict(state)


class Forgets(BaseMixer):
    """Counts by an iterator, which no checkpoint can hold."""

    def __init__(self):
        super().__init__()
        self.count = itertools.count(1)

    def update(self, signals: BatchSignals) -> Tensor:
        return torch.softmax(torch.arange(3.0) * next(self.count), dim=0)


def test_the_dry_run_says_what_a_resume_would_lose():
    with pytest.raises(UserError, match=r"Forgets\.count is a count .* not_saved"):
        dry_run(ready(Forgets()), 6)

    class Knows(Forgets):
        not_saved = frozenset({"count"})

    dry_run(ready(Knows()), 6)
    dry_run(ready(Keeps()), 6)


def test_what_turns_up_later_is_said_at_the_checkpoint(caplog):
    mixer = ready(BaseMixer())
    mixer.get_extra_state()
    assert not caplog.messages
    mixer.count = itertools.count()
    mixer.get_extra_state()
    mixer.get_extra_state()
    assert caplog.messages == ["BaseMixer.count cannot be saved: a resume would lose it"]


def test_numbers_that_torch_cannot_hold_are_no_state(caplog):
    mixer = ready(BaseMixer())
    mixer.total = np.longdouble(1)
    assert mixer.lost_state() == ["total"]
    mixer = BaseMixer()
    mixer.unit = np.longdouble(1)
    assert ready(mixer).lost_state() == []


TALLY: list[int] = []


class OfTheModule(BaseMixer):
    def update(self, signals):
        TALLY.append(1)
        return torch.softmax(torch.arange(3.0) * len(TALLY), dim=0)


class OfTheClass(BaseMixer):
    calls = 0

    def update(self, signals):
        type(self).calls += 1
        return torch.softmax(torch.arange(3.0) * self.calls, dim=0)


class OfADefault(BaseMixer):
    def update(self, signals, tally=[]):  # noqa: B006
        tally.append(1)
        return torch.softmax(torch.arange(3.0) * len(tally), dim=0)


def of_a_closure():
    tally = {"calls": 0}

    class OfAClosure(BaseMixer):
        def update(self, signals):
            tally["calls"] += 1
            return torch.softmax(torch.arange(3.0) * tally["calls"], dim=0)

    return OfAClosure()


class OfAFunction(BaseMixer):
    def reset(self):
        tally = []
        self.count = lambda: tally.append(1)

    def update(self, signals):
        self.count()
        return self.weights


class OfAGenerator(BaseMixer):
    def reset(self):
        self.numbers = (number for number in range(9))


@pytest.mark.parametrize(
    ("mixer", "name"),
    [
        (OfTheModule, "TALLY .of the module"),
        (OfTheClass, "OfTheClass.calls .of the class"),
        (OfADefault, "tally .kept by OfADefault.update"),
        (of_a_closure, "tally .kept by OfAClosure.update"),
        (OfAFunction, "OfAFunction.count is a function"),
        (OfAGenerator, "OfAGenerator.numbers is a generator"),
    ],
)
def test_state_outside_of_the_mixer_is_named(mixer, name):
    with pytest.raises(UserError, match=rf"{name}.*not_saved"):
        dry_run(ready(mixer()), 6)


def test_what_a_mixer_only_notes_elsewhere_is_warned_of(caplog):
    noted = []

    class Notes(BaseMixer):
        def update(self, signals):
            noted.append(signals.step)
            return self.weights

    dry_run(ready(Notes()), 6)
    assert "Notes changes noted (kept by Notes.update) while training" in caplog.messages[0]
    Notes.not_saved = frozenset({"noted"})
    dry_run(ready(Notes()), 6)
    assert len(caplog.messages) == 1


def test_what_is_only_seen_by_its_effect_is_warned_of(caplog):
    class ByTheClock(BaseMixer):
        def update(self, signals):
            return torch.softmax(
                torch.tensor([time.perf_counter_ns() % 997 / 997, 1.0, 1.0]), dim=0
            )

    dry_run(ready(ByTheClock()), 6)
    assert "ByTheClock gives other weights after a resume" in caplog.messages[0]


class Draws(BaseMixer):
    """Draws by every global generator and by generators of its own, and keeps odd values."""

    def reset(self) -> None:
        self.own = torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1)
        self.old = np.random.RandomState(1)
        self.counts, self.steps, self.runs = collections.Counter(), set(), defaultdict(list)
        self.total, self.alias, self.largest = 0, self.weights, np.float64(0)
        self.logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.logits], lr=0.1, momentum=0.9)
        self.register_buffer("unnamed", torch.zeros(3), persistent=False)

    def update(self, signals: BatchSignals) -> Tensor:
        (self.logits * torch.randn(3).double()).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        torchs, numpys, pythons = self.own
        drawn = torch.rand(3, generator=torchs) + numpys.random() + pythons.random()
        drawn = drawn + self.old.rand() + np.random.rand() + random.random()  # noqa: NPY002
        self.counts[signals.step % 2] += 1
        self.steps.add(signals.step)
        self.runs[signals.step % 3].append(drawn)
        self.total = 0.5 * self.total + drawn  # begins as a number, goes on as a tensor
        self.largest = max(self.largest, np.float64(drawn.max()))
        self.unnamed += drawn
        moved = (
            self.logits.detach() + self.unnamed / 10 + self.total * self.counts[0] * len(self.steps)
        )
        return 0.5 * torch.softmax(moved * self.largest, dim=0) + 0.5 * self.alias


def test_generators_counters_and_aliases_survive_to_the_bit(tmp_path, caplog):
    whole = ready(Draws())
    for step in range(5):
        whole.step(signals(step))
    torch.save((whole.state_dict(), global_random_state()), tmp_path / "state.pt")
    for step in range(5, 12):
        whole.step(signals(step))
    resumed = ready(Draws())
    state, random_state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(state)
    set_global_random_state(random_state)
    for step in range(5, 12):
        resumed.step(signals(step))
    assert torch.equal(whole.weights, resumed.weights)
    assert (type(resumed.counts), type(resumed.runs)) == (collections.Counter, defaultdict)
    dry_run(ready(Draws()), 6)
    assert not caplog.messages


def test_what_points_back_to_the_mixer_is_no_state():
    class Helped(BaseMixer):
        def reset(self):
            self.method, self.function = self.helper, lambda: self.updates

        def helper(self):
            return self.function()

        def update(self, signals):
            return torch.softmax(torch.randn(3) + self.method(), dim=0)

    dry_run(ready(Helped()), 6)


def test_state_that_would_run_code_or_cannot_come_back_is_refused():
    class Holds(BaseMixer):
        def get_extra_state(self):
            return {**super().get_extra_state(), "more": object()}

    class Late(BaseMixer):
        def update(self, signals):
            self.register_buffer("late", torch.ones(3))
            return self.weights

    with pytest.raises(UserError, match=r"Holds's state cannot be loaded .* must not run code"):
        dry_run(ready(Holds()), 6)
    with pytest.raises(UserError, match=r"Late cannot be restored .*late.*register all buffers"):
        dry_run(ready(Late()), 6)


def test_the_dry_run_leaves_every_random_state_alone():
    before = to_plain(global_random_state())
    dry_run(ready(Draws()), 6)
    assert same(before, to_plain(global_random_state()))


class LossSeeker(BaseMixer):
    """The README's example."""

    def __init__(self, sharpness: float = 1.0):
        super().__init__(update_every=20, floor=0.1)
        self.sharpness = sharpness

    def update(self, signals):
        return torch.softmax(self.sharpness * signals.domain_loss, dim=0)


@pytest.mark.parametrize("update_every", [1, 20])
def test_absent_domains_gain_and_lose_nothing(update_every):
    """22 domains, batches of 16, equal losses: the weights stay even."""
    mixer = LossSeeker()
    mixer.update_every = update_every
    ready(mixer, tuple(f"domain_{index}" for index in range(22)), 16)
    for step in range(60):
        batch = signals(step, 22, 16)
        batch.sequence_loss = torch.full((16,), 3.0)
        mixer.step(batch)
        assert 0.5 * (mixer.weights - 1 / 22).abs().sum() <= 0.05


def test_a_domains_loss_is_its_mean_since_the_last_update_or_the_last_known():
    found = []

    class Records(BaseMixer):
        not_saved = frozenset({"found"})

        def update(self, signals):
            found.append(signals.domain_loss.tolist())
            return self.weights

    mixer = Records(update_every=2)
    ready(mixer)
    for step, (domain, losses) in enumerate(
        [([0, 0], [1.0, 3.0]), ([0, 1], [5.0, 6.0]), ([1, 1], [2.0, 2.0]), ([1, 1], [2.0, 4.0])]
    ):
        mixer.step(BatchSignals(step, torch.tensor(domain), torch.tensor(losses)))
    # Domain 0: (1 + 3 + 5)/3, then absent; domain 2 was never drawn: the others' mean.
    assert found == [[3.0, 6.0, 4.5], [3.0, 2.5, 2.75]]


def test_where_a_mixer_acts_is_inferred_or_said():
    class Weighs(BaseMixer):
        def loss_weights(self, signals):
            return signals.even_weights()

    class Watches(LossSeeker):
        acts_on = frozenset()

    assert LossSeeker().acts_on == {SAMPLING}
    assert Weighs().acts_on == {LOSS}
    assert BaseMixer().acts_on == set()
    assert DoReMi("reference.ckpt").acts_on == {LOSS}
    assert DoReMi("reference.ckpt").is_proxy and not LossSeeker().is_proxy
    assert DoGraphSchedule().acts_on == {SAMPLING}
    assert DoGraphSchedule(reweigh=0.1).acts_on == {SAMPLING, LOSS}
    watching = ready(Watches())
    watching.step(BatchSignals(19, torch.tensor([0, 1]), torch.tensor([1.0, 9.0])))
    assert watching.updates == 1 and watching.is_proxy
    assert not torch.equal(watching.weights, watching.sampling_weights)
