"""Nested folders from text to the end's table: domains, limits, target and a mixer by level."""

import json
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dograph.cli.main import main
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.source import open_source
from dograph.errors import UserError
from dograph.files.run_dir import DOMAIN_RUNS, SUMMARY


@pytest.fixture(scope="session")
def nested(tmp_path_factory, make_corpus):
    """Animals, code/c, code/python and web/news, two of them folders."""
    folder = tmp_path_factory.mktemp("nested") / "text"
    make_corpus(folder, {"animals": 20})
    make_corpus(folder / "code", {"c": 30, "python": 20})
    make_corpus(folder / "web" / "news", {"numbers": 20})
    return folder


def test_folders_name_domains_as_deep_as_asked(nested, tmp_path):
    assert open_source(CorpusSettings(str(nested))).domains() == ("animals", "code", "web")
    two = open_source(CorpusSettings(str(nested), levels=2)).domains()
    assert two == ("animals", "code/c", "code/python", "web/news")
    three = open_source(CorpusSettings(str(nested), levels=3)).domains()
    assert three == (*two[:3], "web/news/numbers")
    both = shutil.copytree(nested, tmp_path / "both")
    shutil.copy(both / "animals.jsonl", both / "web.jsonl")
    with pytest.raises(UserError, match="web is a domain and a level above web/news"):
        open_source(CorpusSettings(str(both), levels=2))


def test_a_run_by_level(nested, small_recipe, tmp_path, capsys):
    path = small_recipe("by_level", "dograph.mixers.ByLevel", steps=4)
    changes = [
        f"corpus.source={nested}",
        f"corpus.store={tmp_path / 'store'}",
        "corpus.levels=2",
        "mixer.init_args.mixer={class_path: dograph.mixers.DoReMiOnline, init_args: {}}",
        "limits.at_least={code: 0.6}",
        "target=code",
    ]
    assert main(["run", str(path), *changes]) == 0
    shown = capsys.readouterr().out
    assert "code/ (2 domains)" in shown and "web/ (1 domains)" in shown
    folder = path.parent / "runs" / "by_level" / "seed_0"
    summary = json.loads((folder / SUMMARY).read_text())
    drawn = {name: domain["share"] for name, domain in summary["domains"].items()}
    assert drawn["code/c"] + drawn["code/python"] >= 0.6 - 1 / 16
    losses = summary["losses"]
    mean = (losses["code/c"] + losses["code/python"]) / 2
    assert summary["target_loss"] == pytest.approx(mean)
    events = EventAccumulator(str(folder)).Reload()
    level = events.Scalars("levels/sampling/code")[-1].value
    runs = [EventAccumulator(str(folder / DOMAIN_RUNS / "code" / name)) for name in ("c", "python")]
    below = [run.Reload().Scalars("mixture/sampling")[-1].value for run in runs]
    assert level == pytest.approx(sum(below))
    assert main(["export", str(folder), "--format", "megatron", "--prefix", "data/"]) == 0
    exported = capsys.readouterr()
    assert "data/code/python" in exported.out and "limits (at_least)" in exported.err
