"""One section of a recipe: its keys and values against the signature of what it builds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import is_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dograph.errors import UserError, nearest
from dograph.experiments.recipe.classes import check_classes
from dograph.experiments.recipe.compose import Composition


def check_section(
    composition: Composition, key: str, builds: type, given: Any, skip: set[str]
) -> Namespace:
    """Check that the section ``key`` fits a class's signature, and fill in its defaults.

    A recipe cannot set the arguments in ``skip``.
    """
    if not isinstance(given, Mapping):
        raise composition.error(key, f"must be a mapping, got {given!r}")
    if key == "trainer":
        check_classes(given, f"{composition.origin(key)}: {key}")
    hints = _hints(composition, key, builds)
    try:
        parser = section_parser(builds, skip)
    except ValueError as error:  # an argument without a type
        raise _wrong_signature(composition, key, builds, error) from error
    known = parser.get_defaults().get("section", Namespace())
    for name in skip.intersection(given):
        why = ": a run is one epoch of trainer.max_steps steps" if key == "trainer" else ""
        raise composition.error(f"{key}.{name}", f"cannot be set in a recipe{why}")
    for path, choices in unknown_keys(given, known):
        raise unknown_key(composition, f"{key}.{path}", choices)
    for name, value in given.items():
        if isinstance(known.get(name), Namespace) and not isinstance(value, Mapping):
            raise composition.error(f"{key}.{name}", f"is {value!r}: it must be a mapping")
    _check_nulls(composition, key, hints, given)
    _check_dots(composition, key, hints, given)
    if not vars(known):
        return known
    try:
        # A copy: the parser would put its own objects into the recipe's lists.
        section = parser.parse_object({"section": deepcopy(dict(given))}).section
    except ArgumentError as error:
        raise _wrong_value(composition, key, error) from error
    _keep_integers(section, hints, given)
    return section


def _keep_integers(section: Namespace, hints: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Undo that the parser made 1, a batch, 1.0, all batches, where a type takes both.

    It tries a union's types in their order. Typing takes ``Union[int, float]`` and the reverse for
    one, so that the order is that of whichever module was imported first.
    """
    for name, value in given.items():
        if (
            type(value) is int
            and isinstance(section[name], float)
            and int in _members(hints.get(name))
        ):
            section[name] = value


def _members(hint: Any) -> Iterator[Any]:
    """The types of a union, at any depth; of another type, itself."""
    yield hint
    for inner in get_args(hint):
        yield from _members(inner)


def section_parser(builds: type, skip: set[str]) -> ArgumentParser:
    """A parser of a class's arguments, nested under "section"; it never builds the class itself."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(builds, nested_key="section", skip=skip, instantiate=False)
    return parser


def build(
    composition: Composition, key: str, builds: Callable[..., Any], arguments: dict[str, Any]
) -> Any:
    """Call a class or function with a section's values; report a value it refuses with its file."""
    try:
        return builds(**arguments)
    except UserError as error:
        named = str(error).split(" ", 1)[0].rstrip(":")
        origin = composition.origin(named if named.startswith(f"{key}.") else key)
        raise UserError(f"{origin}: {error}") from error


def unknown_keys(given: Mapping[str, Any], known: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Dotted keys of ``given`` that ``known`` lacks, each with the keys that it might have been."""
    choices = list(vars(known))
    for key, value in given.items():
        if key not in choices:
            yield str(key), choices
        elif isinstance(vars(known)[key], Namespace) and isinstance(value, Mapping):
            for path, inner in unknown_keys(value, vars(known)[key]):
                yield f"{key}.{path}", inner


def unknown_key(composition: Composition, key: str, choices: Sequence[str]) -> UserError:
    """The error for an unknown dotted key: its file and the nearest spelling or all choices."""
    word = key.rpartition(".")[2]
    hint = nearest(word, choices) or f"; known keys: {', '.join(sorted(choices)) or 'none'}"
    return UserError(f"{composition.origin(key)}: unknown key {key!r}{hint}")


def _hints(composition: Composition, key: str, builds: type) -> dict[str, Any]:
    """The types of a class's arguments; UserError for one that is not defined where it is named."""
    constructor: Any = builds if is_dataclass(builds) else getattr(builds, "__init__")  # noqa: B009
    try:
        return get_type_hints(constructor)
    except Exception as error:  # whatever evaluating the user's text raises
        undefined = filter(partial(_is_undefined, builds), constructor.__annotations__)
        wrong = next(undefined, "…")
        text = f"has a type in {builds.__name__}.__init__ that is not defined ({error})"
        remedy = "import it in the module of the class, and not only for type checkers"
        raise composition.error(f"{key}.{wrong}", f"{text}: {remedy}") from error


def _is_undefined(builds: type, name: str) -> bool:
    """Whether an argument's type cannot be evaluated."""
    constructor: Any = getattr(builds, "__init__")  # noqa: B009
    alone = SimpleNamespace(__annotations__={name: constructor.__annotations__[name]})
    try:
        get_type_hints(alone, constructor.__globals__)
    except Exception:
        return True
    return False


def _wrong_signature(
    composition: Composition, key: str, builds: type, error: ValueError
) -> UserError:
    named = re.search(r"Parameter '(\w+)'", str(error))
    if named is None:
        return composition.error(key, f"{builds.__name__}.__init__: {error}")
    text = f"has no type in {builds.__name__}.__init__: write one, e.g. `{named[1]}: float`"
    return composition.error(f"{key}.{named[1]}", text)


def _check_nulls(
    composition: Composition, key: str, hints: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raise UserError for a null where the class takes none; jsonargparse lets it pass."""
    for name, value in given.items():
        hint = hints.get(name, Any)
        if value is None and hint is not Any and type(None) not in get_args(hint):
            raise composition.error(f"{key}.{name}", "is null: leave it out, or give it a value")
        if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
            inner = f"{key}.{name}"
            _check_nulls(composition, inner, _hints(composition, inner, hint), value)


def _check_dots(
    composition: Composition, key: str, hints: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raise UserError for a name with a dot that an override has split into keys."""
    for name, value in given.items():
        depths = [_depth(each) for each in _members(hints.get(name)) if get_origin(each) is dict]
        depth = max(depths, default=math.inf)
        split = None if depth == math.inf else _too_deep(value, int(depth))
        if split is not None:
            path, last = split
            shown = str(last).replace("'", "")  # quotes are around it already
            level = int(depth) - 1
            *outer, domain = (*path[:level], ".".join(path[level:]))
            to = ".".join((f"{key}.{name}", *outer))
            raise composition.error(
                ".".join((key, name, *path[:1])),
                f"has keys of its own: for the name {domain!r} write {to}='{{{domain}: {shown}}}'",
            )


def _depth(hint: Any) -> float:
    """How many names lead to a value of mappings in mappings; any number, where any value may."""
    if hint is Any:
        return math.inf
    return 1 + _depth(get_args(hint)[1]) if get_origin(hint) is dict else 0


def _too_deep(value: Any, depth: int) -> tuple[list[str], Any] | None:
    """The keys to the first value below more than ``depth`` mappings, and it; None without one."""
    if not isinstance(value, Mapping):
        return ([], value) if depth < 0 else None
    for name, inner in value.items():
        if below := _too_deep(inner, depth - 1):
            return [str(name), *below[0]], below[1]
    return None


def _wrong_value(composition: Composition, section: str, error: ArgumentError) -> UserError:
    text, key = str(error), section
    if named := re.search(r'Parser key "section\.([^"]*)', text):
        key, text = f"{section}.{named[1]}", text.split(":", 1)[1]
    reason = " ".join(text.replace("section.", f"{section}.").split())
    if own := re.search(
        r"(Problem with given class_path '.*|Import path .*|Expected a dot import path string: .*)"
        r" Given value type",
        reason,
    ):
        # Of a class or a choice of words: the class's mistake, not a list of all types.
        literal = re.search(r"Literal\[([^]]*)\]", reason)
        words = literal[1].replace("'", "") if literal else ""
        choices = f": choose one of {words}, or a class_path" if words else ""
        reason = own[1] + choices
    reason = re.sub(r"a <class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    reason = re.sub(r"a typing\.(Literal|Union|Optional)", r"\1", reason)
    return UserError(f"{composition.origin(key)}: {key}: {reason}")
