"""Losses measured between training steps, and the probes of Aioli that they belong to."""

import pytest
import torch
from lightning.pytorch import Callback
from test_mixing_callback import Saves, assert_same, train
from two_ranks import run_on_two_ranks

from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers import Aioli, HeldOutLoss, Stratified

PROBES = {"sweeps": 1, "probe_steps": 2, "round_steps": 12, "share": 1.0}


class Recorded(Aioli):
    """Keeps each step's domains, and the losses that were measured after it."""

    not_saved = frozenset({"domains_drawn", "losses"})

    def reset(self):
        super().reset()
        self.domains_drawn, self.losses, self.orders = [], {}, {}

    def update(self, signals):
        self.domains_drawn.append(set(signals.domain.tolist()))
        if signals.held_out_loss is not None:
            self.losses[signals.step + 1] = signals.held_out_loss
        weights = super().update(signals)
        self.orders[self.round] = self.order.tolist()
        return weights


class Measuring(Stratified):
    """Draws evenly, and has losses measured after every step."""

    needs = frozenset({HeldOutLoss(3)})

    def update(self, signals):
        self.measured = signals.held_out_loss
        return self.weights


class Validations(Callback):
    """Keeps the losses of every validation by step; stands after DomainPerplexity."""

    def __init__(self, perplexity):
        self.perplexity, self.losses = perplexity, {}

    def on_validation_end(self, trainer, *_):
        self.losses[trainer.global_step] = list(self.perplexity.losses.values())


def test_measured_losses_are_those_of_a_validation_after_the_same_step(store, corpus_settings):
    mixer, perplexity = Recorded(**PROBES), DomainPerplexity()
    validations = Validations(perplexity)
    often = {"limit_val_batches": 1.0, "val_check_interval": 1, "check_val_every_n_epoch": None}
    after = [perplexity, validations]
    train(corpus_settings, mixer, steps=14, batch_size=6, after=after, **often)
    assert sorted(mixer.losses) == [5, 7, 9, 11]
    for step, losses in mixer.losses.items():
        assert losses.tolist() == pytest.approx(validations.losses[step], rel=1e-6)


def test_measuring_never_changes_training(store, corpus_settings):
    dropout = {"config": {"resid_pdrop": 0.5, "embd_pdrop": 0.5}}
    plain = train(corpus_settings, Stratified(), **dropout)
    mixer = Measuring()
    assert_same(plain, train(corpus_settings, mixer, **dropout))
    assert mixer.measured.isfinite().all()


@pytest.mark.parametrize(
    ("accumulate", "lookahead", "workers"), [(1, 4, 0), (1, 0, 0), (3, 4, 0), (3, 4, 2), (2, 5, 1)]
)
def test_all_steps_between_two_measurements_are_drawn_by_their_probe_alone(
    store, corpus_settings, accumulate, lookahead, workers
):
    mixer = Recorded(**PROBES, sequences=2)
    delay = -(-lookahead // accumulate)
    draws = {"lookahead": lookahead, "workers": workers, "accumulate_grad_batches": accumulate}
    train(corpus_settings, mixer, steps=delay + 24, batch_size=6, **draws)
    first = delay + 1
    assert mixer.delay == delay and sorted(mixer.losses)[0] == first
    for number in range(2):
        for place, domain in enumerate(mixer.orders[number]):
            begins = first + number * 12 + place * 2
            assert {begins, begins + 2} <= set(mixer.losses)
            assert mixer.domains_drawn[begins : begins + 2] == [{domain}] * 2
    assert mixer.domains_drawn[first - 1] == mixer.domains_drawn[first + 11] == {0, 1, 2}
    assert mixer.gains is not None


@pytest.mark.parametrize("step", [3, 6, 8, 9, 19])
def test_a_run_resumes_to_the_bit_in_the_middle_of_a_round(store, corpus_settings, tmp_path, step):
    """Before the first probe, within a probe, at its end, and in the second round."""
    path, dropout = tmp_path / "step.ckpt", {"config": {"resid_pdrop": 0.5}, "batch_size": 6}
    mixers = [Aioli(**{**PROBES, "share": 0.6}, sequences=2) for _ in range(2)]
    whole = train(corpus_settings, mixers[0], 26, after=[Saves(path, step)], **dropout)
    resumed = train(corpus_settings, mixers[1], 26, ckpt_path=path, seed=9, **dropout)
    assert torch.equal(whole[0], resumed[0])
    assert torch.equal(whole[1][-1][1], resumed[1][-1][1])
    assert torch.equal(mixers[0].mixture, mixers[1].mixture)
    assert mixers[0].gains is not None and torch.equal(mixers[0].graph, mixers[1].graph)


TWO_RANKS = """
from dograph.mixers import Aioli
from test_held_out_losses import PROBES, Measuring
rank = int(os.environ.get("LOCAL_RANK", 0))
measuring, probing = Measuring(), Aioli(**{**PROBES, "share": 0.6}, sequences=3)
for mixer, steps in ((measuring, 2), (probing, 13)):
    train(settings, mixer, steps=steps, batch_size=6, **both)
torch.save((measuring.measured, probing.before, probing.graph, probing.mixture), f"{rank}.pt")
"""


@pytest.mark.slow
def test_two_ranks_measure_what_one_does(store, corpus_settings, tmp_path):
    """Three sequences of each domain on two ranks: one of them repeats and must not count."""
    run_on_two_ranks(tmp_path, corpus_settings, TWO_RANKS)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(map(torch.equal, first, second))
    mixer = Measuring()
    train(corpus_settings, mixer, steps=2, batch_size=12)
    torch.testing.assert_close(first[0], mixer.measured, atol=1e-5, rtol=0)
