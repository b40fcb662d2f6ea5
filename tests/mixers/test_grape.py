"""GRAPE's update against hand-computed cases, its targets and its state."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.mixers import GRAPE, LOSS, BatchSignals
from dograph.mixers.grape import log_alignment
from dograph.signals.alignment import Alignment

DOMAINS = ("books", "code", "web")


def ready(mixer=None, target=None, unseen=()):
    mixer = mixer if mixer is not None else GRAPE(update_every=1)
    mixer.setup(DOMAINS, [9] * 3, 4, target=target, unseen=unseen)
    return mixer


def alignment_of(sources, targets, losses):
    sources, targets = torch.tensor(sources).double(), torch.tensor(targets).double()
    squares = sources.square().sum(dim=1), targets.square().sum(dim=1)
    return Alignment(sources @ targets.T, *squares, torch.tensor(losses).double())


def signals(alignment, step=0):
    return BatchSignals(step, torch.tensor([0, 1]), torch.ones(2), alignment=alignment)


def shares(*logits):
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


def test_two_targets_by_hand():
    # ∇log l = (1, 0)/2, (0, 1)/4. By α = (1/2, 1/2, 0) of g = (1, 0), (0, 0.4): a = 1/4, 1/20.
    mixer = GRAPE(step_size=3.0, target_step_size=10.0, smoothing=0.1, update_every=1)
    mixer = ready(mixer, target={"code": 1, "web": 1}, unseen=["web"])
    assert mixer.weights.tolist() == mixer.target_weights.tolist()[::-1] == [0.5, 0.5, 0]
    found = alignment_of([(1, 0), (0, 0.4), (0, 0)], [(0, 0), (1, 0), (0, 1)], [0, 2, 4])
    mixer.step(signals(found))
    code, web = (0.9 * share + 0.05 for share in shares(-2.5, -0.5))
    assert mixer.target_weights.tolist() == pytest.approx([0, code, web])
    assert mixer.diagnostics() == pytest.approx(
        {"target_weight/code": code, "target_weight/web": web}
    )
    # b = z_code · 1/2, z_web · 0.4/4.
    expected = [*shares(3 * code / 2, 3 * web / 10), 0]
    assert mixer.weights.tolist() == pytest.approx(expected)
    assert mixer.sampling_weights.tolist() == pytest.approx(expected)


def test_gradients_are_clipped_after_the_division_by_the_loss():
    # g = (3, 4) is clipped to (0.6, 0.8); ∇log l = (8, 0)/2 to (1, 0), and (0, 1)/2 is small.
    given = alignment_of([(3, 4), (0, 0)], [(8, 0), (0, 1)], [2, 2])
    assert torch.allclose(
        log_alignment(given, 1.0), torch.tensor([[0.6, 0.4], [0, 0]], dtype=torch.float64)
    )
    assert log_alignment(given, 100.0).tolist() == [[12, 2], [0, 0]]


def test_a_single_target_keeps_its_weight():
    mixer = ready(target="code")
    mixer.step(signals(alignment_of([(1, 0), (0, 1), (1, 1)], [(0, 0), (0, 2), (0, 0)], [0, 2, 0])))
    assert mixer.target_weights.tolist() == [0, 1, 0]
    assert mixer.weights.tolist() == pytest.approx(shares(0, 1.5, 1.5 / math.sqrt(2)))


@pytest.mark.parametrize(
    ("target", "unseen", "expected"),
    [
        (None, [], [1 / 3, 1 / 3, 1 / 3]),
        (None, ["web"], [1 / 2, 1 / 2, 0]),
        ("worst", ["web"], [1 / 3, 1 / 3, 1 / 3]),
        ({"books": 3, "web": 1}, ["web"], [3 / 4, 0, 1 / 4]),
    ],
)
def test_targets_begin_with_the_recipes_weights(target, unseen, expected):
    mixer = ready(target=target, unseen=unseen)
    assert mixer.target_weights.tolist() == pytest.approx(expected)
    assert [mixer.probes(name) for name in DOMAINS] == [weight > 0 for weight in expected]


def test_it_acts_on_what_is_drawn_alone():
    mixer = ready()
    assert not mixer.acts(LOSS)
    mixer = ready(GRAPE(prior={"books": 0, "code": 1, "web": 3}))
    assert mixer.weights.tolist() == mixer.sampling_weights.tolist() == [0, 1 / 4, 3 / 4]
    assert not mixer.step(signals(None, step=98))


@st.composite
def alignments(draw):
    rows = st.lists(st.floats(-3, 3), min_size=2, max_size=2)
    three = st.lists(rows, min_size=3, max_size=3)
    losses = st.lists(st.floats(0.1, 9), min_size=3, max_size=3)
    return alignment_of(draw(three), draw(three), draw(losses))


@given(alignments(), st.floats(0.1, 10), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_identities(found, size, smoothing):
    mixer = ready(GRAPE(size, size, smoothing, update_every=1))
    mixer.step(signals(found))
    for weights in (mixer.weights, mixer.target_weights):
        assert weights.sum().item() == pytest.approx(1)
    assert mixer.target_weights.min() >= smoothing / 3 - 1e-12
    # The target that the mixture helps least ends with the largest weight.
    helped = log_alignment(found, 1.0).mean(dim=0)
    assert mixer.target_weights[helped.argmin()] == pytest.approx(mixer.target_weights.max().item())
    # Of sources, the one that helps the targets most.
    helps = log_alignment(found, 1.0) @ mixer.target_weights
    assert mixer.weights[helps.argmax()] == pytest.approx(mixer.weights.max().item())


def test_state_continues_exactly(tmp_path):
    draw = torch.Generator().manual_seed(0)
    steps = [
        alignment_of(*torch.randn(2, 3, 4, generator=draw).tolist(), [2, 3, 4]) for _ in range(4)
    ]
    whole, part, other = ready(), ready(), ready()
    for step, found in enumerate(steps):
        whole.step(signals(found, step))
    for step, found in enumerate(steps[:2]):
        part.step(signals(found, step))
    torch.save(part.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for step in (2, 3):
        other.step(signals(steps[step], step))
    for name in ("weights", "average_weights", "target_weights"):
        assert torch.equal(getattr(other, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step_size", 0.0),
        ("target_step_size", -1.0),
        ("clip", 0.0),
        ("smoothing", 2.0),
        ("probe", 0),
        ("update_every", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value):
    with pytest.raises(UserError, match=f"mixer.init_args.{key} is {value}"):
        GRAPE(**{key: value})
