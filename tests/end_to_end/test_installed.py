"""The wheel, installed outside the repository: the main job runs by its recipe's name."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of a new environment that has the wheel, and otherwise what these tests have."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, *build, "-w", folder, ROOT], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True, cwd=folder)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path in a .pth file comes last, and the .pth files there, such as that of a clone, are not
    # read: dograph is the wheel's.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin"


def test_the_main_job_runs_by_its_name(installed, store, corpus_settings, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [
        *(f"corpus.source={corpus_settings.source}", f"corpus.store={corpus_settings.store}"),
        *("corpus.vocab_size=300", "corpus.validation_fraction=0.2", "trainer.max_steps=20"),
        *("model.config={n_layer: 1, n_embd: 32, n_head: 2}", "data.context=32"),
    ]

    def call(program, *arguments):
        command = [installed / program, *arguments]
        done = subprocess.run(
            command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = call("python", "-c", "import dograph; print(dograph.__file__)")
    assert place.startswith(str(installed.parent))
    assert "Recipe: unimax_gpt2\n" in call("dograph", "mixers")
    assert "DoGraph after 20 steps" in call("lightning", "run", "dograph_gpt2", *words)
    summary = json.loads((tmp_path / "runs/dograph_gpt2/seed_0/summary.json").read_text())
    assert summary["steps"] == 20
