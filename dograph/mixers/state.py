"""A mixer's own state: attributes that change while training are saved without being named.

What a mixer sets in ``__init__`` or ``reset`` and never changes is configuration: a resumed run has
it from its recipe. What differs from that start is state, and goes into the checkpoint.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections import deque
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dograph.errors import UserError

KIND = "kind of sequence"
"""Key that marks an array, a deque or a tuple where only tensors, lists and mappings are saved."""


def start_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Copies to compare with later: values where they can be saved, else a fingerprint."""
    return {
        name: copy.deepcopy(value) if is_plain(value) else _fingerprint(value)
        for name, value in attributes.items()
        if not has_state(value)
    }


def changed_state(attributes: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """The state in plain tensors, numbers, lists and mappings: what differs from the start."""
    state: dict[str, Any] = {}
    for name, value in attributes.items():
        if has_state(value):
            state[name] = value.state_dict()
        elif is_plain(value) and not (name in start and same(value, start[name])):
            state[name] = to_plain(value)
    return state


def lost_attributes(attributes: Mapping[str, Any], start: Mapping[str, Any]) -> list[str]:
    """Names of attributes that differ from the start and cannot be saved."""
    return [
        name
        for name, value in attributes.items()
        if not has_state(value)
        and not is_plain(value)
        and not (name in start and start[name] == _fingerprint(value))
    ]


def restore_state(
    mixer: nn.Module, state: Mapping[str, Any], start: Mapping[str, Any], protected: Set[str]
) -> None:
    """Sets a mixer's attributes to what ``changed_state`` gave; all others to their start.

    Methods and the attributes named in ``protected`` are refused.
    """
    for name, value in start.items():
        if name not in state and is_plain(vars(mixer).get(name)):
            setattr(mixer, name, copy.deepcopy(value))
    for name, value in state.items():
        if name in protected or (hasattr(type(mixer), name) and name not in vars(mixer)):
            raise UserError(f"the checkpoint would replace {type(mixer).__name__}.{name}")
        fresh: Any = vars(mixer).get(name)
        if has_state(fresh):
            fresh.load_state_dict(value)
            continue
        restored = from_plain(value)
        if not _fits(restored, fresh):
            raise UserError(
                f"the checkpoint's {type(mixer).__name__}.{name} is a {type(restored).__name__}, "
                f"this mixer's a {type(fresh).__name__}: it is another mixer's checkpoint"
            )
        setattr(mixer, name, restored)


def is_plain(value: Any) -> bool:
    """Whether a value is tensors, arrays, numbers or texts, or lists and mappings of these."""
    if isinstance(value, list | tuple | deque):
        return all(is_plain(each) for each in value)
    if isinstance(value, dict):
        return all(type(key) in (str, int) and is_plain(each) for key, each in value.items())
    # A class of numbers of one's own would not be loaded again.
    return type(value) in (bool, int, float, str, Tensor, np.ndarray, type(None))


def has_state(value: Any) -> bool:
    """Whether a value saves and restores itself, as ``state_dict`` and ``load_state_dict``."""
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def same(first: Any, second: Any) -> bool:
    """Whether two plain values are equal to the bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, list | tuple | deque):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    both_nan = isinstance(first, float) and math.isnan(first) and math.isnan(second)
    return both_nan or bool(first == second)


def to_plain(value: Any) -> Any:
    """A plain value as checkpoints hold it; of tensors a copy, so that no view saves its base."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return {KIND: "array", "values": torch.from_numpy(value.copy())}
    if isinstance(value, list | tuple | deque):
        values = [to_plain(each) for each in value]
        if isinstance(value, list):
            return values
        most = getattr(value, "maxlen", None)
        return {KIND: type(value).__name__, "values": values, "most": most}
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    return value


def from_plain(value: Any) -> Any:
    """The value that ``to_plain`` was given."""
    if isinstance(value, list):
        return [from_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind, values = value.get(KIND), value.get("values")
    if kind == "array" and isinstance(values, Tensor):
        return values.numpy().copy()
    if kind == "deque" and isinstance(values, list):
        return deque((from_plain(each) for each in values), maxlen=value.get("most"))
    if kind == "tuple" and isinstance(values, list):
        return tuple(from_plain(each) for each in values)
    return {key: from_plain(each) for key, each in value.items()}


def _fits(value: Any, fresh: Any) -> bool:
    """Whether a restored value can take the place of a fresh mixer's; None can become anything."""
    numbers = (bool, int, float)
    both_numbers = type(value) in numbers and type(fresh) in numbers
    return value is None or fresh is None or type(value) is type(fresh) or both_numbers


def _fingerprint(value: Any) -> Any:
    """What changes with a value that cannot be saved."""
    try:
        return pickle.dumps(value)
    except Exception:  # a function or a lock: it is what it is
        return id(value)
