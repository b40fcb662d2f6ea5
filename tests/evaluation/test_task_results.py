"""Results of tasks in a run's folder."""

import pytest

from dograph.errors import UserError
from dograph.evaluation.task_results import (
    TaskResult,
    read_accuracies,
    read_results,
    suite_means,
    write_results,
)

CLOZE = {"local_cloze_a": TaskResult("local_cloze", 10, {"acc": 0.5, "perplexity": 9.0})}
MORE = {
    "local_cloze_b": TaskResult("local_cloze", 10, {"acc": 0.25}),
    "piqa": TaskResult("named", 10, {"acc": 1.0}),
    "wikitext": TaskResult("named", 10, {"bits_per_byte": 2.0}),
}


def test_results_are_put_beside_earlier_ones(tmp_path):
    assert read_results(tmp_path) == {}
    write_results(tmp_path, CLOZE, {"seed": 0})
    write_results(tmp_path, MORE, {"seed": 1})
    assert read_results(tmp_path) == {**CLOZE, **MORE}
    assert read_accuracies(tmp_path) == {"local_cloze_a": 0.5, "local_cloze_b": 0.25, "piqa": 1.0}


def test_means_are_of_suites_alone():
    assert suite_means({**CLOZE, **MORE}) == {"local_cloze": 0.375}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tasks.json").write_text("{}")
    with pytest.raises(UserError, match=r"tasks\.json is damaged"):
        read_accuracies(tmp_path)
