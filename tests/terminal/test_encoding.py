"""Every entry point prints in every locale, and its files are UTF-8 in every locale."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dograph.terminal.encoding import PLAIN, SPELLINGS

ROOT = Path(__file__).parent.parent.parent
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {
    "C": {"LC_ALL": "C"},
    "POSIX": {"LC_ALL": "POSIX"},
    "one that is not installed": {"LC_ALL": "en_US.ISO-8859-1"},
    "ASCII": ASCII_LOCALE,
    "ASCII streams": {"PYTHONIOENCODING": "ascii"},
    "Latin-1 streams": {"PYTHONIOENCODING": "latin-1:strict"},
}


def run(locale, *words, cwd=ROOT):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return subprocess.run(
        [sys.executable, *words],
        env={**kept, **LOCALES[locale], "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_what_an_encoding_lacks_is_spelt_out():
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=PLAIN)
    screen.write("Übung: −0.003 ± 0.046 ≥ … 漢 \udcff\n")
    screen.flush()
    assert screen.buffer.getvalue() == b"\\xdcbung: -0.003 +- 0.046 >= ... \\u6f22 \\udcff\n"
    assert all(spelling.isascii() for spelling in SPELLINGS.values())


@pytest.mark.parametrize("locale", LOCALES)
def test_help_and_errors_print(locale):
    for words in (["compare", "--help"], ["sweep", "--help"]):
        done = run(locale, "-m", "dograph", *words)
        assert done.returncode == 0, done.stderr.decode()
        assert b"usage:" in done.stdout
    done = run(locale, "-m", "dograph", "run", "Übung…−.yaml")
    assert done.returncode == 2, done.stderr.decode()
    assert b"no such file" in done.stderr


def test_a_locale_without_umlauts_names_files_in_utf8(tmp_path):
    recipe = tmp_path / "Übung.yaml"
    recipe.write_text("name: Übung\nbase: nothing\n", encoding="utf-8")
    done = run("ASCII", "-m", "dograph", "run", str(recipe), "--check")
    assert done.returncode == 2
    assert b"\\xdcbung.yaml" in done.stderr
    assert b"Traceback" not in done.stderr


def test_output_in_utf8_stays_as_it_is():
    code = (
        "from dograph.terminal.screen import Screen; Screen().print('Übung −0.003'); print('Ü ±')"
    )
    done = run("C", "-c", code)
    assert done.stdout.decode() == "Übung −0.003\nÜ ±\n"


def test_a_closed_stdout_is_no_error():
    code = "import sys; sys.stdout = None; from dograph.terminal.screen import Screen; Screen()"
    assert run("C", "-c", code).returncode == 0


@pytest.mark.parametrize("locale", ["ASCII", "ASCII streams"])
def test_benchmarks_print(locale):
    done = run(locale, "-m", "benchmarks.imports")
    assert done.returncode == 0, done.stderr.decode()


def test_a_reader_that_ends_early_is_no_error():
    command = f"{sys.executable} -m dograph compare --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
