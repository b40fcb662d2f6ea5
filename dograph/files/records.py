"""Dataclasses read back from JSON that may be damaged, or a stranger's: each value of its type."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def from_dict(kind: type[Record], content: Any) -> Record:
    """A dataclass from a mapping of its fields.

    Args:
        kind: whose fields are int, float, str, None, records, or dicts and tuples of these.
        content: as JSON gives it; an int stands for a float, too, a list for a tuple.

    Raises:
        TypeError: for a field that is missing, unknown or of another type.
    """
    hints = get_type_hints(kind)
    if not isinstance(content, Mapping):
        raise TypeError(f"{kind.__name__} is a {type(content).__name__}")
    values = {
        name: _as(hints[name], value, name) for name, value in content.items() if name in hints
    }
    return kind(**{**content, **values})


def _as(hint: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return (
            None if value is None else _as(next(t for t in inner if t is not NoneType), value, name)
        )
    if origin is dict and isinstance(value, dict):
        return {_as(inner[0], key, name): _as(inner[1], each, name) for key, each in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_as(inner[0], each, name) for each in value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (int, str) and type(value) is hint:
        return value
    if hasattr(hint, "__dataclass_fields__"):
        return from_dict(hint, value)
    raise TypeError(f"{name} is {value!r:.80}")
