"""Untrusted or damaged JSON as dataclasses: every value has its field's type and range."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dograph.errors import check_range
from dograph.files.strict_json import shown

Record = TypeVar("Record")

Count = Annotated[int, functools.partial(check_range, at_least=0, at_most=2**60)]
"""A field that counts something."""

_EXPECTED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def from_dict(kind: type[Record], content: Any, key: str = "") -> Record:
    """Build a dataclass from a mapping of its fields.

    Args:
        kind: dataclass with fields of type int, float, str, bool, ``Any``, dataclass, ``Literal``,
            list, tuple or dict of these, or one of these and None. ``Annotated[TYPE, check]`` calls
            ``check(key, value)``, which raises a ``ValueError`` for a wrong value.
        content: parsed JSON; an int is a valid float and a list a valid tuple.
        key: where the content stands in its file; errors begin with it.

    Raises:
        ValueError: naming the full key and value of a missing, unknown or wrong field.

    >>> from dataclasses import make_dataclass
    >>> from_dict(make_dataclass("Chunk", [("tokens", Count)]), {"tokens": -1}, "chunks[0]")
    Traceback (most recent call last):
    dograph.errors.UserError: chunks[0].tokens is -1: it must be ≥ 0 and ≤ 1152921504606846976
    """
    if not isinstance(content, Mapping):
        raise _wrong(key or "the content", content, "an object")
    hints, required = _schema(kind)  # type: ignore[arg-type]
    if missing := required - content.keys():
        raise ValueError(f"{key or 'the content'} lacks the key {shown(min(missing))}")
    if unknown := content.keys() - hints.keys():
        raise ValueError(f"{key or 'the content'} has the unknown key {shown(min(unknown))}")
    before = f"{key}." if key else ""
    return kind(**{name: _read(hints[name], content[name], before + name) for name in content})


@functools.cache
def _schema(kind: type) -> tuple[dict[str, Any], set[str]]:
    """Types of a dataclass's fields, and the names of those without a default."""
    required = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }
    return get_type_hints(kind, include_extras=True), required


def _read(hint: Any, value: Any, key: str) -> Any:
    reader = _READERS.get(get_origin(hint))
    if reader is not None:
        return reader(hint, value, key)
    if is_dataclass(hint):
        return from_dict(hint, value, key)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _wrong(key, value, "smaller") from None
    if hint is not Any and type(value) is not hint:
        raise _wrong(key, value, _EXPECTED[hint])
    return value


def _read_annotated(hint: Any, value: Any, key: str) -> Any:
    inner, *checks = get_args(hint)
    checked = _read(inner, value, key)
    for check in checks:
        check(key, checked)
    return checked


def _read_optional(hint: Any, value: Any, key: str) -> Any:
    inner = next(option for option in get_args(hint) if option is not NoneType)
    return None if value is None else _read(inner, value, key)


def _read_literal(hint: Any, value: Any, key: str) -> Any:
    options = get_args(hint)
    if not any(type(value) is type(option) and value == option for option in options):
        raise _wrong(key, value, " or ".join(map(repr, options)))
    return value


def _read_list(hint: Any, value: Any, key: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(key, value, "a list")
    inner = get_args(hint)[0]
    entries = [_read(inner, entry, f"{key}[{place}]") for place, entry in enumerate(value)]
    return get_origin(hint)(entries)


def _read_mapping(hint: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(key, value, "an object")
    names, inner = get_args(hint)
    return {
        _read(names, name, key): _read(inner, entry, f"{key}[{shown(name)}]")
        for name, entry in value.items()
    }


_READERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    Annotated: _read_annotated,
    Union: _read_optional,
    UnionType: _read_optional,
    Literal: _read_literal,
    list: _read_list,
    tuple: _read_list,
    dict: _read_mapping,
}


def _wrong(key: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{key} is {shown(value)}: it must be {expected}")
