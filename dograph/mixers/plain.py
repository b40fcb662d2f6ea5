"""A mixer's values in the plain form that checkpoints hold: tensors, numbers, texts, lists, dicts.

Loading the plain form executes no code. What else a value is (an array, a deque, a generator of
random numbers) is told by a mark, and only the kinds listed here are built from one. An object that
is found in two places is one object again once restored.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

KIND = "kind of value"
"""Key that marks what is more than a tensor, a number, a text, a list or a mapping."""
SCALARS = (bool, int, float, complex, str, bytes, type(None))
SEQUENCES: dict[str, type] = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)}
MAPPINGS: dict[str, type] = {
    kind.__name__: kind for kind in (dict, OrderedDict, Counter, defaultdict)
}
FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (int, float, list, dict, set)}
"""What a ``defaultdict`` may make."""
BITS: dict[str, type] = {
    name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
}
"""numpy's sources of random bits."""
RANDOM = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_NUMERIC = "biufc"
"""Kinds of numpy's types that torch can hold, except those of extended precision."""
_EXTENDED = "gG"


def is_plain(value: Any) -> bool:
    """Whether ``to_plain`` takes a value. Subclasses are not: they could not be built again."""
    kind = type(value)
    if kind in SEQUENCES.values():
        return all(map(is_plain, value))
    if kind in MAPPINGS.values():
        makes = getattr(value, "default_factory", None)
        known = makes is None or makes in FACTORIES.values()
        return known and all(_is_key(key) and is_plain(each) for key, each in value.items())
    if kind is np.ndarray or isinstance(value, np.generic):
        dtype = value.dtype
        return dtype.kind in _NUMERIC and dtype.char not in _EXTENDED and dtype.isnative
    return kind in (*SCALARS, Tensor) or is_random(value)


def is_random(value: Any) -> bool:
    """Whether a value is a generator of random numbers that can be saved."""
    if type(value) is np.random.Generator:
        return type(value.bit_generator) in BITS.values()
    return type(value) in RANDOM


def to_plain(value: Any, memo: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """A value in plain form; of tensors and arrays a copy, so that no view saves its base.

    ``memo`` holds what has been converted, by identity.
    """
    memo = {} if memo is None else memo
    if type(value) in SCALARS:
        return value
    if id(value) not in memo:
        memo[id(value)] = value, _converted(value, memo)
    return memo[id(value)][1]


def _converted(value: Any, memo: dict[int, tuple[Any, Any]]) -> Any:
    kind = type(value)
    if kind in SEQUENCES.values():
        values = [to_plain(each, memo) for each in value]
        most = {"most": value.maxlen} if kind is deque else {}
        return values if kind is list else {KIND: kind.__name__, "values": values, **most}
    if kind in MAPPINGS.values():
        return _converted_mapping(value, memo)
    if isinstance(value, Tensor):
        copied = value.detach().clone()
        on = copied.device.type
        return copied if on == "cpu" else {KIND: "tensor", "values": copied, "device": on}
    if isinstance(value, np.ndarray | np.generic):
        name = "array" if kind is np.ndarray else "number"
        return {KIND: name, "values": torch.from_numpy(np.array(value))}
    return {KIND: "random", "values": random_state_of(value)}


def _converted_mapping(value: dict[Any, Any], memo: dict[int, tuple[Any, Any]]) -> dict[Any, Any]:
    if type(value) is dict and KIND not in value and all(type(key) in (str, int) for key in value):
        return {key: to_plain(each, memo) for key, each in value.items()}
    items = [[to_plain(key), to_plain(each, memo)] for key, each in value.items()]
    makes = getattr(value, "default_factory", None)
    return {KIND: type(value).__name__, "values": items, "makes": makes and makes.__name__}


def from_plain(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """The value that ``to_plain`` was given.

    Raises:
        ValueError, TypeError, RuntimeError, LookupError: for what it did not make.
    """
    memo = {} if memo is None else memo
    if not isinstance(value, list | dict):
        return value
    if id(value) not in memo:
        memo[id(value)] = _restored(value, memo)
    return memo[id(value)]


def _restored(value: list[Any] | dict[Any, Any], memo: dict[int, Any]) -> Any:
    if isinstance(value, list):
        return [from_plain(each, memo) for each in value]
    kind = value.get(KIND)
    if not isinstance(kind, str):
        return {key: from_plain(each, memo) for key, each in value.items()}
    if kind in _LEAVES:
        return _LEAVES[kind](value)
    values = value["values"]
    if kind in SEQUENCES:
        most = [value["most"]] if kind == "deque" else []
        return SEQUENCES[kind]((from_plain(each, memo) for each in values), *most)
    items = {from_plain(key, memo): from_plain(each, memo) for key, each in values}
    makes = [value["makes"] and FACTORIES[value["makes"]]] if kind == "defaultdict" else []
    return MAPPINGS[kind](*makes, items)


def _on_its_device(value: dict[Any, Any]) -> Tensor:
    """A tensor on its kind of device, if this machine has one."""
    tensor: Tensor = value["values"]
    there = getattr(torch, str(value["device"]), None)
    return tensor.to(value["device"]) if there and there.is_available() else tensor


def same(first: Any, second: Any) -> bool:
    """Whether two plain forms are equal to the bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        alike = first.dtype == second.dtype and first.device == second.device
        return alike and torch.equal(first, second)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    both_nan = isinstance(first, float) and math.isnan(first) and math.isnan(second)
    return both_nan or bool(first == second)


def random_state_of(generator: Any) -> dict[str, Any]:
    """The state of a generator, or of the module ``random`` or ``numpy.random``, in plain form."""
    if isinstance(generator, torch.Generator):
        return {"of": "torch", "device": generator.device.type, "state": generator.get_state()}
    if isinstance(generator, np.random.Generator):
        return {"of": "numpy", "state": to_plain(dict(generator.bit_generator.state))}
    if hasattr(generator, "getstate"):
        version, words, gauss = generator.getstate()
        return {"of": "Random", "version": version, "words": list(words), "gauss": gauss}
    return {"of": "RandomState", "state": to_plain(generator.get_state(legacy=False))}


def random_from(state: dict[str, Any]) -> Any:
    """A new generator in the state that ``random_state_of`` gave."""
    if state["of"] == "torch":
        generator: Any = torch.Generator(state["device"])
    elif state["of"] == "numpy":
        generator = np.random.Generator(BITS[state["state"]["bit_generator"]]())
    else:
        generator = {"Random": random.Random, "RandomState": np.random.RandomState}[state["of"]]()
    set_random_state_of(generator, state)
    return generator


def set_random_state_of(generator: Any, state: dict[str, Any]) -> None:
    """Put a generator or module of the same kind into a state that ``random_state_of`` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state["state"])
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = from_plain(state["state"])
    elif hasattr(generator, "setstate"):
        generator.setstate((state["version"], tuple(state["words"]), state["gauss"]))
    else:
        generator.set_state(from_plain(state["state"]))


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(map(_is_key, key))
    return type(key) in SCALARS


_LEAVES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "tensor": _on_its_device,
    "array": lambda value: value["values"].numpy().copy(),
    "number": lambda value: value["values"].numpy()[()],
    "random": lambda value: random_from(value["values"]),
}
"""How what holds no other values is restored."""
