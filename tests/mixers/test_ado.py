"""ADO against hand-computed cases and a transcription of its formulas (Jiang et al. 2024)."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter

from dograph.errors import UserError
from dograph.mixers import ADO, BatchSignals
from dograph.mixers.ado import preference
from dograph.mixers.loss_law import fit_law

DOMAINS = ("books", "code", "web")
SMALL = {"start": 6, "refit_every": 4, "ignore": 3, "window": 5, "stride": 2}


def ready(mixer=None, domains=DOMAINS, tokens=None, **more):
    mixer = mixer if mixer is not None else ADO(**SMALL)
    mixer.setup(domains, tokens or [1] * len(domains), 4, **more)
    return mixer


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_preference_by_hand():
    # At n = 100: reducible e^0/10, e^0/1 (α = 0 counts as 0.05), e^0/100.
    law = tensor([[0, 1, 0.5], [0, 2, 0], [0, 0, 1]])
    found = preference(law, 100, tensor([0.5, 0.25, 0.25]), tensor([0.25, 1, 0]), 0.5, 0.1)
    falls = [0.5 * 0.5 * 0.5 * 0.1, 0.25 * 0.05, 0]
    raised = [max(each / sum(falls), 0.1) for each in falls]
    assert found.tolist() == pytest.approx([each / sum(raised) for each in raised])


def transcribed(law, seen, prior, recent, power, least):
    """ρ of the public code in plain numbers."""
    falls = []
    for (a, irreducible, exponent), own, share in zip(law, prior, recent, strict=True):
        loss = math.exp(irreducible) + math.exp(a) / seen**exponent
        slope = max(exponent, 0.05) * (loss - math.exp(irreducible)) / seen
        falls.append(slope * own * share**power)
    falls = [each / sum(falls) for each in falls]
    scale = 1 - max(least * len(falls) - sum(falls), 0)
    raised = [max(each * scale, least) for each in falls]
    return [each / sum(raised) for each in raised]


def test_preferences_agree_with_their_transcription_on_random_inputs():
    draw = random.Random(0)
    for _ in range(250):
        count = draw.randint(1, 12)
        law = [
            [draw.uniform(-1, 6), draw.uniform(-1, 2), draw.uniform(-0.1, 0.9)]
            for _ in range(count)
        ]
        prior, recent = ([draw.uniform(0.01, 1) for _ in range(count)] for _ in range(2))
        more = draw.randint(1, 10**6), prior, recent, draw.uniform(0, 2), draw.uniform(0, 0.15)
        more = (more[0], [each / sum(prior) for each in prior], *more[2:])
        found = preference(tensor(law), more[0], tensor(more[1]), tensor(recent), *more[3:])
        assert found.tolist() == pytest.approx(transcribed(law, *more), abs=1e-6)


def test_where_no_loss_falls_the_prior_counts():
    law = tensor([[-1e4, 1, 0.5]] * 2)
    found = preference(law, 100, tensor([0.75, 0.25]), tensor([0.5, 0.5]), 0.5, 0.0)
    assert found.tolist() == [0.75, 0.25]


def losses_of(step, draw):
    """Code falls by a law; books and web have nothing left to learn."""
    fall = [3.0, 2 + 12 / (4 * step + 4) ** 0.4, 1.0]
    return [each * math.exp(draw.gauss(0, 0.005)) for each in fall]


def test_a_whole_run_agrees_with_a_transcription():
    """Records, absent domains, smoothing, fits, credit and means, all steps together."""
    draw = random.Random(1)
    mixer = ready(tokens=[1, 2, 1])
    rows, recent = [], [0.25, 0.5, 0.25]
    mean, law = list(recent), None
    for step in range(40):
        domain = draw.choices(range(3), k=4)
        losses = losses_of(step, draw)
        given = torch.tensor([losses[index] for index in domain])
        mixer.step(BatchSignals(step, torch.tensor(domain), given))
        before = rows[-1] if rows else [given.mean().item()] * 3
        rows.append([losses[index] if index in domain else before[index] for index in range(3)])
        shares = [domain.count(index) / 4 for index in range(3)]
        recent = [0.9 * old + 0.1 * new for old, new in zip(recent, shares, strict=True)]
        expected = [0.25, 0.5, 0.25]
        if step >= 8 and step % 4 == 0:  # 8 is the first multiple of 4 after start and 3 points
            smooth = savgol_filter(np.float32(rows).astype(float), 5, 3, axis=0)[3::2]
            n = np.arange(4 * 4, 4 * step + 5, 8.0)
            law = [fit_law(n, column) for column in smooth.T]
        if law is not None:
            latest = transcribed(law, 4 * step + 4, [0.25, 0.5, 0.25], recent, 0.5, 0.01)
            expected = [0.9 * old + 0.1 * new for old, new in zip(mean, latest, strict=True)]
            mean = [
                (1 - 1 / (step + 1)) * old + new / (step + 1)
                for old, new in zip(mean, latest, strict=True)
            ]
        assert mixer.weights.tolist() == pytest.approx(expected, abs=1e-6)
    books, code, web = mixer.weights.tolist()
    assert code > max(books, web) + 0.3


def test_what_has_nothing_left_to_learn_loses_and_keeps_the_least():
    draw = random.Random(2)
    mixer = ready(ADO(**{**SMALL, "refit_every": 50}))
    for step in range(300):
        losses = losses_of(step, draw)
        mixer.step(
            BatchSignals(step, torch.tensor([0, 1, 2, 1]), torch.tensor([*losses, losses[1]]))
        )
    books, code, web = mixer.weights.tolist()
    assert code > 0.8  # the prior counts 50 of the 300 steps
    assert min(books, web) >= 0.009  # δ, of shares that sum to a little more than 1
    shown = mixer.diagnostics()
    assert shown["irreducible/books"] == pytest.approx(3, rel=0.1)


def test_the_prior_is_the_share_of_tokens_and_holds_until_the_first_fit():
    mixer = ready(ADO(), tokens=[1, 2, 1])
    assert mixer.weights.tolist() == [0.25, 0.5, 0.25]
    # Published settings have one point at step 1,000; we wait for three.
    assert mixer.acts_from == 2000 and ADO(**SMALL).acts_from == 8
    named = ready(ADO(prior={"books": 1, "code": 0, "web": 1}), tokens=[1, 2, 1])
    assert named.weights.tolist() == [0.5, 0, 0.5]


def test_unseen_domains_and_a_prior_of_0_stay_at_0():
    prior = {"books": 1, "code": 1, "web": 0, "maths": 1}
    mixer = ready(ADO(**SMALL, prior=prior), (*DOMAINS, "maths"), unseen=["maths"])
    draw = random.Random(3)
    for step in range(20):
        books, code, _ = losses_of(step, draw)
        mixer.step(BatchSignals(step, torch.tensor([0, 1]), torch.tensor([books, code])))
    assert mixer.weights[1] > 0.5 > mixer.weights[0]
    assert mixer.weights[2:].tolist() == [0, 0]


@pytest.mark.parametrize("until", [5, 18, 70])
def test_state_restores_losses_and_laws_to_the_bit(until):
    """Before the first fit, after it, and once the record has grown."""
    mixer, other = (ready(ADO(**{**SMALL, "refit_every": 8})) for _ in range(2))
    draw = random.Random(4)
    batches = [
        BatchSignals(step, torch.tensor([0, 1, 2]), torch.tensor(losses_of(step, draw)))
        for step in range(until + 8)
    ]
    for batch in batches[:until]:
        mixer.step(batch)
    other.load_state_dict(mixer.state_dict())
    for batch in batches[until:]:
        mixer.step(batch)
        other.step(batch)
        assert torch.equal(mixer.weights, other.weights)


def test_a_fit_that_fails_leaves_the_laws_as_they_were(monkeypatch):
    mixer, draw = ready(), random.Random(5)
    for step in range(13):
        if step == 9:
            law = mixer.law.clone()
            monkeypatch.setattr("dograph.mixers.ado.fit_law", lambda *_: np.full(3, np.nan))
        batch = torch.tensor([0, 1, 2]), torch.tensor(losses_of(step, draw))
        mixer.step(BatchSignals(step, *batch))
    assert law.isfinite().all() and torch.equal(mixer.law, law)


@pytest.mark.parametrize(
    "wrong",
    [{"window": 4}, {"window": 6}, {"gamma1": 0.0}, {"least": 1.0}, {"stride": 0}, {"start": -1}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"mixer.init_args.{next(iter(wrong))}"):
        ADO(**wrong)
