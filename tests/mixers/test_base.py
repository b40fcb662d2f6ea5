"""Invariant 1: whatever a mixer proposes, the weights are on the simplex and above the floor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.mixers import BaseMixer, BatchSignals, Fixed, Proportional, Stratified, Temperature
from dograph.mixers.dry_run import dry_run

DOMAINS, TOKENS = ("books", "code", "web"), (100, 300, 600)


def signals(step=0, batch_size=4):
    return BatchSignals(step, torch.arange(batch_size) % 3, torch.ones(batch_size))


def ready(mixer):
    mixer.setup(DOMAINS, TOKENS, batch_size=4)
    return mixer


class Proposes(BaseMixer):
    """Returns whatever it was given."""

    def __init__(self, proposal, **options):
        super().__init__(**options)
        self.proposal = torch.as_tensor(proposal, dtype=torch.float32)

    def update(self, signals):
        return self.proposal

    def loss_weights(self, signals):
        return self.proposal


def test_fixed_mixtures_follow_their_formulas():
    assert torch.allclose(ready(Stratified()).weights, torch.full((3,), 1 / 3).double())
    proportional = ready(Proportional()).weights
    assert torch.allclose(proportional, torch.tensor([0.1, 0.3, 0.6]).double())
    assert torch.allclose(ready(Temperature(1.0)).weights, proportional)
    root = torch.tensor(TOKENS).double().sqrt()
    assert torch.allclose(ready(Temperature(2.0)).weights, root / root.sum())
    fixed = ready(Fixed({"web": 1, "books": 3, "code": 0}))
    assert fixed.weights.tolist() == [0.75, 0.0, 0.25]


@given(
    raw=st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda r: sum(r) > 1e-2),
    floor=st.floats(0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_updates_stay_on_the_simplex_above_the_floor(raw, floor):
    mixer = ready(Proposes(torch.tensor(raw) / sum(raw), floor=floor))
    assert mixer.step(signals())
    assert abs(mixer.weights.sum().item() - 1) < 1e-12
    assert mixer.weights.min() >= floor / 3 - 1e-12
    assert torch.allclose(mixer.average_weights, mixer.weights)


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        ([0.5, 0.5, 0.5], "off the simplex"),
        ([-0.5, 0.5, 1.0], "off the simplex"),
        ([float("nan"), 0.5, 0.5], "not finite"),
        ([0.5, 0.5], "one weight for each"),
    ],
)
def test_weights_off_the_simplex_are_refused_by_name(proposal, message):
    mixer = ready(Proposes(proposal))
    with pytest.raises(UserError, match=message) as caught:
        mixer.step(signals())
    assert "Proposes.update" in str(caught.value)
    with pytest.raises(UserError):
        mixer.checked_loss_weights(signals(batch_size=3))


@pytest.mark.parametrize("options", [{}, {"warmup": 7, "update_every": 3}])
def test_a_rehearsal_finds_a_wrong_mixer_before_training(options):
    with pytest.raises(UserError, match="off the simplex"):
        dry_run(ready(Proposes([0.5, 0.5, 0.5], **options)), 3)


def test_a_rehearsal_leaves_the_mixer_and_the_random_state_alone():
    mixer = ready(Proposes([1.0, 0.0, 0.0]))
    state = torch.get_rng_state()
    dry_run(mixer, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert mixer.updates == 0
    assert torch.allclose(mixer.weights, torch.full((3,), 1 / 3).double())


def test_update_every_and_warmup_are_kept():
    mixer = ready(Proposes([1.0, 0.0, 0.0], update_every=3, warmup=4))
    assert [step + 1 for step in range(12) if mixer.step(signals(step))] == [6, 9, 12]
    assert [step for step, _ in mixer.history] == [0, 6, 9, 12]
    assert torch.equal(mixer.checked_loss_weights(signals(step=3)), torch.full((4,), 0.25))


def test_a_mixer_that_only_weighs_losses_never_counts_as_updating():
    mixer = ready(Stratified())
    assert not mixer.step(signals())
    assert mixer.updates == 0


def test_state_round_trip_keeps_weights_average_and_history():
    mixer = ready(Proposes([1.0, 0.0, 0.0], floor=0.3))
    mixer.step(signals(0))
    mixer.proposal = torch.tensor([0.0, 1.0, 0.0])
    mixer.step(signals(1))
    other = ready(Proposes([1.0, 0.0, 0.0], floor=0.3))
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other.weights, mixer.weights)
    assert torch.equal(other.average_weights, mixer.average_weights)
    assert other.updates == 2
    assert [step for step, _ in other.history] == [0, 1, 2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: BaseMixer(update_every=0),
        lambda: BaseMixer(warmup=-1),
        lambda: BaseMixer(floor=1.0),
        lambda: Temperature(0.0),
        lambda: ready(Fixed({"books": 1})),
        lambda: ready(Fixed({"books": 1, "code": 1, "web": 1, "wbe": 1})),
        lambda: ready(Fixed({"books": -1, "code": 1, "web": 1})),
        lambda: ready(Fixed({"books": float("inf"), "code": 1, "web": 1})),
        lambda: ready(BaseMixer(prior={"books": 0, "code": 0, "web": 0})),
    ],
)
def test_settings_that_make_no_mixture_are_refused(build):
    with pytest.raises(UserError):
        build()
