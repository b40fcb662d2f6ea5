"""The final table and summary.json."""

import io
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.mixers.target import Target
from dograph.reports.finding import what_limits_cost
from dograph.reports.summary import (
    final_table,
    print_summary,
    read_summary,
    summarise_run,
    write_summary,
)

NAMES = ("python", "[bold]docs", "licences")
LOSSES = {"python": 1.5, "[bold]docs": 2.5, "licences": 2.0}


def summary_of(losses=LOSSES, target=None, unseen=(), schedule=None):
    """A run of 64 sequences of 128 tokens."""
    sampler = SimpleNamespace(realised=np.array([32, 24, 8]), epochs=np.array([0.5, 2.0, 0.25]))
    mixer = SimpleNamespace(
        weights=torch.tensor([0.5, 0.3, 0.2]),
        average_weights=torch.tensor([0.5, 0.4, 0.1]),
        prices={},
        snapshot=MixerSnapshot if schedule is None else partial(MixerSnapshot, schedule=schedule),
    )
    data = SimpleNamespace(
        sampler=sampler,
        mixer=mixer,
        context=128,
        domains=NAMES,
        target=Target.parse(target, unseen),
    )
    return summarise_run(
        data, np.array([1.0, 1.0, 2.0]), losses, steps=8, seconds=4.0, token_flops=100
    )


def cells(table):
    """The table's text by row."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_the_tables_numbers():
    rows = cells(final_table(summary_of()))
    assert rows[0] == ["python", "50.0%", "25.0%", "4,096", "0.50", "1.5000", "4.48"]
    assert rows[1] == ["[bold]docs", "37.5%", "25.0%", "3,072", "2.00", "2.5000", "12.18"]
    assert rows[3] == ["target: even", "", "", "", "", "2.0000", f"{math.exp(2):.2f}"]
    assert rows[4] == ["mean", "", "", "8,192", "", "2.0000", f"{math.exp(2):.2f}"]
    assert rows[5] == ["worst", "", "", "", "", "2.5000", "12.18"]


@pytest.mark.parametrize(
    ("target", "unseen", "loss"),
    [
        (None, ["licences"], 2.0),
        (None, ["python"], 2.25),
        ("python", ["python"], 1.5),
        ({"python": 1.0, "licences": 3.0}, [], 1.875),
        ("worst", [], 2.5),
    ],
)
def test_the_summary_has_the_targets_loss(tmp_path, target, unseen, loss):
    summary = summary_of(target=target, unseen=unseen)
    write_summary(summary, tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["target"] == target
    assert content["target_loss"] == pytest.approx(loss)
    assert content["target_perplexity"] == pytest.approx(math.exp(loss))
    assert content["mean_loss"] == 2.0
    again = read_summary(tmp_path)
    assert (again.target, again.scores) == (summary.target, summary.scores)
    assert cells(final_table(again))[3][0] == f"target: {Target.parse(target).label}"


def test_a_run_without_validation_has_a_table_too():
    rows = cells(final_table(summary_of({})))
    assert [row[5] for row in rows] == ["–"] * 6
    assert summary_of({}).as_json()["mean_loss"] is None


def test_summary_json_has_the_numbers(tmp_path):
    path = write_summary(summary_of(), tmp_path)
    assert path == tmp_path / "summary.json"
    found = json.loads(path.read_text())
    assert found["losses"] == LOSSES
    assert found["mean_loss"] == 2.0 and found["worst_loss"] == 2.5
    assert found["worst_domain"] == "[bold]docs"
    assert found["tokens"] == 8192 and found["seconds"] == 4.0
    assert found["tokens_per_second"] == 2048 and found["steps"] == 8
    assert found["weights"]["last"]["licences"] == pytest.approx(0.2)
    assert found["weights"]["average"]["licences"] == pytest.approx(0.1)
    assert found["domains"]["licences"]["effective_share"] == 0.5
    assert [child.name for child in tmp_path.iterdir()] == ["summary.json"]


def test_a_diverged_run_is_still_json(tmp_path):
    path = write_summary(summary_of({**LOSSES, "python": math.inf, "licences": math.nan}), tmp_path)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found["losses"] == {"[bold]docs": 2.5, "licences": None, "python": None}


def test_print_says_how_to_open_tensorboard():
    screen = io.StringIO()
    console = Console(file=screen, width=90)
    print_summary(summary_of(), Path("my runs/x/seed_0"), Path("my runs"), console)
    text = screen.getvalue()
    assert "Open TensorBoard:  tensorboard --logdir 'my runs'" in text
    assert "Run folder:  my runs/x/seed_0" in text
    assert "2,048 tokens/s" in text
    assert "licences 0.200 (average 0.100)" in text
    assert "[bold]docs" in text


def test_what_was_found_stands_below_the_table_and_in_the_summary(tmp_path):
    terms = {"influence": -1.0}
    update = ScheduleUpdate(100, [0.9, 0.05, 0.05], [1.2, 0.2, 0.1], [0.05] * 3, terms)
    summary = summary_of(schedule=ScheduleSnapshot(NAMES, "stubs", [update]))
    sentence = (
        "python 0.90 at the end: most of what stubs needs (influence 1.20 ± 0.05; next [bold]docs "
        "0.20 ± 0.05), measured by step 100."
    )
    assert summary.finding == sentence
    screen = io.StringIO()
    print_summary(summary, tmp_path, tmp_path, Console(file=screen, width=200))
    lines = screen.getvalue().splitlines()
    assert "4.0 s of training" in lines[lines.index(sentence) + 1]
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["finding"] == sentence
    assert read_summary(tmp_path).finding == sentence
    assert summary_of().finding is None


def test_the_dearest_limits_are_named_and_read_back(tmp_path):
    assert what_limits_cost({"a": 0.0}) is None
    summary = replace(summary_of(), prices={"at_most.a 0.1": 0.2, "epochs.b 4": 1.5, "c": 0.0})
    screen = io.StringIO()
    print_summary(summary, tmp_path, tmp_path, Console(file=screen, width=200))
    sentence = "held the last mixture back: epochs.b 4 (price 1.5) and at_most.a 0.1 (price 0.2)."
    assert sentence in screen.getvalue()
    write_summary(summary, tmp_path)
    assert read_summary(tmp_path).prices == summary.prices


def test_a_notebook_shows_a_summary_and_takes_its_numbers():
    summary = summary_of()
    assert [(each["name"], each["validation_loss"]) for each in summary.records()] == [
        *LOSSES.items()
    ]
    assert "<td>[bold]docs</td><td>37.5%</td>" in summary._repr_html_()
