"""What a mixer declares and shows, checked: a user's class may hold anything."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from torch import nn

from dograph.errors import UserError
from dograph.mixers.snapshot import MixerSnapshot
from dograph.signals.batch_signals import Request


class Acts(Enum):
    """Where a mixer acts."""

    SAMPLING = "sampling"
    """On what is drawn, between batches."""
    LOSS = "loss"
    """On how the batch at hand counts, before its backward."""


KEPT = (
    *("delay", "domains", "domain_tokens", "history", "limits", "target", "token_budget"),
    *("trained", "updates", "validation_loss"),
)
"""Attributes of a mixer that only the framework sets."""
METHODS = (
    *("update", "loss_weights", "initial_weights", "default_prior"),
    *("reset", "check", "diagnostics", "snapshot"),
)
"""Of a mixer, that a subclass may override."""
ARGUMENTS = ("update_every", "warmup", "prior", "floor")
"""Of ``BaseMixer.__init__``, which sets them on the object."""
SAMPLING, LOSS = Acts.SAMPLING, Acts.LOSS


def check_declared(mixer: nn.Module) -> None:
    """Raises UserError for a mixer that is not initialised, or declares what nobody understands."""
    name = type(mixer).__name__
    if "domain_tokens" not in vars(mixer):
        raise UserError(f"{name}.__init__ does not call super().__init__(): call it first")
    for attribute, kind, example in (
        ("acts_on", Acts, "{SAMPLING}"),
        ("needs", Request, "{Sketch()}"),
        ("not_saved", str, '{"cache"}'),
    ):
        value: Any = getattr(mixer, attribute)
        is_set = isinstance(value, set | frozenset)
        if not is_set or not all(isinstance(each, kind) for each in value):
            raise UserError(f"{name}.{attribute} is {value!r}: give a set such as {example}")
    kinds = [type(request).__name__ for request in mixer.needs]  # type: ignore[union-attr]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise UserError(f"{name}.needs holds several {twice[0]} requests: make one of them")
    _check_methods(mixer)


@contextmanager
def framework_names_kept(mixer: nn.Module, method: str) -> Iterator[None]:
    """Raises UserError if a mixer's method sets an attribute that the framework keeps."""
    before = {name: getattr(mixer, name) for name in KEPT}
    points = len(before["history"])
    yield
    changed = [name for name, value in before.items() if getattr(mixer, name) is not value]
    if len(before["history"]) != points:
        changed.append("history")
    if changed:
        raise UserError(
            f"{type(mixer).__name__}.{method} sets self.{changed[0]}, which BaseMixer keeps: "
            "choose another name"
        )


def _check_methods(mixer: nn.Module) -> None:
    """Raises UserError for methods that nothing would call, or whose results nothing would use."""
    kind, name = type(mixer), type(mixer).__name__
    for method in ("update", "loss_weights"):
        if method in vars(mixer):
            raise UserError(
                f"{name}.{method} is set on the object, where it would not be called: define it in "
                "the class"
            )
    steps, updates = (
        [each for each in kind.__mro__ if method in vars(each)] for method in ("step", "update")
    )
    if len(updates) == 1 and steps != updates:  # BaseMixer's own
        raise UserError(
            f"{name}.step would change nothing that is drawn: define update(signals) in its place, "
            "and return the weights"
        )
    _check_spelling(kind, updates[-1])
    for attribute in ARGUMENTS:
        if any(attribute in vars(each) for each in kind.__mro__):
            raise UserError(
                f"{name}.{attribute} is set on the class, where BaseMixer does not read it: give "
                f"it to super().__init__({attribute}=…)"
            )
    acts: Any = mixer.acts_on
    if "acts_on" in vars(mixer) or LOSS in acts:
        return
    declares, weighs = (
        next(each for each in kind.__mro__ if attribute in vars(each))
        for attribute in ("acts_on", "loss_weights")
    )
    if weighs is not declares and issubclass(weighs, declares):
        raise UserError(
            f"{weighs.__name__}.loss_weights would not be called, since "
            f"{declares.__name__}.acts_on leaves LOSS out: set acts_on = {{SAMPLING, LOSS}} in the "
            "class"
        )


def _check_spelling(kind: type, base: type) -> None:
    """Raises UserError for a method that is called by nothing and nearly named as one that is."""
    own = kind.__mro__[: kind.__mro__.index(base)]
    named = {name for each in own for name, value in vars(each).items() if callable(value)}
    for name in sorted(named - set(dir(base))):
        meant = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.85)
        if meant and meant[0] not in named:
            raise UserError(
                f"{kind.__name__}.{name} is called by nothing: did you mean {meant[0]}? Rename it"
            )


def diagnostics_of(mixer: Any) -> dict[str, float]:
    """What a mixer's ``diagnostics`` returns; UserError unless it is numbers by name."""
    given = mixer.diagnostics()
    try:
        return {str(key): float(value) for key, value in given.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        name = type(mixer).__name__
        raise UserError(f"{name}.diagnostics returned {given!r}: return numbers by name") from error


def snapshot_of(mixer: Any) -> MixerSnapshot:
    """What a mixer's ``snapshot`` returns; UserError unless it is a ``MixerSnapshot``."""
    given = mixer.snapshot()
    if not isinstance(given, MixerSnapshot):
        name = type(mixer).__name__
        raise UserError(f"{name}.snapshot returned {given!r}: return a MixerSnapshot")
    return given
