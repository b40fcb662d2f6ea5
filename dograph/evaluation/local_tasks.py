"""The suite ``local``: tasks for lm-evaluation-harness, made of a store's validation documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dograph.corpus.store import Store
from dograph.errors import UserError
from dograph.evaluation.local_examples import CHOICES, DomainExamples, Example

SUITE, CLOZE, CONTINUATION = "local", "local_cloze", "local_continuation"
LEAST_CONTEXT = 16
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
"""Of the two kinds of tasks, in lm_eval's words."""


def write_local_tasks(
    store: Store,
    folder: Path,
    context: int,
    examples: int = 100,
    seed: int = 0,
    note: Callable[[str], None] = print,
) -> list[str]:
    """Writes the tasks of every domain as lm_eval reads them: JSONL, and a YAML file each.

    ``local_cloze_DOMAIN``: the next word after a text; right if all its tokens are the likeliest.
    ``local_continuation_DOMAIN``: how a text goes on, among three pieces of other documents of
    the domain; 0.25 by chance, since the pieces are equally long in tokens.

    Args:
        store: the corpus; only its validation documents are used.
        folder: theirs; files of an earlier suite in it are replaced.
        context: tokens that the model sees at once.
        examples: of each domain and kind, ≥ 1; fewer where the text gives no more.
        seed: of the draws.
        note: told of domains that are left out or give fewer examples.

    Returns:
        the names of the tasks.

    Raises:
        UserError: for numbers out of range, a corpus without a task, or an unwritable folder.
    """
    if examples < 1:
        raise UserError(f"--examples {examples}: it must be ≥ 1")
    if context < LEAST_CONTEXT:
        raise UserError(f"local tasks need a context of {LEAST_CONTEXT} tokens, it is {context}")
    made: dict[tuple[str, str], list[Example]] = {}
    for entry in store.domains:
        if entry.validation_documents == 0:
            note(f"{entry.name}: no local tasks, it has no validation documents")
            continue
        drawn = DomainExamples(store, entry.name, context, seed)
        for kind, draw in ((CLOZE, drawn.cloze), (CONTINUATION, drawn.continuations)):
            found = draw(examples)
            if found:
                made[kind, entry.name] = found
            _tell(note, f"{kind}_{entry.name}", len(found), examples, len(drawn.eligible))
    if not made:
        raise UserError(f"store {store.path}: no domain has enough text for local tasks")
    try:
        return _write(folder.resolve(), made, {"seed": seed, "corpus": store.fingerprint})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error


def _tell(note: Callable[[str], None], task: str, found: int, asked: int, documents: int) -> None:
    if found == 0:
        note(
            f"{task}: left out, {documents} validation documents are long enough and "
            f"{CHOICES} are needed, with words parted by blanks"
        )
    elif found < asked:
        note(f"{task}: {found} examples, its {documents} documents give no more")


def _write(
    folder: Path, made: dict[tuple[str, str], list[Example]], metadata: dict[str, Any]
) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob(f"{SUITE}_*.jsonl"), *folder.glob(f"{SUITE}_*.yaml")]:
        old.unlink()
    names = []
    for (kind, domain), found in made.items():
        name = f"{kind}_{domain}"
        data = folder / f"{name}.jsonl"
        lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in found]
        data.write_text("".join(lines), encoding="utf-8")
        task = {
            "task": name,
            "tag": [SUITE, kind],
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "context",
            "num_fewshot": 0,
            **SETTINGS[kind],
            "metadata": {"version": 1.0, **metadata},
        }
        text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        names.append(name)
    return names
