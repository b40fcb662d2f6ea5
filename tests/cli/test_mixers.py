"""The list of mixers: in a pipe, on narrow screens, as JSON, with the user's own."""

import json
import os
import subprocess
import sys

import pytest

from dograph.cli.main import main
from dograph.experiments.mixer_list import shipped_mixers

OWN = '''"""Mixers of one's own."""
from dograph import BaseMixer, DoGE


class Last(BaseMixer):
    """Draws what came last; 最後の, always."""

    def update(self, signals):
        return self.weights
'''


def test_a_pipe_has_a_line_for_each_mixer_and_waits_for_no_trainer():
    code = (
        "import sys; from dograph.cli.main import main\n"
        "assert main(['mixers']) == 0\n"
        "assert not {'lightning', 'transformers', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    lines = out.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [m.__name__ for m in shipped_mixers()]
    (odm,) = (line for line in lines if line.startswith("ODM: "))
    assert odm == (
        "ODM: Draws more of what has the larger training loss. Acts on: what is drawn; Costs: "
        "nothing more; Target: not followed; Own limits: none; Paper: Albalak et al. 2023, arXiv "
        "2312.02406; Recipe: odm_gpt2"
    )


@pytest.mark.parametrize("width", [1, 40, 80])
def test_a_screen_has_every_word_within_its_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["mixers"]) == 0
    text = capsys.readouterr().out
    assert "Recipe:dograph_proxy_gpt2,dograph_schedule_gpt2" in "".join(text.split())
    if width > 1:
        assert max(map(len, text.splitlines())) <= width
        assert "\n  Costs: nothing more\n" in text
        assert not any(line.endswith(" ") for line in text.splitlines())


def test_json_has_all_of_it(capsys):
    assert main(["mixers", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in content] == [mixer.__name__ for mixer in shipped_mixers()]
    assert content[0].keys() >= {"summary", "paper", "acts_on", "costs", "target", "recipes"}


def test_one_s_own_mixers_come_last(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_and_listed.py").write_text(OWN, encoding="utf-8")
    for given in (tmp_path, tmp_path / "own_and_listed.py"):
        assert main(["mixers", "--json", "--mixers", str(given)]) == 0
        *known, last = json.loads(capsys.readouterr().out)
        assert len(known) == len(shipped_mixers())  # DoGE is only imported there
        assert last["class_path"] == "own_and_listed.Last"
        assert last["acts_on"] == "what is drawn"
    (tmp_path / "own_and_empty.py").write_text("import torch\n")
    assert main(["mixers", "--mixers", str(tmp_path / "own_and_empty.py")]) == 2
    assert "derive one from BaseMixer" in capsys.readouterr().err
    (tmp_path / "own_and_wrong.py").write_text("x = 1 / 0\n")
    assert main(["mixers", "--mixers", str(tmp_path / "own_and_wrong.py")]) == 2
    assert "own_and_wrong.py:1: `x = 1 / 0`" in capsys.readouterr().err
