"""The code behind a user's own mixer, with what it imports beside it."""

import sys

import pytest

from dograph.experiments.mixer_code import mixer_code

FILES = {
    "mine.py": "import torch\nimport helper\nfrom parts import first\nimport dograph.mixers",
    "helper.py": "def f():\n    import deep.inner\n",
    "deep/__init__.py": "",
    "deep/inner.py": "from . import beside\nfrom .beside import x\n",
    "deep/beside.py": "x = 1\n",
    "parts/__init__.py": "",
    "parts/first.py": "import mine\n",
    "parts/second.py": "",
    "unused.py": "",
    "dograph/mixers.py": "",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "own")])
    for name in ("mine", "helper", "deep", "parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "own"


def code_of(class_path, **init_args):
    return mixer_code({"mixer": {"class_path": class_path, "init_args": init_args}})


def test_the_files_that_a_mixer_reaches_are_digested(folder):
    reached = code_of("mine.Mixer")
    assert list(reached) == [
        *("deep/__init__.py", "deep/beside.py", "deep/inner.py"),
        *("helper.py", "mine.py", "parts/__init__.py", "parts/first.py"),
    ]
    for name in reached:
        before = (folder / name).read_text()
        (folder / name).write_text(before + "# changed\n")
        now = code_of("mine.Mixer")
        assert [key for key in now if now[key] != reached[key]] == [name]
        (folder / name).write_text(before)
    (folder / "unused.py").write_text("y = 2")
    assert code_of("mine.Mixer") == reached


def test_a_class_in_an_argument_counts_too(folder):
    nested = {"class_path": "parts.second.Schedule", "init_args": {}}
    assert "parts/second.py" in code_of("mine.Mixer", schedule=nested)
    assert code_of("deep.inner.Mixer").keys() == {
        *("deep/__init__.py", "deep/beside.py", "deep/inner.py")
    }


def test_mixers_of_the_package_and_of_nowhere_have_none():
    assert code_of("dograph.mixers.DoGraph") == {}
    assert code_of("no_such_module.Mixer") == {} == mixer_code({})


def test_a_file_that_cannot_be_parsed_is_digested_alone(folder):
    (folder / "helper.py").write_text("def (")
    assert "deep/inner.py" not in code_of("mine.Mixer") and "helper.py" in code_of("mine.Mixer")
