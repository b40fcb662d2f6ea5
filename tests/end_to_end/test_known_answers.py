"""Corpora whose right answer is known: each method does what its theory says.

Five domains of one-letter words: ``helper`` and ``target`` are drawn from one Markov chain (each
a copy of the other as far as learning goes), ``other`` from a chain of its own, ``noise`` is
uniform and has nothing to learn but its letters, ``easy`` repeats itself and is learnt at once.

They alone protect what a method does as a whole, from signals over its formula to what is drawn;
golden tests see the formula.
"""

import json
import random

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.data_mixer import DataMixer
from dograph.mixers import (
    ADO,
    GRAPE,
    ODM,
    Aioli,
    BatchSignals,
    DoGE,
    DoGEOnline,
    DoGraphSchedule,
    DoReMi,
    DoReMiOnline,
    DynamicLoss,
    Fixed,
    HeldOutLoss,
    SkillIt,
    Stratified,
)
from dograph.mixers.schedule_settings import ProblemSettings
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback

pytestmark = pytest.mark.slow
EVEN = 1 / 5


def chain(letters, seed):
    """Writes texts in which every letter has two successors."""
    draw = random.Random(seed)
    successors = {letter: draw.choices(letters, k=2) for letter in letters}

    def text(draw):
        words = [draw.choice(letters)]
        while len(words) < 120:
            words.append(draw.choice(successors[words[-1]]))
        return " ".join(words)

    return text


SHARED = chain("abcdefghijklmnop", 1)
DOMAINS = {
    "helper": SHARED,
    "target": SHARED,
    "other": chain("ABCDEFGHIJKLMNOP", 2),
    "noise": lambda draw: " ".join(draw.choices("0123456789@#$%&*", k=120)),
    "easy": lambda draw: " ".join(["x y z"] * 40) + f" {draw.randrange(10**6)}",
}


UNSEEN = {"target": "target", "unseen": ["target"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    (folder / "text").mkdir()
    for name, text in DOMAINS.items():
        draw = random.Random(name)
        lines = [json.dumps({"text": text(draw)}) for _ in range(300)]
        (folder / "text" / f"{name}.jsonl").write_text("\n".join(lines))
    return CorpusSettings(
        source=str(folder / "text"),
        store=str(folder / "store"),
        vocab_size=300,
        validation_fraction=0.1,
    )


class EndsWithLosses(Fixed):
    """A fixed mixture that keeps the losses after the last step."""

    needs = frozenset({HeldOutLoss()})

    def update(self, signals: BatchSignals):
        self.losses = signals.held_out_loss
        return self.weights


def train(corpus, mixer, checkpoint=None, fresh=True, steps=150, **settings):
    """Real steps; (average weights, shares of the loss, shares of what was drawn) by name."""
    store = prepare(corpus, progress=False)
    seed_everything(0, verbose=False)
    data = DataMixer(mixer, corpus, 32, 20, seed=0, validation_sequences=8, **settings)
    size = {"n_layer": 2, "n_embd": 48, "n_head": 4, "n_positions": 32}
    ids = {"vocab_size": store.vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    model = LanguageModel("gpt2", {**size, **ids}, None, 2e-3, 2e-4, warmup=10)
    mixing = MixingCallback(SketchSettings(blocks="model", fresh=fresh))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=[mixing],
    )
    trainer.fit(model, datamodule=data)
    if checkpoint is not None:
        trainer.save_checkpoint(checkpoint)
    realised = torch.from_numpy(data.sampler.realised)
    return [
        dict(zip(data.domains, (values / values.sum()).tolist(), strict=True))
        for values in (mixer.average_weights, mixing.effective, realised)
    ]


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.ckpt"
    train(corpus, Stratified(), path)
    return str(path)


@pytest.mark.parametrize("normalise", ["paper", "repository"])
def test_doremi_turns_to_what_the_reference_has_learnt_and_from_noise(corpus, reference, normalise):
    """Noise has no excess loss once its letters are known: the reference does no better."""
    weights, effective, realised = train(corpus, DoReMi(reference, normalise=normalise))
    assert max(weights, key=weights.get) == "other"  # learnable, and nothing else teaches it
    assert weights["other"] > 1.5 * EVEN
    assert weights["noise"] < 0.75 * EVEN
    # Copies teach each other, so that neither needs as much as a domain that stands alone.
    assert max(weights["helper"], weights["target"]) < weights["other"]
    assert effective == pytest.approx(weights, abs=0.02)
    assert realised == pytest.approx(dict.fromkeys(weights, EVEN), abs=0.01)


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_doge_by_a_held_out_mix_turns_to_the_copies(corpus, gradients):
    """As by the sum; but the easy, steep at first, leads, since its scores are never clipped."""
    weights, effective, realised = train(corpus, DoGE(gradients, "mix", mu=0.01, probe=20))
    assert weights["helper"] == pytest.approx(weights["target"], abs=0.06)  # copies share
    assert min(weights["helper"], weights["target"]) > EVEN > 1.5 * weights["other"]
    assert min(weights, key=weights.get) == "noise"
    assert effective == pytest.approx(weights, abs=0.02)
    assert realised == pytest.approx(dict.fromkeys(weights, EVEN), abs=0.01)


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_universal_doge_turns_to_the_copies(corpus, gradients):
    """Two domains with one gradient direction gain by each other; noise aligns with nothing."""
    weights, effective, realised = train(corpus, DoGE(gradients, "all", mu=0.05))
    first, second = sorted(weights, key=weights.get, reverse=True)[:2]
    assert {first, second} == {"helper", "target"}
    assert weights["helper"] == pytest.approx(weights["target"], abs=0.06)  # copies share
    assert weights["noise"] < 0.5 * EVEN
    assert effective == pytest.approx(weights, abs=0.02)
    assert realised == pytest.approx(dict.fromkeys(weights, EVEN), abs=0.01)


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_out_of_domain_doge_finds_the_one_source_that_helps(corpus, gradients):
    weights, effective, _ = train(corpus, DoGE(gradients, mu=0.05), **UNSEEN)
    assert weights["target"] == effective["target"] == 0
    assert weights["helper"] > 0.5
    assert max(weights["noise"], weights["other"], weights["easy"]) < EVEN


def test_dynamic_loss_turns_from_what_is_learnt(corpus):
    """linupper: the easy count less; extremes: the easy and the hopeless count more."""
    _, effective, _ = train(corpus, DynamicLoss("linupper", warmup=20))
    assert min(effective, key=effective.get) == "easy"
    assert effective["easy"] < 0.6 * EVEN
    assert max(effective, key=effective.get) == "noise"  # it has no way to know noise
    _, effective, _ = train(corpus, DynamicLoss("extremes", warmup=20))
    assert effective["easy"] > 1.3 * EVEN and effective["noise"] > 1.3 * EVEN


@pytest.mark.parametrize("estimate", ["smoothed_mean", "exp3", "paper"])
def test_odm_draws_by_loss(corpus, estimate):
    """What cannot be learnt keeps its loss, and so leads; what is learnt at once comes last."""
    _, _, realised = train(corpus, ODM(estimate, warmup=10))
    assert max(realised, key=realised.get) == "noise"
    assert min(realised, key=realised.get) == "easy"


def test_ado_turns_from_what_has_nothing_left_to_learn(corpus):
    """Easy is learnt by the first fit, and its law has nothing to reduce.

    The copies of one chain are next: below 1.65 nats, the least that the published fit takes for
    irreducible, a domain counts as learnt. So noise, which stays above, leads.
    """
    even = dict.fromkeys(DOMAINS, 1.0)
    mixer = ADO(start=20, refit_every=20, ignore=10, window=11, stride=2, prior=even)
    weights, _, realised = train(corpus, mixer)
    for drawn in (weights, realised):
        assert min(drawn, key=drawn.get) == "easy"
        assert drawn["easy"] < 0.9 * EVEN


def test_aioli_finds_what_helps_a_target_that_it_never_draws(corpus):
    """Probes of the target's copy lower its loss most; the others hardly do."""
    mixer = Aioli(sweeps=2, probe_steps=3, round_steps=36, rate=8.0, ema=None)
    weights, _, realised = train(corpus, mixer, **UNSEEN)
    assert weights["target"] == realised["target"] == 0
    mixture = dict(zip(mixer.domains, mixer.mixture.tolist(), strict=True))
    assert max(mixture, key=mixture.get) == "helper"
    assert mixture["helper"] > 0.4


def test_skill_it_learns_that_copies_help_each_other(corpus):
    """By a run on each domain alone: a copy lowers the other's loss as its own."""
    alone = {}
    for name in DOMAINS:
        mixer = EndsWithLosses({each: float(each == name) for each in DOMAINS})
        train(corpus, mixer, steps=60)
        alone[name] = dict(zip(mixer.domains, mixer.losses.tolist(), strict=True))
    mixer = SkillIt(losses_alone=alone, rate=1.0)
    mixer.setup(sorted(DOMAINS), [1] * 5, 20, 300, **UNSEEN)
    graph = {name: dict(zip(mixer.domains, row, strict=True))["target"]
             for name, row in zip(mixer.domains, mixer.graph.tolist(), strict=True)}  # fmt: skip
    assert max(graph, key=graph.get) == "helper" and graph["helper"] > 0.3
    assert max(graph[name] for name in ("other", "noise", "easy")) < 0.5 * graph["helper"]
    assert mixer.weights.argmax() == mixer.domains.index("helper")


def test_online_doremi_without_a_reference_draws_what_it_cannot_learn(corpus, reference):
    """The loss itself as score is group DRO: noise leads. A reference fixes that."""
    _, _, realised = train(corpus, DoReMiOnline())
    assert max(realised, key=realised.get) == "noise"
    _, _, realised = train(corpus, DoReMiOnline(reference, step_size=0.2))
    assert min(realised, key=realised.get) == "noise"
    assert max(realised, key=realised.get) == "other"


def test_online_doge_draws_less_noise(corpus):
    _, _, realised = train(corpus, DoGEOnline(mu=0.02))
    assert min(realised, key=realised.get) == "noise"


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_online_doge_draws_what_helps_a_target_that_it_never_draws(corpus, gradients):
    weights, _, realised = train(corpus, DoGEOnline(gradients, mu=0.02), **UNSEEN)
    assert weights["target"] == realised["target"] == 0
    assert max(realised, key=realised.get) == "helper"
    assert realised["helper"] > 0.3


def test_grape_draws_what_helps_a_target_that_it_never_draws(corpus):
    weights, _, realised = train(corpus, GRAPE(update_every=10), **UNSEEN)
    assert weights["target"] == realised["target"] == 0
    assert max(realised, key=realised.get) == "helper"
    assert weights["helper"] > 0.7 and realised["helper"] > 0.6


def test_grape_serves_both_of_two_targets(corpus):
    """One that the copies share, and one that stands alone; the rest is hardly drawn."""
    mixer = GRAPE(update_every=10)
    _, _, realised = train(corpus, mixer, target={"target": 1, "other": 1})
    assert realised["other"] > 0.3
    assert realised["helper"] + realised["target"] > 0.3
    assert max(realised["noise"], realised["easy"]) < 0.5 * EVEN


def test_grape_gives_all_to_a_target_that_cannot_improve(corpus):
    """Slow progress is all that it sees, also where there is none to be made."""
    mixer = GRAPE(update_every=10)
    _, _, realised = train(corpus, mixer, target={"target": 1, "noise": 1})
    assert mixer.target_weights[mixer.domains.index("noise")] > 0.9
    assert max(realised, key=realised.get) == "noise"


def test_the_schedule_finds_what_helps_an_unseen_target(corpus):
    """The target is never drawn; the source that is its copy gains most."""
    mixer = DoGraphSchedule(interval=10, measure=50, skip=20)
    weights, _, realised = train(corpus, mixer, **UNSEEN)
    assert weights["target"] == realised["target"] == 0
    assert max(weights, key=weights.get) == "helper"
    assert weights["helper"] > 0.4
    assert realised["helper"] > 0.35


def test_the_schedule_lets_copies_share_and_keeps_the_floor(corpus):
    mixer = DoGraphSchedule(interval=10, measure=50, skip=20, problem=ProblemSettings(floor=0.25))
    weights, effective, realised = train(corpus, mixer)
    assert weights["helper"] == pytest.approx(weights["target"], abs=0.08)
    assert min(mixer.weights.tolist()) >= 0.25 * EVEN - 1e-9
    assert effective == pytest.approx(realised, abs=0.01)  # losses count alike


def test_the_schedule_turns_to_a_target_and_to_its_copy(corpus):
    weights, _, realised = train(
        corpus, DoGraphSchedule(interval=10, measure=50, skip=20), target="target"
    )
    assert weights["helper"] + weights["target"] > 0.6
    assert realised["helper"] + realised["target"] > 0.6
