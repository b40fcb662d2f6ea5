"""A mixer's own state: attributes that change while training are saved without being named.

What a mixer sets in ``__init__`` or ``reset`` and never changes is configuration: a resumed run has
it from its recipe. What differs from that start is state, and goes into the checkpoint.
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Iterator, Mapping, Set
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.mixers.plain import (
    KIND,
    MAPPINGS,
    SEQUENCES,
    from_plain,
    is_plain,
    is_random,
    random_state_of,
    same,
    set_random_state_of,
    to_plain,
)

_SHAPES = (*SEQUENCES.values(), *MAPPINGS.values(), Tensor, np.ndarray, np.generic)
_NUMBERS = (bool, int, float, complex)
_ABSENT = object()
_unequal = itertools.count()


def start_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What to compare with later: the plain form where there is one, else a fingerprint."""
    return {
        name: to_plain(value) if is_plain(value) else fingerprint(value)
        for name, value in attributes.items()
        if not has_state(value)
    }


def changed_state(
    attributes: Mapping[str, Any], start: Mapping[str, Any], buffers: Mapping[str, Tensor | None]
) -> dict[str, Any]:
    """The state in plain form: what differs from the start.

    An attribute that is one of the mixer's ``buffers`` under another name is saved as that name.
    """
    state: dict[str, Any] = {}
    memo: dict[int, tuple[Any, Any]] = {}
    names = {id(buffer): name for name, buffer in buffers.items() if buffer is not None}
    for name, value in attributes.items():
        if has_state(value):
            state[name] = value.state_dict()
        elif id(value) in names and names[id(value)] != name:
            state[name] = {KIND: "buffer", "name": names[id(value)]}
        elif is_plain(value):
            saved = to_plain(value, memo)
            if not (name in start and same(saved, start[name])):
                state[name] = saved
    return state


def changed_attributes(attributes: Mapping[str, Any], start: Mapping[str, Any]) -> list[str]:
    """Names of attributes that differ from the start."""
    now = start_of(attributes)
    return [name for name, value in now.items() if not _alike(value, start.get(name, _ABSENT))]


def lost_attributes(attributes: Mapping[str, Any], start: Mapping[str, Any]) -> list[str]:
    """Names of attributes that differ from the start and cannot be saved."""
    unsaved = {name: value for name, value in attributes.items() if not is_plain(value)}
    return changed_attributes(unsaved, start)


def restore_state(
    mixer: Any, state: Mapping[str, Any], start: Mapping[str, Any], protected: Set[str]
) -> None:
    """Sets a mixer's attributes to what ``changed_state`` gave; all others to their start.

    A problem that a mixer solves may take its place. Methods and the attributes named in
    ``protected`` are refused.
    """
    for name, value in start.items():
        now = vars(mixer).get(name)
        if name not in state and is_plain(now) and not same(to_plain(now), value):
            setattr(mixer, name, from_plain(value))
    memo: dict[int, Any] = {}
    for name, value in state.items():
        if name in protected or (hasattr(type(mixer), name) and name not in vars(mixer)):
            raise UserError(f"the checkpoint would replace {type(mixer).__name__}.{name}")
        fresh: Any = getattr(mixer, name, None)
        if has_state(fresh):
            fresh.load_state_dict(value)
            continue
        if isinstance(value, dict) and value.get(KIND) == "buffer":
            setattr(mixer, name, mixer.get_buffer(value["name"]))
            continue
        restored = from_plain(value, memo)
        if not _fits(restored, fresh):
            raise UserError(
                f"the checkpoint's {type(mixer).__name__}.{name} is a {type(restored).__name__}, "
                f"this mixer's a {type(fresh).__name__}: it is another mixer's checkpoint"
            )
        _put(mixer, name, restored, fresh)


def _put(mixer: Any, name: str, restored: Any, fresh: Any) -> None:
    """Sets an attribute; in place where others may hold the same object."""
    if is_random(fresh) and type(fresh) is type(restored):
        set_random_state_of(fresh, random_state_of(restored))
    elif isinstance(fresh, Tensor) and fresh.requires_grad and isinstance(restored, Tensor):
        with torch.no_grad():  # an optimiser of the mixer's own steps it
            fresh.copy_(restored)
    else:
        setattr(mixer, name, restored)


def has_state(value: Any) -> bool:
    """Whether a value saves and restores itself, as ``state_dict`` and ``load_state_dict``."""
    own = hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
    return own and not isinstance(value, type)


def _fits(value: Any, fresh: Any) -> bool:
    """Whether a restored value can take the place of a fresh mixer's.

    Numbers, arrays and what holds them may replace one another; None can become anything.
    """
    if value is None or fresh is None or type(value) is type(fresh):
        return True
    return all(isinstance(each, (*_NUMBERS, *_SHAPES)) for each in (value, fresh))


def _alike(first: Any, second: Any) -> bool:
    try:
        return same(first, second)
    except (TypeError, ValueError, RuntimeError):
        return False


def fingerprint(value: Any, depth: int = 8) -> Any:
    """What changes with a value that has no plain form, as far as that can be told.

    An iterator's never equals another: nobody can tell how far it is without moving it.
    """
    if isinstance(value, Iterator):
        return next(_unequal)
    if isinstance(value, FunctionType) and depth:
        return [id(value), [fingerprint_of(each, depth - 1) for each in held_by(value).values()]]
    if isinstance(value, partial) and depth:
        parts = (value.func, *value.args, *value.keywords.values())
        return [fingerprint_of(part, depth - 1) for part in parts]
    try:
        return _pickled(value)
    except Exception:  # a lock or an object that holds a function
        inside = getattr(value, "__dict__", None)
        if not isinstance(inside, dict) or isinstance(value, type) or not depth:
            return id(value)
        return [id(value), [fingerprint_of(each, depth - 1) for each in inside.values()]]


class _WithoutMixers(pickle.Pickler):
    """Leaves out the mixer, which helpers and bound methods may point back to."""

    def persistent_id(self, value: Any) -> str | None:
        """A name for what is left out."""
        return "mixer" if isinstance(value, nn.Module) and hasattr(value, "acts_on") else None


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    _WithoutMixers(file).dump(value)
    return file.getvalue()


def fingerprint_of(value: Any, depth: int = 8) -> Any:
    """The plain form where there is one, else ``fingerprint``."""
    return to_plain(value) if is_plain(value) else fingerprint(value, depth)


def held_by(function: FunctionType) -> dict[str, Any]:
    """Values that a function keeps between two calls: its closure's and its defaults, by name."""
    code = function.__code__
    held = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # still empty
            continue
    held.pop("__class__", None)
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    held |= dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    return held | (function.__kwdefaults__ or {})
