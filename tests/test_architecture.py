"""The one-way rule, and promises that the README makes."""

import ast
import re
from pathlib import Path

import dograph

ROOT = Path(__file__).parent.parent
# Data goes down this list; a part imports only from itself and from parts above it.
ORDER = [
    "errors",
    "recipe_limits",
    "records",
    "file_errors",
    "corpus",
    "signals",
    "graph",
    "mixers",
    "data",
    "memory",
    "cross_entropy",
    "model",
    "checkpoint",
    "reference",
    "gathering",
    "mixing",
    "evaluation",
    "report",
    "composition",
    "recipe_classes",
    "recipe",
    "provenance",
    "saving",
    "numerics",
    "run_folder",
    "run",
    "stage_record",
    "stages",
    "sweep_jobs",
    "sweep",
    "reproduction",
    "comparison",
    "commands",
    "cli",
    "__main__",
]


def imports(path):
    """Parts of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("dograph."):
                yield name.split(".")[1]


def test_no_part_imports_one_below_it():
    package = ROOT / "dograph"
    for path in package.rglob("*.py"):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for imported in imports(path):
            assert ORDER.index(imported) <= ORDER.index(part), f"{path} imports {imported}"


def test_every_public_name_is_there():
    for name in dograph.__all__:
        assert getattr(dograph, name).__doc__


def test_no_file_is_a_drawer_for_everything():
    names = {path.stem for path in (ROOT / "dograph").rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "misc"}


def test_the_readmes_recipes_and_mixer_are_real():
    text = (ROOT / "README.md").read_text()
    for recipe in set(re.findall(r"recipes/\w+\.yaml", text)):
        assert (ROOT / recipe).is_file() or "my_" in recipe, recipe
    for benchmark in set(re.findall(r"benchmarks/\w+\.py", text)):
        assert (ROOT / benchmark).is_file(), benchmark
    assert "pip install -e . && lightning run recipes/dograph_gpt2.yaml" in text
    assert "pip install -e '.[dev]' && pytest" in text
    (mixer,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(mixer.strip().splitlines()) < 30
    space = {}
    exec(compile(mixer, "README.md", "exec"), space)  # noqa: S102  (the README's own example)
    own = next(value for name, value in space.items() if name == "LossSeeker")
    assert issubclass(own, dograph.BaseMixer)
