"""Every script of examples/ runs on a user's own text."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SCRIPTS = sorted(
    path for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)
LOSSES = re.compile(r"\{'animals': .*\}")


@pytest.fixture
def run(corpus_folder, tmp_path, monkeypatch, capsys):
    """Runs a script in this process; the losses that it prints."""
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    monkeypatch.chdir(tmp_path)

    def run(script, steps):
        words = [str(script), "--text", str(corpus_folder), "--steps", str(steps)]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(script), run_name="__main__")
        return ast.literal_eval(LOSSES.search(capsys.readouterr().out)[0])

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_learns(run, script):
    losses = run(script, 12)
    assert set(losses) == {"animals", "numbers", "code"}
    assert sum(losses.values()) / 3 < 7.6  # that of an untrained one is above 8.3


def test_an_interrupted_loop_continues(run):
    script = EXAMPLES / "pytorch_loop.py"
    run(script, 3)
    begun = run(script, 6)
    Path("pytorch_loop.pt").unlink()
    assert begun == pytest.approx(run(script, 6), rel=1e-6)


@pytest.mark.slow
def test_fabric_trains_on_two_ranks_as_on_one(corpus_folder, tmp_path):
    words = ["fabric", "run", "--accelerator", "cpu", "--strategy", "ddp", "--devices"]
    script = [str(EXAMPLES / "fabric_loop.py"), "--text", str(corpus_folder), "--steps", "5"]
    environment = {**os.environ, "DOGRAPH_CACHE": str(tmp_path / "cache")}
    output = subprocess.run(
        [*words, "2", *script],
        env=environment, capture_output=True, text=True, timeout=240, check=True,
    ).stdout  # fmt: skip
    assert len(LOSSES.findall(output)) == 1


def test_lightnings_module_needs_ten_added_lines():
    text = (EXAMPLES / "lightning_module.py").read_text(encoding="utf-8")
    assert sum(line.rstrip().endswith("# +") for line in text.splitlines()) <= 10
