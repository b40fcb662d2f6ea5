"""The suite ``local``: tasks for lm-evaluation-harness from a store's validation documents."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dograph.data.corpus.store import Store
from dograph.errors import UserError, check_range
from dograph.evaluation.local_examples import DomainExamples, Example
from dograph.evaluation.task_results import CLOZE, CONTINUATION, LOCAL
from dograph.files.atomic import write_text

MARK = ".dograph-tasks"
"""A file that marks a folder as ours and names the files that may be replaced."""
SMALLEST_CONTEXT = 16
"""Tokens that a model must see at once to be asked for continuations."""
ACCURACY = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
SETTINGS: dict[str, dict[str, Any]] = {
    CLOZE: {
        "output_type": "loglikelihood",
        "doc_to_target": "target",
        "metric_list": [
            ACCURACY,
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    },
    CONTINUATION: {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [ACCURACY, {**ACCURACY, "metric": "acc_norm"}],
    },
}
"""lm_eval's settings of the two kinds of tasks."""
Made = dict[str, tuple[str, list[Example]]]
"""Kind and examples by task."""


def write_local_tasks(
    store: Store,
    folder: Path,
    context: int,
    examples: int = 100,
    seed: int = 0,
    note: Callable[[str], None] = print,
) -> list[str]:
    """Writes all domains' tasks as lm_eval reads them, a JSONL and a YAML file each; names them.

    ``local_cloze_DOMAIN``: the next word after a text; right if all its tokens are the likeliest.
    ``local_continuation_DOMAIN``: the text's continuation among three pieces of other documents of
    the domain; 0.25 by chance, since the pieces are equally long in tokens.

    Args:
        store: only its validation documents are used.
        folder: new, empty, or with an earlier suite, whose files are replaced.
        context: tokens that the model sees at once.
        examples: number per domain and kind, ≥ 1; fewer if the text gives no more.
        seed: of the draws.
        note: called with a message about domains that are left out or give fewer examples.
    """
    check_range("--examples", examples, at_least=1)
    if context < SMALLEST_CONTEXT:
        raise UserError(
            f"--context {context}: local tasks need {SMALLEST_CONTEXT} tokens or more; name other "
            "tasks with --tasks, or a checkpoint with a longer context"
        )
    with _refusing(folder):
        before = _written_before(folder)
    made = _draw(store, context, examples, seed, note)
    if not made:
        raise UserError(
            f"store {store.path}: no domain has enough text for local tasks; prepare more "
            "validation text, or name other tasks with --tasks"
        )
    with _refusing(folder):
        return _write(folder, made, {"seed": seed, "corpus": store.fingerprint}, before)


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Raises UserError, naming the folder, for an OSError in the block."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}): name another --task-folder"
        ) from error


def _written_before(folder: Path) -> list[str]:
    """Names of the files of an earlier suite; none for a new or empty folder."""
    if (folder / MARK).is_file():
        return (folder / MARK).read_text(encoding="utf-8").splitlines()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} holds files that are not local tasks: name a new or an empty folder with "
            "--task-folder"
        )
    return []


def _draw(
    store: Store, context: int, examples: int, seed: int, note: Callable[[str], None]
) -> Made:
    """Draws every task's examples; a domain may give none."""
    made: Made = {}
    for entry in store.domains:
        if entry.validation_documents == 0:
            note(f"{entry.name}: no local tasks, it has no validation documents")
            continue
        domain = DomainExamples(store, entry.name, context, seed)
        for kind, draw in ((CLOZE, domain.cloze), (CONTINUATION, domain.continuations)):
            task, drawn = f"{kind}_{entry.name}", draw(examples)
            count = len(drawn.examples)
            if count:
                made[task] = kind, drawn.examples
            if count < examples:
                given = f"{count} examples, its documents give no more" if count else "left out"
                note(f"{task}: {given}: {drawn.reason}")
    return made


def _write(folder: Path, made: Made, metadata: dict[str, Any], before: list[str]) -> list[str]:
    """Replaces the files named ``before`` by a JSONL and a YAML file for each task."""
    folder = folder.resolve()
    names = [f"{task}.{ending}" for task in made for ending in ("jsonl", "yaml")]
    folder.mkdir(parents=True, exist_ok=True)
    # A name in the mark without a file does no harm; a file without its name would stay.
    write_text(folder / MARK, "\n".join([*before, *names]))
    for old in before:
        (folder / Path(old).name).unlink(missing_ok=True)
    for task, (kind, drawn) in made.items():
        data = folder / f"{task}.jsonl"
        lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in drawn]
        write_text(data, "".join(lines))
        settings = _task(task, kind, data, metadata)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_text(folder / f"{task}.yaml", text)
    write_text(folder / MARK, "\n".join(names))
    return list(made)


def _task(name: str, kind: str, data: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """A task in lm_eval's words."""
    return {
        "task": name,
        "tag": [LOCAL, kind],
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": glob.escape(str(data))}},  # datasets globs
        "test_split": "test",
        "doc_to_text": "context",
        "num_fewshot": 0,
        **SETTINGS[kind],
        "metadata": {"version": 1.0, **metadata},
    }
