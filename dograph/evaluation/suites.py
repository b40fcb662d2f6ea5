"""The suites of downstream tasks, and which one a task belongs to."""

from __future__ import annotations

LOCAL, CLOZE, CONTINUATION = "local", "local_cloze", "local_continuation"
"""The suite made of a store's text, and its two kinds of tasks, which have a mean each."""
PAPER = (
    "piqa",
    "hellaswag",
    "lambada_openai",
    "copa",
    "openbookqa",
    "winogrande",
    "sciq",
    "logiqa",
    "arc_easy",
)
"""The suite ``paper``: the tasks DoGraph was published with; their text comes from a hub."""
NAMED = "named"
"""Suite of all other tasks; it has no mean."""


def suite_of(task: str) -> str:
    """The suite of a task: "local_cloze", "local_continuation", "paper" or "named"."""
    for kind in (CLOZE, CONTINUATION):
        if task.startswith(f"{kind}_"):
            return kind
    return "paper" if task in PAPER else NAMED
