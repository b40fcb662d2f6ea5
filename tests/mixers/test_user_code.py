"""A user's mixer with a bug: the message names the mixer, the method, the step and the line."""

import numpy as np
import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import (
    ODM,
    BaseMixer,
    BatchSignals,
    DoGEOnline,
    DoGraph,
    DoReMi,
    DynamicLoss,
    Probe,
    Sketch,
)
from dograph.mixers.declared import LOSS, SAMPLING, diagnostics_of, snapshot_of
from dograph.mixers.dry_run import dry_run
from dograph.mixers.user_code import mixer_errors
from dograph.signals.batch_signals import TokenGradients

DOMAINS = ("books", "code", "web")
EVEN = [1 / 3] * 3


def ready(mixer):
    mixer.setup(DOMAINS, (100, 300, 600), batch_size=6)
    return mixer


def signals(step=0):
    return BatchSignals(step, torch.arange(6) % 3, torch.ones(6))


def returning(method, value):
    """A mixer whose method returns a value."""
    return type("M", (BaseMixer,), {method: lambda self, *_: value})()


@pytest.mark.parametrize(
    "value", [np.array(EVEN), EVEN, tuple(EVEN), np.float32(EVEN), torch.tensor(EVEN).bfloat16()]
)
def test_arrays_and_lists_are_taken(value):
    mixer = ready(returning("update", value))
    if isinstance(value, torch.Tensor):
        value = value.double() / value.double().sum()
        mixer = ready(returning("update", value.requires_grad_()))
    mixer.step(signals())
    assert mixer.weights.tolist() == pytest.approx(EVEN, rel=1e-6)
    assert not mixer.weights.requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is None: return a tensor of 3, one weight for each domain"),
        ({"books": 1.0}, "is a dict: return a tensor of 3"),
        (1.0, "is a float: return a tensor of 3"),
        (["a", "b", "c"], "is a list of what are not numbers"),
        ([[1.0], [0.0], [0.0]], "is a list of what are not numbers"),
        (np.array(["a", "b", "c"]), "is a ndarray"),
        (torch.ones(3, dtype=torch.complex64), "is a Tensor: return a tensor of 3"),
        (torch.ones(3, 1), r"has shape \(3, 1\): return a tensor of 3"),
        (torch.tensor(1.0), r"has shape \(\): return a tensor of 3"),
        ([], r"has shape \(0,\): return a tensor of 3"),
        ([float("nan"), 1, 0], "not finite"),
        ([-1.0, 1.0, 1.0], "off the simplex"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(value, message):
    with pytest.raises(UserError, match=f"M.update's result at step 8 .*{message}"):
        ready(returning("update", value)).step(signals(7))
    with pytest.raises(UserError, match=r"M.initial_weights' result"):
        ready(returning("initial_weights", value))
    with pytest.raises(UserError, match=r"M.loss_weights' result at step 1"):
        ready(returning("loss_weights", value)).checked_loss_weights(signals())


def test_loss_weights_are_float32_and_detached():
    given = torch.full((6,), 1 / 6, dtype=torch.float64, requires_grad=True)
    found = ready(returning("loss_weights", given)).checked_loss_weights(signals())
    assert found.dtype == torch.float32 and not found.requires_grad


class Fails(BaseMixer):
    """Fails where it is told to."""

    needs = frozenset({Sketch()})

    def __init__(self, where):
        self.where = where
        super().__init__()
        self.fail("__init__")

    def fail(self, here):
        if here == self.where:
            raise KeyError(here)

    def check(self, batch_size):
        self.fail("check")

    def initial_weights(self):
        self.fail("initial_weights")
        return super().initial_weights()

    def reset(self):
        self.fail("reset")

    def update(self, signals):
        self.fail("update")
        return self.weights

    def loss_weights(self, signals):
        self.fail("loss_weights")
        return super().loss_weights(signals)

    def needs_at(self, step, kind):
        self.fail("needs_at")
        return super().needs_at(step, kind)

    def diagnostics(self):
        self.fail("diagnostics")
        return {}

    def get_extra_state(self):
        self.fail("get_extra_state")
        return super().get_extra_state()

    def set_extra_state(self, state):
        self.fail("set_extra_state")
        super().set_extra_state(state)


@pytest.mark.parametrize(
    "method",
    [
        *("check", "initial_weights", "reset", "update", "loss_weights", "diagnostics"),
        *("get_extra_state", "set_extra_state"),
    ],
)
def test_the_method_the_moment_and_the_line_are_named(method):
    with pytest.raises(UserError) as caught:
        dry_run(ready(Fails(method)), 6)
    text = str(caught.value)
    assert f"Fails.{method} fails " in text and f"KeyError: '{method}'" in text
    assert "test_user_code.py:" in text and "raise KeyError(here)" in text
    assert isinstance(caught.value.__cause__, KeyError)


def test_constructors_and_later_calls_are_guarded_alike():
    failing = pytest.raises(UserError, match=r"Fails.__init__ fails before training")
    with failing, mixer_errors(Fails):
        Fails("__init__")
    mixer = ready(Fails("needs_at"))
    failing = pytest.raises(UserError, match=r"Fails.needs_at fails after 3 steps")
    with failing, mixer_errors(mixer, lambda: "after 3 steps"):
        mixer.needs_at(3, Sketch)


def test_a_method_of_other_arguments_and_an_exit_are_named():
    class Odd(BaseMixer):
        def update(self):
            return self.weights

    class Leaves(BaseMixer):
        def update(self, signals):
            raise SystemExit(0)

    with pytest.raises(UserError, match=r"Odd.update fails at step 1 in `def update\(self\):`"):
        ready(Odd()).step(signals())
    with pytest.raises(UserError, match=r"Leaves.update fails at step 1 .*SystemExit"):
        ready(Leaves()).step(signals())


def test_a_signal_that_was_not_asked_for_is_named():
    class Forgot(BaseMixer):
        def update(self, signals):
            return torch.softmax(signals.sketch.norm(dim=1), dim=0)

    with pytest.raises(UserError, match=r"signals.sketch is None unless .* needs hold Sketch\(\)"):
        ready(Forgot()).step(signals())


def test_errors_that_are_not_the_mixers_pass():
    for error in (MemoryError(), RuntimeError("DataLoader worker (pid 1) is killed"), KeyError(1)):
        with pytest.raises(type(error)), mixer_errors(BaseMixer()):
            raise error


def test_what_a_class_declares_is_checked():
    class NoSuper(BaseMixer):
        def __init__(self):
            self.scale = 1

    for given, message in (
        ({"needs": [Sketch]}, "needs is .*give a set such as"),
        ({"needs": {Sketch}}, "needs is"),
        ({"acts_on": {"sampling"}}, "acts_on is"),
        ({"not_saved": "cache"}, "not_saved is 'cache'"),
    ):
        with pytest.raises(UserError, match=f"M.{message}"):
            ready(type("M", (BaseMixer,), given)())
    with pytest.raises(UserError, match=r"NoSuper.__init__ does not call super\(\).__init__\(\)"):
        ready(NoSuper())
    with pytest.raises(UserError, match=r"M.diagnostics returned \{'a': 'b'\}: return numbers"):
        diagnostics_of(returning("diagnostics", {"a": "b"}))
    with pytest.raises(UserError, match=r"M.snapshot returned None: return a MixerSnapshot"):
        snapshot_of(returning("snapshot", None))


class InPlace(BaseMixer):
    """Does its arithmetic on the signals themselves."""

    def update(self, signals):
        signals.domain_loss -= signals.domain_loss.min()
        signals.domain.zero_()
        return torch.softmax(signals.domain_loss, dim=0)

    def loss_weights(self, signals):
        signals.sequence_loss -= signals.sequence_loss.mean()
        return torch.softmax(signals.sequence_loss, dim=0)


def test_what_a_mixer_does_to_its_signals_stays_with_it(caplog):
    mixer, losses = ready(InPlace()), torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    dry_run(mixer, 6)
    assert caplog.text == ""
    given = BatchSignals(0, torch.arange(6) % 3, losses.clone())
    weights = mixer.checked_loss_weights(given)
    assert torch.allclose(weights, torch.softmax(losses, dim=0))
    mixer.step(given)
    assert given.sequence_loss.tolist() == losses.tolist()
    assert given.domain.tolist() == [0, 1, 2, 0, 1, 2]
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), dim=0)
    assert torch.allclose(mixer.weights, expected)


def test_gradients_of_a_copy_are_its_own():
    numbers = TokenGradients(torch.zeros(1), torch.zeros(1, 2), torch.ones(1, 2, 3))
    given = BatchSignals(0, torch.zeros(1), torch.ones(1), token_gradients=numbers)
    given.copy().token_gradients.gradients.zero_()
    assert given.token_gradients.gradients.sum() == 6


@pytest.mark.parametrize("method", ["update", "loss_weights"])
def test_a_method_set_on_the_object_is_refused(method):
    mixer = BaseMixer()
    setattr(mixer, method, lambda signals: torch.tensor(EVEN))
    with pytest.raises(UserError, match=rf"BaseMixer\.{method} is set on the object"):
        ready(mixer)


def test_loss_weights_that_a_base_class_would_leave_uncalled_are_refused():
    def weigh(self, signals):
        return signals.even_weights()

    uncalled = type("Mine", (DoGEOnline,), {"loss_weights": weigh})
    with pytest.raises(UserError, match=r"since DoGEOnline\.acts_on leaves LOSS out"):
        ready(uncalled())
    both = {"loss_weights": weigh, "acts_on": {SAMPLING, LOSS}}
    assert ready(type("Mine", (DoGEOnline,), both)()).acts(LOSS)
    ready(DoGEOnline())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DoGEOnline, {"gradients": "sketches"}),
        (DoGraph, {"objective": "aligned"}),
        (DoGraph, {"spread": "median"}),
        (DoReMi, {"reference": "r.ckpt", "normalise": "papers"}),
        (DynamicLoss, {"strategy": "lin_upper"}),
        (ODM, {"estimate": "exp4"}),
    ],
)
def test_a_misspelt_choice_is_refused_in_ones_own_script_too(kind, settings):
    *_, (key, value) = settings.items()
    with pytest.raises(UserError, match=f"mixer.init_args.{key} is '{value}': it must be .* or "):
        kind(**settings)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({Probe(8, 2, ("books",)), Probe(4, 2, ("web",))}, "needs holds several Probe requests"),
        ({Sketch(), Sketch(across_steps=True)}, "needs holds several Sketch requests"),
        ({Sketch(), Probe(8, 2, ("books", "cod"))}, "Probe names 'cod', not a domain .*'code'"),
        ({Sketch(), Probe(8, 2, "code")}, "Probe names 'c', not a domain"),
    ],
)
def test_requests_of_which_a_part_would_be_dropped_are_refused(needs, message):
    with pytest.raises(UserError, match=message):
        ready(type("M", (BaseMixer,), {"needs": needs})())


class Keeps(BaseMixer):
    """Has methods put in by tests."""

    def update(self, signals):
        return self.weights


def set_up(kind):
    mixer = kind()
    mixer.setup(("a", "b"), (10, 10), 4)
    return mixer


def sets(name, value):
    def method(self, *_):
        setattr(self, name, value)
        return self.weights

    return method


@pytest.mark.parametrize("name", ["updates", "history", "trained", "target"])
@pytest.mark.parametrize("method", ["update", "reset"])
def test_names_that_the_framework_keeps_are_not_a_mixers_own(name, method):
    kind = type("M", (Keeps,), {method: sets(name, [7])})
    with pytest.raises(UserError, match=rf"M\.{method} sets self\.{name}, which BaseMixer keeps"):
        set_up(kind).step(BatchSignals(0, torch.tensor([0, 1]), torch.ones(2)))


def test_an_average_is_over_the_updates_whatever_a_mixer_counts():
    def update(self, signals):
        self.updated = getattr(self, "updated", 0) + 1
        return torch.eye(2)[signals.step]

    mixer = set_up(type("M", (Keeps,), {"update": update}))
    for step in range(2):
        mixer.step(BatchSignals(step, torch.tensor([0, 1]), torch.ones(2)))
    assert mixer.average_weights.tolist() == [0.5, 0.5]


def test_weights_to_draw_by_are_returned_not_set():
    def update(self, signals):
        self.sampling_weights.copy_(torch.tensor([0.9, 0.1]))
        return self.weights

    mixer = set_up(type("M", (Keeps,), {"update": update}))
    with pytest.raises(UserError, match=r"M\.update sets self\.sampling_weights at step 1"):
        mixer.step(BatchSignals(0, torch.tensor([0, 1]), torch.ones(2)))


@pytest.mark.parametrize(
    ("base", "name", "value", "message"),
    [
        (BaseMixer, "step", lambda self, signals: True, r"M\.step would change nothing"),
        (BaseMixer, "updates", lambda self, signals: None, "did you mean update"),
        (Keeps, "loss_weight", lambda self, signals: None, "did you mean loss_weights"),
        (Keeps, "initial_weight", lambda self: None, "did you mean initial_weights"),
        (Keeps, "update_every", 20, r"give it to super\(\)\.__init__\(update_every=…\)"),
        (Keeps, "floor", 0.5, r"M\.floor is set on the class"),
    ],
)
def test_what_nothing_would_call_or_read_is_refused(base, name, value, message):
    with pytest.raises(UserError, match=message):
        set_up(type("M", (base,), {name: value}))


@pytest.mark.parametrize("key", ["update_every", "warmup"])
def test_steps_are_whole_numbers(key):
    with pytest.raises(UserError, match=rf"mixer\.init_args\.{key} is 2\.5: it must be a whole"):
        BaseMixer(**{key: 2.5})


@pytest.mark.parametrize(("domains", "tokens"), [("aba", (1, 1, 1)), ("abc", (1, 1))])
def test_domains_are_told_apart_and_counted(domains, tokens):
    with pytest.raises(UserError, match="give each domain another name, and one number of tokens"):
        Keeps().setup(tuple(domains), tokens, 4)
