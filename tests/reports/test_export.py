"""Exported weights, read back as the programs that they are for read them."""

import json

import pytest
import yaml
from full_files import room_for
from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader

from dograph.cli.export import EXPORT_FORMATS
from dograph.cli.main import main
from dograph.reports.export import FORMATS, export
from dograph.reports.summary import DomainSummary, RunSummary, write_summary

WEIGHTS = {"books": 0.25, "code": 0.75, "web": 0.0}


def summary_of(weights):
    domains = tuple(
        DomainSummary(name, 0.5, 0.5, 10, 0.1, 1.0, 2.7, 1 / len(weights), weight)
        for name, weight in weights.items()
    )
    return RunSummary("DoReMi", 5, 1.0, 1e9, domains, {}, None)


@pytest.fixture
def run(tmp_path):
    """Folder of a run whose average weights are ``WEIGHTS``; the last ones are uniform."""
    write_summary(summary_of(WEIGHTS), tmp_path)
    return tmp_path


def test_a_full_disk_leaves_the_file_before(run, tmp_path, capsys):
    target = tmp_path / "weights.yaml"
    assert main(["export", str(run), "--output", str(target)]) == 0
    before = target.read_text()
    command = ["export", str(run), "--output", str(target), "--force"]
    with room_for(10):
        assert main(command) == 2
    assert "weights.yaml: cannot be written" in capsys.readouterr().err
    assert target.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json", "weights.yaml"]
    assert main(command) == 0


def test_every_format_of_the_command_line_is_there():
    assert set(EXPORT_FORMATS) == set(FORMATS)


def test_plain_mappings(run):
    assert yaml.safe_load(export(run, "yaml")) == WEIGHTS
    assert json.loads(export(run, "json")) == WEIGHTS
    assert json.loads(export(run, "json", which="last"))["web"] == pytest.approx(1 / 3)


def test_megatrons_blend_is_weights_and_paths_in_turn(run):
    words = export(run, "megatron", "data/").split()
    assert words == ["0.25000000", "data/books", "0.75000000", "data/code"]
    # As Megatron reads it: an even number of words, every other one a number.
    assert [float(word) for word in words[::2]] == [0.25, 0.75]


def test_nemos_paths_are_the_same_as_strings(run):
    paths = yaml.safe_load(export(run, "nemo", "data/"))["paths"]
    assert paths == ["0.25000000", "data/books", "0.75000000", "data/code"]


def test_streams_have_positive_proportions(run):
    streams = yaml.safe_load(export(run, "streaming", "data/"))["streams"]
    assert streams == {
        "books": {"local": "data/books", "proportion": 0.25},
        "code": {"local": "data/code", "proportion": 0.75},
    }


def test_litdata_draws_by_what_it_is_given(store, tmp_path):
    """The real CombinedStreamingDataset on the real store."""
    weights = {"animals": 0.2, "code": 0.5, "numbers": 0.3}
    write_summary(summary_of(weights), tmp_path)
    settings = json.loads(export(tmp_path, "litdata", f"{store.path}/domains/"))
    datasets = [
        StreamingDataset(f"{folder}/train", item_loader=TokensLoader(block_size=33), shuffle=False)
        for folder in settings.pop("input_dirs")
    ]
    assert all(len(dataset) for dataset in datasets)
    combined = CombinedStreamingDataset(datasets, seed=0, **settings)
    assert list(combined._weights) == pytest.approx([0.2, 0.5, 0.3])
    assert len(next(iter(combined))) == 33


def test_a_blank_in_a_path_would_break_a_blend(run, capsys):
    command = ["export", str(run), "--format", "megatron", "--prefix", "my data/"]
    assert main(command) == 2
    assert "blank" in capsys.readouterr().err


def test_the_command_prints_or_writes_and_replaces_only_when_asked(run, capsys):
    assert main(["export", str(run), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == WEIGHTS
    target = run / "weights.yaml"
    assert main(["export", str(run), "--output", str(target)]) == 0
    assert yaml.safe_load(target.read_text()) == WEIGHTS
    assert main(["export", str(run), "--output", str(target)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", str(run), "--output", str(target), "--force"]) == 0
    assert main(["export", str(run), "--output", str(run / "none" / "x.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{", "[]", '{"mixer": "DoReMi"}'])
def test_a_folder_without_a_finished_run_is_refused(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert main(["export", str(tmp_path)]) == 2
    assert "name the folder of a finished run" in capsys.readouterr().err


def test_a_weight_that_rounds_to_nothing_is_left_out_of_a_blend(tmp_path):
    write_summary(summary_of({"a": 1e-10, "b": 1 - 1e-10}), tmp_path)
    assert export(tmp_path, "megatron") == "1.00000000 b\n"


def test_weights_of_a_mixer_that_weighs_losses_alone_say_so(tmp_path, capsys):
    domains = [
        DomainSummary(name, 0.5, share, 10, 0.1, 1.0, 2.7, 0.5, 0.5)
        for name, share in (("books", 0.3), ("code", 0.7))
    ]
    write_summary(RunSummary("DoGraph", 5, 1.0, 1e9, tuple(domains), {}, None), tmp_path)
    assert main(["export", str(tmp_path), "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"books": 0.5, "code": 0.5}
    assert "DoGraph drew by these weights, but weighed losses" in printed.err
    assert "books 0.300, code 0.700" in printed.err


def test_weights_that_tell_all_have_no_note(run, capsys):
    assert main(["export", str(run)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_inside", [False, True])
def test_what_no_format_holds_is_told(run, capsys, is_inside):
    """Limits and phases, also within another mixer; nothing of a run without them."""
    assert main(["export", str(run)]) == 0
    assert capsys.readouterr().err == ""
    recipe = {
        "limits": {"epochs": 4, "groups": {"text": ["books", "web"]}, "projection": "kl"},
        "mixer": {"class_path": "dograph.mixers.Phases"},
    }
    if is_inside:
        by_level = {"class_path": "dograph.mixers.ByLevel", "init_args": {"mixer": recipe["mixer"]}}
        recipe["mixer"] = by_level
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["export", str(run)]) == 0
    told = capsys.readouterr().err
    assert "left out: the run's limits (epochs)" in told
    assert "its phases: the average is of all of them" in told
