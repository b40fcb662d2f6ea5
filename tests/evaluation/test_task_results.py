"""Results of tasks in a run's folder."""

import json

import pytest

from dograph.errors import UserError
from dograph.evaluation.task_results import (
    PAPER,
    Conditions,
    TaskResult,
    read_results,
    stale_tasks,
    suite_means,
    suite_of,
    write_results,
)
from dograph.training.checkpoint_reader import CheckpointIdentity

DRAWN = Conditions(10, 3, "0.4.13")
LOCAL = {
    "local_cloze_a": TaskResult(10, {"acc": 0.5, "perplexity": 9.0}, DRAWN, 2),
    "local_cloze_b": TaskResult(9, {"acc": 0.25}, DRAWN, 2),
}
MORE = {
    "piqa": TaskResult(10, {"acc": 1.0}, Conditions(None, None, "0.4.12")),
    "wikitext": TaskResult(10, {"bits_per_byte": 2.0}),
}


def test_results_are_put_beside_earlier_ones_with_their_conditions(tmp_path):
    assert read_results(tmp_path) == {}
    write_results(tmp_path, LOCAL, {})
    write_results(tmp_path, MORE, {})
    found = read_results(tmp_path)
    assert found == {**LOCAL, **MORE}
    assert {name: result.conditions for name, result in found.items()} == {
        "local_cloze_a": (10, 3, "0.4.13"),
        "local_cloze_b": (10, 3, "0.4.13"),
        "piqa": (None, None, "0.4.12"),
        "wikitext": (None, None, None),
    }
    content = json.loads((tmp_path / "tasks.json").read_text())
    assert content["tasks"]["local_cloze_a"]["suite"] == "local_cloze"
    assert content["means"] == {"local_cloze": 0.375}


def test_local_tasks_are_of_one_call(tmp_path):
    write_results(tmp_path, {**LOCAL, **MORE}, {})
    other = {"local_cloze_a": TaskResult(10, {"acc": 1.0}, Conditions(10, 4, "0.4.13"), 1)}
    write_results(tmp_path, other, {})
    assert read_results(tmp_path) == {**MORE, **other}


def test_means_are_of_whole_suites_alone():
    assert suite_means({**LOCAL, **MORE}) == {"local_cloze": 0.375}
    assert suite_means({"local_cloze_a": LOCAL["local_cloze_a"], **MORE}) == {}
    paper = {name: TaskResult(5, {"acc": 0.5}) for name in PAPER}
    assert suite_means(paper) == {"paper": 0.5}
    assert suite_means({name: paper[name] for name in PAPER[1:]}) == {}


def test_one_task_evaluated_again_stays_in_its_suite(tmp_path):
    write_results(tmp_path, {name: TaskResult(5, {"acc": 0.5}) for name in PAPER}, {})
    write_results(tmp_path, {"piqa": TaskResult(5, {"acc": 0.5 + 0.09})}, {})
    assert suite_means(read_results(tmp_path)) == {"paper": pytest.approx(0.51)}
    assert suite_of("piqa") == "paper"
    assert suite_of("wikitext") == "named"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tasks.json").write_text("{}")
    with pytest.raises(UserError, match=r"tasks\.json is damaged"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("of", "now", "changed", "stale"),
    [
        ((20, "a"), (20, "a"), True, False),
        ((20, "a"), (40, "b"), True, True),
        ((20, "a"), (20, "b"), False, True),  # trained again to the same step
        ((20, "a"), (20, None), True, False),  # its file is gone
        ((20, "a"), (40, None), False, True),
        (None, (20, "a"), False, False),  # not recorded
        (None, (20, "a"), True, True),
    ],
)
def test_results_of_an_earlier_checkpoint_are_stale(tmp_path, of, now, changed, stale):
    measured = None if of is None else CheckpointIdentity(*of)
    write_results(tmp_path, {"piqa": TaskResult(5, {"acc": 0.5}, checkpoint=measured)}, {})
    found = read_results(tmp_path)
    assert found["piqa"].checkpoint == measured
    assert stale_tasks(found, CheckpointIdentity(*now), changed) == (["piqa"] if stale else [])


def test_stale_results_are_not_kept_beside_new_ones(tmp_path):
    write_results(tmp_path, {**LOCAL, **MORE}, {})
    write_results(tmp_path, {"piqa": TaskResult(5, {"acc": 0.5})}, {}, stale=[*LOCAL])
    assert set(read_results(tmp_path)) == {"piqa", "wikitext"}
    assert json.loads((tmp_path / "tasks.json").read_text())["means"] == {}
