"""Files are UTF-8 whatever the locale: everything that reads or writes text says so."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACE_OF_MODE = {"open": 1, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}
"""Where these functions take the mode, and a method one earlier than a function."""
RUNNERS = ("run", "Popen", "check_output")


def text_without_encoding(tree):
    """Lines of calls that read or write text in the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if is_method else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in keywords:
            continue
        if name in ("read_text", "write_text"):
            given = len(node.args) > (name == "write_text")
            if not given and not is_ours(node):
                yield node.lineno
        elif name in PLACE_OF_MODE:
            if is_text_mode(node, name, is_method, keywords):
                yield node.lineno
        elif name in RUNNERS and {"text", "universal_newlines"} & set(keywords):
            yield node.lineno


def is_ours(node):
    """`write_text(path, text)` of dograph.files.atomic, or `distribution.read_text(name)`."""
    return isinstance(node.func, ast.Name) or (
        isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "distribution"
    )


def is_text_mode(node, name, is_method, keywords):
    place = PLACE_OF_MODE[name]
    if name == "open":
        owner = ast.unparse(node.func.value) if is_method else ""
        if owner in ("os", "Store", "self", "Image", "zlib", "gzip"):
            return False
        place -= is_method and owner != "io"
    mode = keywords.get("mode") or (node.args[place] if len(node.args) > place else None)
    default = "w+b" if "Temporary" in name else "r"
    return "b" not in (ast.literal_eval(mode) if isinstance(mode, ast.Constant) else default)


@pytest.mark.parametrize("package", ["dograph", "benchmarks"])
def test_every_text_file_has_an_encoding(package):
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in text_without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, 'add encoding="utf-8":\n' + "\n".join(found)


@pytest.mark.parametrize(
    ("code", "finds"),
    [
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("path.read_text()", True),
        ("path.open('w')", True),
        ("path.open()", True),
        ("path.open('wb')", False),
        ("open(path, 'a')", True),
        ("open(path, 'rb')", False),
        ("NamedTemporaryFile('w')", True),
        ("subprocess.run(words, text=True)", True),
        ("os.open(path, os.O_RDONLY)", False),
    ],
)
def test_the_search_finds_what_it_looks_for(code, finds):
    assert bool(list(text_without_encoding(ast.parse(code)))) == finds
