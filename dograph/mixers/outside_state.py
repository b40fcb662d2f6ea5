"""What a mixer's code keeps outside of the mixer: on classes, in modules, in closures and defaults.

No checkpoint holds it, so it must not change while training.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from dograph.graph.cvxpy_problem import CvxpyProblem
from dograph.mixers.state import held_by

OURS = "dograph."
"""Start of the names of modules whose code keeps nothing outside of its mixers."""


def outside_state(mixer: nn.Module) -> dict[str, Any]:
    """Values by what a message calls them: what the mixer's own code may read and change."""
    values: dict[str, Any] = {}
    visited: set[int] = set()
    for kind in (each for part in _parts(mixer) for each in own_classes(type(part))):
        for name, value in vars(kind).items():
            function = _function(value)
            if function is not None:
                _add_function(function, f"{kind.__name__}.{name}", values, visited)
            elif not name.startswith("__") and _holds_values(value):
                values[f"{kind.__name__}.{name} (of the class)"] = value
    return values


def _parts(mixer: nn.Module) -> Iterator[object]:
    """The mixer, mixers within it, and the problems of one's own that they solve."""
    for part in (each for each in mixer.modules() if hasattr(each, "acts_on")):
        yield part
        yield from (each for each in vars(part).values() if isinstance(each, CvxpyProblem))


def own_classes(kind: type) -> Iterator[type]:
    """A mixer's class and its bases, but those of this package and below."""
    for each in kind.__mro__:
        outside = not each.__module__.startswith(OURS)
        if outside and each not in (object, nn.Module):
            yield each


def own_functions(kind: type) -> dict[str, FunctionType]:
    """The functions of a mixer's class and its bases that are not this package's, by name."""
    functions: dict[str, FunctionType] = {}
    for each in own_classes(kind):
        for name, value in vars(each).items():
            function = _function(value)
            if function is not None:
                functions.setdefault(name, function)
    return functions


def _add_function(
    function: FunctionType, where: str, values: dict[str, Any], visited: set[int]
) -> None:
    """Adds what a function keeps, and the global names that it and its helpers use."""
    if id(function) in visited:
        return
    visited.add(id(function))
    held = {f"{name} (kept by {where})": value for name, value in held_by(function).items()}
    module = function.__globals__
    for name in _names(function.__code__):
        if name in module:
            held[f"{name} (of the module {module.get('__name__')})"] = module[name]
    for name, value in held.items():
        helper = _function(value)
        if helper is not None:
            if helper.__module__ == function.__module__:
                _add_function(helper, helper.__qualname__, values, visited)
        elif _holds_values(value):
            values[name] = value


def _names(code: CodeType) -> Iterator[str]:
    """Global names and attributes that a function's code uses, inner functions included."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _function(value: Any) -> FunctionType | None:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, FunctionType) else None


def _holds_values(value: Any) -> bool:
    """Whether a value may change; types, modules and what is built in do not, files may be read."""
    passive = isinstance(value, type | ModuleType | nn.Module | io.IOBase)
    return not passive and not inspect.isroutine(value)
