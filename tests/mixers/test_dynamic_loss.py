"""Dynamic loss against hand-computed cases and its identities (Sow et al. 2025)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.mixers import BatchSignals, DynamicLoss
from dograph.mixers.dynamic_loss import scaled_loss_weights

losses = st.lists(st.floats(0, 10), min_size=1, max_size=12).map(torch.tensor)


def softmax(values):
    exps = [math.exp(value) for value in values]
    return [value / sum(exps) for value in exps]


def test_both_forms_by_hand():
    # h = −1, −1/2, 0, 1 for losses 1, 2, 3, 5.
    found = scaled_loss_weights(torch.tensor([1.0, 2.0, 3.0, 5.0]), "linupper", 0.5)
    assert found.tolist() == pytest.approx(softmax([0, 1, 2, 2]))
    found = scaled_loss_weights(torch.tensor([1.0, 2.0, 3.0, 5.0]), "extremes", 0.5)
    assert found.tolist() == pytest.approx(softmax([2, 1, 0, 2]))


@given(losses, st.sampled_from(["linupper", "extremes"]), st.floats(0.05, 10), st.data())
@settings(max_examples=80, deadline=None)
def test_identities(values, strategy, temperature, data):
    found = scaled_loss_weights(values, strategy, temperature)
    assert found.sum().item() == pytest.approx(1)
    # No weight is above e^{1/r} times another: the paper's bound.
    assert found.max() <= found.min() * math.exp(1 / temperature) * (1 + 1e-9)
    order = torch.tensor(data.draw(st.permutations(range(len(values)))))
    permuted = scaled_loss_weights(values[order], strategy, temperature)
    assert torch.allclose(permuted, found[order])
    if strategy == "linupper":
        assert (found[values.argsort()].diff() >= -1e-12).all()


def test_equal_losses_count_alike():
    assert scaled_loss_weights(torch.full((5,), 2.0), "linupper", 0.4).tolist() == pytest.approx(
        [0.2] * 5
    )


def test_nothing_is_weighed_before_the_warm_up_ends():
    mixer = DynamicLoss(warmup=3)
    mixer.setup(("a", "b"), (1, 1), 4)
    batch = [torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0])]
    assert mixer.checked_loss_weights(BatchSignals(2, *batch)).tolist() == [0.25] * 4
    assert mixer.diagnostics() == {}
    assert mixer.checked_loss_weights(BatchSignals(3, *batch))[0] < 0.1
    assert 1 < mixer.diagnostics()["effective_sequences"] < 4
    assert not mixer.step(BatchSignals(3, *batch))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(UserError, match="temperature"):
        DynamicLoss(temperature=0.0)
