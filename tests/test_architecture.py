"""The one-way rule, and the README's tree."""

from pathlib import Path

import dograph
from benchmarks.imports import arrows, levels

ROOT = Path(__file__).parent.parent


def order():
    """The package's entries as README's tree lists them: each imports only from those above it."""
    tree = (ROOT / "README.md").read_text().partition("```tree\n")[2].partition("```")[0]
    names = [line.split()[0].removesuffix(".py").rstrip("/") for line in tree.splitlines()[1:]]
    return [*names, "__main__"]


def test_the_readmes_tree_is_the_package():
    entries = {path.stem for path in (ROOT / "dograph").iterdir()}
    assert set(order()) == entries - {"__init__", "py", "__pycache__"}


def test_no_entry_imports_one_below_it():
    place = {name: number for number, name in enumerate(order())}
    for importing, imported in arrows():
        assert place[imported] < place[importing], f"{importing} imports {imported}"


def test_levels_and_arrows_stay_few():
    pairs = arrows()
    assert max(levels(pairs).values()) < 11
    assert len(pairs) <= 70


def test_the_benchmarks_have_no_circle():
    assert levels(arrows("benchmarks"))


def test_every_public_name_is_there():
    for name in dograph.__all__:
        assert getattr(dograph, name).__doc__


def test_no_file_is_a_drawer_for_everything():
    names = {path.stem for path in (ROOT / "dograph").rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "misc"}
