"""Which attributes of an object a method reads, and whether they have changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable
from typing import Any, TypeVar

Object = TypeVar("Object")


def noting_copy(value: Object) -> tuple[Object, set[str]]:
    """A shallow copy of an object, and a set that gets the attributes read of it from now on."""
    read: set[str] = set()
    kind: Any = type(value)

    class Noting(kind):  # a subclass, so that super() works in its methods
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    Noting.__name__, Noting.__qualname__ = kind.__name__, kind.__qualname__
    copied: Any = copy.copy(value)
    copied.__class__ = Noting
    return copied, read


def fingerprints(value: object, names: Iterable[str]) -> dict[str, Any]:
    """What changes with those attributes of an object that are its own, not its class's."""
    own = vars(value)
    return {name: _fingerprint(own[name]) for name in names if name in own}


def _fingerprint(value: Any) -> Any:
    try:
        return pickle.dumps(value)
    except Exception:  # a lock, a lambda or a cvxpy expression: another object is another value
        return id(value)
