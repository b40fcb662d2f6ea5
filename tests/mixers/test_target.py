"""The target: what counts, how much, and what is refused; unseen domains with every mixer."""

import math

import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import (
    ADO,
    GRAPE,
    ODM,
    Aioli,
    BaseMixer,
    DoGE,
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
from dograph.mixers.dry_run import dry_run, made_up_signals
from dograph.mixers.simplex import weights_by_name
from dograph.mixers.target import Target, check_names

DOMAINS = ("books", "code", "web")
LOSSES = {"books": 3.0, "code": 1.0, "web": 2.0}


@pytest.mark.parametrize(
    ("value", "unseen", "weights", "loss", "label"),
    [
        (None, (), [1 / 3, 1 / 3, 1 / 3], 2.0, "even"),
        (None, ("books",), [0, 0.5, 0.5], 1.5, "even"),
        ("web", ("web",), [0, 0, 1], 2.0, "web"),
        ({"web": 1}, (), [0, 0, 1], 2.0, "web"),
        ({"web": 3, "books": 1, "code": 0}, (), [0.25, 0, 0.75], 2.25, "books 0.25, web 0.75"),
        ("worst", ("books",), [1, 0, 0], 3.0, "worst"),
    ],
)
def test_a_target_is_weights_of_the_domains_losses(value, unseen, weights, loss, label):
    target = Target.parse(value, unseen)
    losses = torch.tensor([LOSSES[name] for name in DOMAINS])
    found = target.weights(DOMAINS, losses)
    assert found.tolist() == pytest.approx(weights)
    assert target.loss(LOSSES) == pytest.approx(loss)
    assert (found @ losses.double()).item() == pytest.approx(loss)
    assert target.label == label
    assert Target.parse(target.value, unseen) == target


def test_a_target_of_many_domains_has_a_short_label():
    target = Target.parse(dict.fromkeys("abcd", 1))
    assert target.label == "4 domains"
    assert target.description == "a 0.25, b 0.25, c 0.25, d 0.25"
    assert Target.parse({"worst": 2}).label == "worst 1"  # a domain of that name


def test_the_worst_may_be_any_domain_until_losses_are_known():
    target = Target.parse("worst")
    assert target.weights(DOMAINS).tolist() == pytest.approx([1 / 3] * 3)
    assert target.names(DOMAINS) == DOMAINS
    assert math.isnan(target.loss({**LOSSES, "code": math.nan}))


@pytest.mark.parametrize("value", [3, True, [], "", {}, {"web": -1}, {"web": math.nan}, {"web": 0}])
def test_what_is_no_target_is_refused(value):
    with pytest.raises(UserError, match="target"):
        Target.parse(value)


def test_names_that_the_corpus_lacks_are_refused_with_the_nearest_spelling():
    with pytest.raises(UserError, match=r"target names 'wbe'.*did you mean 'web'"):
        Target.parse("wbe").check(DOMAINS)
    with pytest.raises(UserError, match=r"target names 'cod'.*did you mean 'code'"):
        Target.parse({"web": 1, "cod": 0}).check(DOMAINS)
    with pytest.raises(UserError, match="also the name of a domain"):
        Target.parse("worst").check(("code", "worst"))
    Target.parse({"worst": 1}).check(("code", "worst"))


class Everything(BaseMixer):
    """Wants the unseen domain above all."""

    def update(self, signals):
        return torch.tensor([0.1, 0.1, 0.8])


@pytest.mark.parametrize("name", [False, 1])
def test_names_that_yaml_reads_as_no_text_are_to_be_quoted(name):
    with pytest.raises(UserError, match=f"data.cap names {name}, which is no text: quote it"):
        check_names("data.cap", [name], ("no", "1"))


@pytest.mark.parametrize(
    "mixer",
    [
        Stratified(),
        Proportional(),
        Temperature(2.0),
        Fixed({"books": 3, "code": 1, "web": 4}),
        Fixed({"books": 3, "code": 1}),
        DoReMi("none", prior={"books": 3, "code": 1}),
        DoReMiOnline(),
        DoGE(),
        GRAPE(update_every=2),
        DynamicLoss(warmup=0),
        ODM(warmup=0),
        ODM("exp3", warmup=0),
        UniMax(),
        SkillIt(),
        Aioli(sweeps=1, probe_steps=1, round_steps=4, share=0.9),
        ADO(start=0, refit_every=1, ignore=0, window=5, stride=1),
        DoGraph(clusters=2),
        DoGraphSchedule(interval=5, text_tokens=0, measure=5, skip=0),
        Everything(floor=0.2),
    ],
    ids=lambda mixer: type(mixer).__name__,
)
def test_every_mixer_gives_unseen_domains_no_weight(mixer):
    given = {"target": "code", "unseen": ["web"], "token_budget": 350}
    mixer.setup(DOMAINS, (100, 300, 600), 64, 300, **given)
    assert mixer.trained.tolist() == [True, True, False]
    dry_run(mixer, 64)
    signals = made_up_signals(mixer, 64, mixer.update_every - 1)
    assert set(signals.domain.tolist()) == {0, 1}
    for _ in range(2):
        assert mixer.weights[2] == mixer.sampling_weights[2] == mixer.average_weights[2] == 0
        assert mixer.weights.sum().item() == pytest.approx(1)
        assert mixer.weights[:2].min() >= mixer.floor / 2
        weights = mixer.checked_loss_weights(signals)
        assert 0.5 < weights.sum().item() < 1.001  # DoGE clips gradients
        mixer.step(signals)


def test_fixed_mixtures_are_renormalised():
    mixer = Fixed({"books": 3, "code": 1, "web": 4})
    mixer.setup(DOMAINS, (1, 1, 1), 4, unseen=["web"])
    assert mixer.weights.tolist() == [0.75, 0.25, 0]
    proportional = Proportional()
    proportional.setup(DOMAINS, (100, 300, 600), 4, unseen=["web"])
    assert proportional.weights.tolist() == pytest.approx([0.25, 0.75, 0])


def test_a_mixture_of_unseen_domains_alone_is_refused():
    with pytest.raises(UserError, match=r"data\.unseen alone"):
        Fixed({"web": 1, "books": 0, "code": 0}).setup(DOMAINS, (1, 1, 1), 4, unseen=["web"])
    with pytest.raises(UserError, match="names every domain"):
        Stratified().setup(DOMAINS, (1, 1, 1), 4, unseen=DOMAINS)


def test_weights_whose_sum_is_not_finite_are_refused():
    with pytest.raises(UserError, match="sum is not finite"):
        Target.parse({"books": 1e308, "code": 1e308})
    with pytest.raises(UserError, match="with a finite sum above 0"):
        weights_by_name({"books": 1e308, "code": 1e308}, ("books", "code"), "weights")
