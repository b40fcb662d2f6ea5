"""Python source split into code, docstrings and comments."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

SHORTEST_DOCSTRING = 80
SHORTEST_COMMENT = 60
_PROSE = 0.65
"""Smallest share of letters and spaces in prose; commented-out code and rulers have less."""
_NOT_PROSE = re.compile(r"[^A-Za-z\s]")

_Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class PythonText:
    """The text of one source file in three parts that share no line."""

    code: str
    """The file without its docstrings and comment lines; it may not run."""
    docstrings: tuple[str, ...]
    """Docstrings of at least 80 characters, unindented."""
    comments: tuple[str, ...]
    """Runs of comment lines with at least 60 characters of prose, without their marks."""


def take_apart(source: str) -> PythonText | None:
    """Split a source file; None if this interpreter cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in other people's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    lines = source.split("\n")
    docstrings = []
    dropped: set[int] = set()
    for statement, text in _docstrings(tree):
        if len(text) >= SHORTEST_DOCSTRING:
            docstrings.append(text)
        dropped.update(_own_lines(statement, lines))
    comments = tuple(_comments(lines, dropped))
    code = "\n".join(line for number, line in enumerate(lines) if number not in dropped)
    return PythonText(code.strip("\n"), tuple(docstrings), comments)


def _docstrings(tree: ast.AST) -> Iterator[tuple[ast.Expr, str]]:
    # Only statements are visited: walking every expression takes as long as parsing.
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        body = getattr(node, "body", [])
        if isinstance(node, _Documented) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                value = first.value.value
                if isinstance(value, str):
                    yield first, inspect.cleandoc(value)
        blocks = (body, *(getattr(node, name, []) for name in ("orelse", "handlers", "finalbody")))
        for block in reversed(blocks):
            if isinstance(block, list):
                waiting.extend(reversed(block))


def _own_lines(statement: ast.Expr, lines: list[str]) -> range:
    """Indices of the lines that hold only the docstring."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    before = lines[first].encode()[: statement.col_offset].strip()
    after = lines[last].encode()[statement.end_col_offset :].strip()
    return range(0) if before or after else range(first, last + 1)


def _comments(lines: list[str], dropped: set[int]) -> Iterator[str]:
    """Yield runs of prose, and add every comment line to ``dropped``."""
    run: list[str] = []
    for number, line in enumerate([*lines, ""]):
        stripped = line.lstrip()
        if stripped.startswith("#") and number not in dropped:
            dropped.add(number)
            if not stripped.startswith("#!"):
                run.append(stripped.lstrip("#").removeprefix(" ").rstrip())
            continue
        if run:
            text = "\n".join(run).strip("\n")
            run = []
            if len(text) >= SHORTEST_COMMENT and _is_prose(text):
                yield text


def _is_prose(text: str) -> bool:
    return len(_NOT_PROSE.sub("", text)) >= _PROSE * len(text)
