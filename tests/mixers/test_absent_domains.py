"""A domain without evidence, never drawn or no longer drawn, never gains by that alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.mixers import (
    ADO,
    ODM,
    DoGE,
    DoGEOnline,
    DoGraph,
    DoGraphSchedule,
    DoReMi,
    DoReMiOnline,
    DynamicLoss,
    Fixed,
    Proportional,
    SkillIt,
    Stratified,
    Temperature,
    UniMax,
)
from dograph.mixers.dry_run import made_up_signals

DOMAINS = ("a", "b", "c", "d")
EVEN = dict.fromkeys(DOMAINS, 1.0)
MIXERS = {
    "doremi": lambda: DoReMi("reference.ckpt"),
    "doremi_repository": lambda: DoReMi("reference.ckpt", normalise="repository"),
    "doremi_smooth": lambda: DoReMi("reference.ckpt", smoothing=0.3),
    "doremi_online": lambda: DoReMiOnline(step_size=0.5),
    "doremi_online_reference": lambda: DoReMiOnline("reference.ckpt", step_size=0.5),
    "doge": DoGE,
    "doge_sketch": lambda: DoGE("sketch"),
    "doge_online": DoGEOnline,
    "doge_online_exact": lambda: DoGEOnline("exact"),
    "dograph": lambda: DoGraph(clusters=2),
    "schedule": lambda: DoGraphSchedule(interval=2, text_tokens=0, measure=4, skip=0),
    "dynamic_loss": lambda: DynamicLoss(warmup=0),
    "odm": lambda: ODM(warmup=0),
    "odm_exp3": lambda: ODM("exp3", warmup=0),
    "odm_paper": lambda: ODM("paper", warmup=0),
    "ado": lambda: ADO(start=4, refit_every=60, ignore=0, window=5, stride=4, prior=EVEN),
    "stratified": Stratified,
    "proportional": Proportional,
    "temperature": Temperature,
    "fixed": lambda: Fixed(EVEN),
    "unimax": UniMax,
    "skill_it": SkillIt,
}
WEIGH_WHAT_IS_KNOWN = ("schedule", "odm", "odm_exp3", "odm_paper")
"""The last known of an absent domain counts on while others' falls, so that it may gain."""
FIRST = {"odm": 200, "odm_exp3": 200, "odm_paper": 200}
"""Steps before the first: ODM's weights are even in its first."""
REPEATED = {"ado": 20}
"""Steps by each batch: ADO learns of an absence from what was drawn recently."""


def step(mixer, number, present, losses):
    """One step of a batch of the present domains, two sequences each."""
    signals = made_up_signals(mixer, 2 * len(present), number)
    signals.domain = torch.tensor(present * 2)
    signals.sequence_loss = torch.tensor([losses[index] for index in present * 2])
    if signals.excess_loss is not None:
        signals.excess_loss = signals.sequence_loss.clone()
    if signals.domain_kernel is not None:
        there = torch.tensor([index in present for index in range(len(DOMAINS))])
        signals.domain_kernel = signals.domain_kernel * there[:, None] * there[None, :]
    if signals.token_gradients is not None:
        signals.token_gradients.domain[:] = signals.domain
    signals.loss_weights = mixer.checked_loss_weights(signals)
    mixer.step(signals)


@pytest.mark.parametrize("name", MIXERS)
@given(
    absent=st.integers(0, 3),
    stale=st.booleans(),
    losses=st.lists(st.lists(st.floats(0, 12), min_size=4, max_size=4), min_size=6, max_size=6),
    data=st.data(),
)
@settings(max_examples=8, deadline=None)
def test_a_domain_without_evidence_never_gains(name, absent, stale, losses, data):
    mixer = MIXERS[name]()
    mixer.setup(DOMAINS, [1000] * 4, batch_size=8, vocab_size=50, token_budget=2000)
    first = FIRST.get(name, 0)
    if stale and name not in WEIGH_WHAT_IS_KNOWN:
        step(mixer, first, [0, 1, 2, 3], losses[0])
    before = mixer.weights[absent].item()
    others = [index for index in range(4) if index != absent]
    for number in range(1, 6):
        present = data.draw(st.lists(st.sampled_from(others), min_size=1, unique=True))
        for each in range(REPEATED.get(name, 1)):
            later = number * REPEATED.get(name, 1) + each
            step(mixer, first + later, present, losses[number])
    # A floor draws to the even weights, whoever is in the batch.
    most = max(before, 1 / len(DOMAINS)) if mixer.floor else before
    assert mixer.weights[absent].item() <= most + 1e-9


def test_the_worst_target_does_not_follow_a_loss_that_is_no_longer_measured():
    mixer = DoGraphSchedule(interval=2, text_tokens=0, measure=2, skip=0)
    mixer.setup(DOMAINS, [1000] * 4, batch_size=8, vocab_size=50, target="worst")
    mixer.validated(dict.fromkeys(DOMAINS, 6.0))
    mixtures = []
    for number in range(0, 8, 2):
        present = [0, 1, 2, 3] if number == 0 else [0, 1, 2]
        for each in (number, number + 1):
            step(mixer, each, present, [6.0 - 0.5 * number] * 4)
        mixtures.append(mixer._worst.clone())
    assert all(torch.allclose(each, torch.full((4,), 0.25).double()) for each in mixtures)
