"""A run in which a mixer could never act is told before it trains."""

import logging
from types import SimpleNamespace

import pytest

from dograph.errors import UserError
from dograph.mixers import ODM, Aioli, DynamicLoss, SkillIt, Stratified
from dograph.training.update_checks import check_updates, first_update

DOMAINS = ("books", "code", "web")


def ready(mixer):
    mixer.setup(DOMAINS, [1] * 3, 4)
    return mixer


def trainer(steps=100, **more):
    own = {"val_check_interval": 10, "limit_val_batches": 1.0, "limit_train_batches": 1.0}
    return SimpleNamespace(max_steps=steps, accumulate_grad_batches=1, **{**own, **more})


def warned(caplog, of, mixer, has_text=True):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_updates(of, ready(mixer), has_text)
    return caplog.text


@pytest.mark.parametrize(
    ("mixer", "first"),
    [
        (ODM(), 2001),
        (ODM(warmup=8, update_every=5), 10),
        (ODM(warmup=10, update_every=5), 15),
        (ODM(warmup=0, update_every=50), 50),
        (DynamicLoss(warmup=7), 8),
    ],
)
def test_a_run_that_ends_before_the_first_update_is_named(caplog, mixer, first):
    """The published warm-up of 2,000 steps once made a short run of ODM one of even draws."""
    assert first_update(mixer) == first
    text = warned(caplog, trainer(first - 1), mixer)
    assert f"trainer.max_steps is {first - 1}, but {type(mixer).__name__} first acts on" in text
    assert not warned(caplog, trainer(first), mixer)


@pytest.mark.parametrize("steps", [-1, 1])
def test_a_mixer_that_learns_nothing_needs_no_steps(caplog, steps):
    assert not warned(caplog, trainer(steps), Stratified())


def test_a_mixer_that_reads_validations_needs_text_for_them():
    with pytest.raises(UserError, match=r"holds out no text.*raise corpus\.validation_fraction"):
        check_updates(trainer(), ready(SkillIt()), has_text=False)
    with pytest.raises(UserError, match="limit_val_batches is 0"):
        check_updates(trainer(limit_val_batches=0), ready(SkillIt()), has_text=True)
    without = trainer(limit_val_batches=0)
    with pytest.raises(UserError, match=r"holds out no text, but Aioli"):
        check_updates(without, ready(Aioli()), has_text=False)
    check_updates(without, ready(Aioli()), has_text=True)  # it measures by itself


@pytest.mark.parametrize(
    ("more", "late"),
    [
        ({"val_check_interval": 99}, False),
        ({"val_check_interval": 100}, True),
        ({"val_check_interval": 100, "accumulate_grad_batches": 2}, False),
        ({"val_check_interval": 1.0}, True),  # Lightning's default: at the end alone
        ({"val_check_interval": 0.5, "limit_train_batches": 40}, False),
    ],
)
def test_a_validation_after_the_last_update_is_named(caplog, more, late):
    of = SimpleNamespace(**{**vars(trainer()), **more})
    text = warned(caplog, of, SkillIt())
    assert ("reads the losses of validations here" in text) == late


def test_an_update_before_every_validation_is_named(caplog):
    assert "its last update comes after 60 batches" in warned(
        caplog, trainer(100, val_check_interval=70), SkillIt(update_every=60)
    )
