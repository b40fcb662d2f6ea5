"""What a mixer declares and shows, checked: a user's class may hold anything."""

from __future__ import annotations

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
