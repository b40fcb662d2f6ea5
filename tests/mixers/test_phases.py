"""Phases: stated mixtures one after another, ramps, and a mixer between them."""

import numpy as np
import pytest
import torch

from dograph.data.sampler import MixtureSampler
from dograph.errors import UserError
from dograph.mixers import ODM, Aioli, DoGraph, DoReMi, Phase, Phases
from dograph.mixers.dry_run import made_up_signals

DOMAINS = ("a", "b", "c")
BATCH, TOKENS = 6, 8
A, B = {"a": 1.0}, {"b": 1.0}


def set_up(phases, mixer=None, steps=20):
    """Phases over three domains, for a run of so many steps."""
    made = Phases(phases, mixer)
    made.setup(DOMAINS, (900,) * 3, BATCH, token_budget=steps * BATCH * (TOKENS + 1))
    return made


def signals_of(mixer, step, parts=1):
    """One step's, of so many micro-batches."""
    signals = made_up_signals(mixer, BATCH * parts, step)
    signals.sequence_tokens = TOKENS
    return signals


def weights_after(mixer, steps):
    """(steps, S) what is drawn after each of the first steps."""
    kept = []
    for step in range(steps):
        mixer.step(signals_of(mixer, step))
        kept.append(mixer.sampling_weights.tolist())
    return kept


def test_a_phase_begins_at_its_step():
    kept = weights_after(set_up([Phase(0, A), Phase(3, B)]), 5)
    assert kept == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_the_average_counts_a_phase_by_its_steps():
    mixer = set_up([Phase(0, A), Phase(10, B)], steps=20)
    weights_after(mixer, 12)
    assert mixer.average_weights.tolist() == pytest.approx([9 / 12, 3 / 12, 0])


@pytest.mark.parametrize("missed", [{2}, {4}, {5}, {2, 3, 4, 5}])
def test_a_step_that_told_nothing_delays_a_phase_and_a_ramp_only_until_the_next(missed):
    """Training skips the mixer at steps that are not finite."""
    mixer = set_up([Phase(0, A), Phase(3, B, ramp=3), Phase(9, {"c": 1.0})])
    for step in range(12):
        if step not in missed | {8}:
            mixer.step(signals_of(mixer, step))
        if step == 7:
            assert mixer.sampling_weights.tolist() == [0, 1, 0]
    assert mixer.sampling_weights.tolist() == [0, 0, 1]


@pytest.mark.parametrize("mixer", [Aioli(), ODM(estimate="exp3")])
def test_a_mixer_that_takes_draws_for_its_own_sees_no_others(mixer):
    with pytest.raises(UserError, match="learns only from what it draws itself"):
        Phases([Phase(0), Phase(3, A)], mixer)
    Phases([Phase(0)], mixer)


def test_shares_of_the_run_are_steps():
    mixer = set_up([Phase(0, A), Phase(0.25, B)], steps=8)
    assert [each.index(1) for each in weights_after(mixer, 4)] == [0, 1, 1, 1]


def test_accumulation_counts_optimiser_steps():
    """Half of 8 batches, two a step, is step 2."""
    mixer = Phases([Phase(0, A), Phase(0.5, B)])
    mixer.setup(DOMAINS, (900,) * 3, BATCH, token_budget=8 * BATCH * (TOKENS + 1))
    drawn = []
    for step in range(4):
        mixer.step(signals_of(mixer, step, parts=2))
        drawn.append(mixer.sampling_weights.tolist().index(1))
    assert drawn == [0, 1, 1, 1]


def test_a_ramp_is_even_and_arrives():
    kept = weights_after(set_up([Phase(0, A), Phase(2, B, ramp=4)]), 8)
    assert [each[1] for each in kept] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    assert [sum(each) for each in kept] == pytest.approx([1] * 8)


def test_a_ramp_within_a_ramp_starts_from_what_is_drawn():
    kept = weights_after(set_up([Phase(0, A), Phase(2, B, ramp=4), Phase(4, {"c": 1}, ramp=2)]), 6)
    assert kept[3] == pytest.approx([0.5, 0.5, 0])
    assert kept[4] == pytest.approx([0.125, 0.375, 0.5])
    assert kept[5] == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("seed", range(10))
def test_ramps_agree_with_a_transcription_on_random_phases(seed):
    """Over 25 steps each: what is drawn moves from the mixture before to a phase's own, evenly."""
    draw = np.random.default_rng(seed)
    starts = [0, *sorted(draw.choice(np.arange(1, 25), 4, replace=False).tolist())]
    mixtures = draw.dirichlet(np.ones(3), 5)
    ramps = [0, *draw.integers(0, 9, 4).tolist()]
    phases = [
        Phase(start, dict(zip(DOMAINS, own.tolist(), strict=True)), ramp)
        for start, own, ramp in zip(starts, mixtures, ramps, strict=True)
    ]
    kept = weights_after(set_up(phases, steps=25), 25)
    for done, weights in enumerate(kept, 1):
        expected = mixtures[0]
        for start, own, ramp in zip(starts[1:], mixtures[1:], ramps[1:], strict=True):
            passed = done - start
            if passed >= 0:
                part = 1.0 if passed >= ramp else passed / ramp
                expected = expected + part * (own - expected)
        assert weights == pytest.approx(expected.tolist(), abs=1e-12)


def test_only_what_changes_is_an_update():
    mixer = set_up([Phase(0, A), Phase(3, B, ramp=2)])
    weights_after(mixer, 10)
    assert [step for step, _ in mixer.history] == [0, 3, 4, 5]


def test_a_one_hot_flip_lands_lookahead_batches_later():
    lookahead, mixer = 3, set_up([Phase(0, A), Phase(5, B)])
    lengths = [[900]] * 3
    sampler = MixtureSampler(
        lengths, mixer.sampling_weights.numpy(), BATCH, 0, "stratified", lookahead
    )
    batches, drawn = iter(sampler), []
    for step in range(12):
        drawn.append({domain for domain, _ in next(batches)})
        sampler.mark_trained()
        if mixer.step(signals_of(mixer, step)):
            sampler.set_weights(mixer.sampling_weights.numpy())
    assert drawn == [{0}] * (5 + lookahead) + [{1}] * (7 - lookahead)


def test_between_stated_mixtures_the_mixer_is_drawn():
    inner = ODM(warmup=0)
    mixer = set_up([Phase(0, A), Phase(2), Phase(6, B)], inner)
    kept = weights_after(mixer, 7)
    assert kept[0] == [1, 0, 0]
    assert all(kept[2][index] > 0 for index in range(3))
    assert kept[6] == [0, 1, 0]
    assert inner.updates == 7  # it learns in all phases


def test_a_mixer_that_weighs_losses_goes_on_weighing_them():
    mixer, alone = set_up([Phase(0, A)], DoGraph(clusters=2)), DoGraph(clusters=2)
    alone.setup(DOMAINS, (900,) * 3, BATCH)
    weights = mixer.checked_loss_weights(signals_of(mixer, 0))
    assert torch.equal(weights, alone.checked_loss_weights(signals_of(alone, 0)))
    assert weights.unique().numel() > 1


def test_a_resume_in_the_middle_of_a_ramp():
    phases = [Phase(0), Phase(3, B, ramp=6)]
    whole, first = set_up(phases, ODM(warmup=0)), set_up(phases, ODM(warmup=0))
    expected = weights_after(whole, 12)
    weights_after(first, 5)
    resumed = set_up(phases, ODM(warmup=0))
    resumed.load_state_dict(first.state_dict())
    kept = []
    for step in range(5, 12):
        resumed.step(signals_of(resumed, step))
        kept.append(resumed.sampling_weights.tolist())
    assert kept == expected[5:]


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([Phase(3, A)], "must begin with one at 0"),
        ([Phase(0, A), Phase(5, B), Phase(2, A)], r"are at \[0, 5, 2\]: give rising steps"),
        ([Phase(0, A), Phase(0.5, B), Phase(10, A)], "give rising steps"),
        ([Phase(0, {"z": 1})], "names 'z'"),
    ],
)
def test_what_is_wrong_is_told(phases, words):
    with pytest.raises(UserError, match=words):
        set_up(phases)


def test_steps_that_are_not_whole_are_refused():
    with pytest.raises(UserError, match=r"at is 1.5: give whole steps"):
        Phase(1.5, A)


def test_shares_need_a_length_and_a_proxy_is_no_part():
    with pytest.raises(UserError, match=r"set trainer.max_steps"):
        set_up([Phase(0, A), Phase(0.5, B)], steps=0)
    with pytest.raises(UserError, match="DoReMi, whose weights are for a later stage"):
        Phases([Phase(0)], DoReMi("reference.ckpt"))


def test_a_phase_after_the_end_is_told(caplog):
    weights_after(set_up([Phase(0, A), Phase(20, B)], steps=20), 2)
    assert caplog.messages == ["the run ends after 20 steps: phases at [20] never begin"]
    caplog.clear()
    weights_after(set_up([Phase(0, A), Phase(19, B)], steps=20), 2)
    assert not caplog.messages
