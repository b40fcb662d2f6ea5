"""The package says things in the field's words: those that it once had of its own do not return."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dograph"
REPLACED = {
    r"SignalGatherer|\bgathering\b": "SignalCollector, signal_collector",
    r"NumericsWatch|\bnumerics\b": "NonFiniteGuard, non_finite",
    r"as_record": "from_dict",
    r"[Ss]tranger": "untrusted",
    r"SealedFile|\b[Ss]ealed\b|\bunsealed\b": "VerifiedFile, verified",
    r"ChunkLook": "check_chunk",
    r"\bpack(ing|er|ers)\b": "tokenize_worker, tokenize_process",
    r"\bexpansion\b": "decompression",
    r"\bduplicates\.\w": "dedup",
    r"\bSeen\b|\bseen\.(?!sqlite)|\bseen: ": "BatchSignals, signals",
    r"rehears": "dry_run",
    r"sequence_weights|\bmixer\.weigh\b": "loss_weights",
    r"exponentiated(?!_gradient)": "exponentiated_gradient",
    r"mirrored": "mirror_descent",
    r"handed_out": "in_flight",
    r"(?<!Hugging )\bFace\b|\bpressure\b|\bslopes?\b": "ActiveSet, duals, gradient",
    r"\bdef refine|\.refine\b|refinement": "polish",
    r"class (Record|Above)\b|\bAbove\(|own_gradients": "LayerCall, SharedRegion",
    r"\bsubject\.|\bsubject: |class Subject": "EvaluatedModel, evaluated",
    r"\bReach\b|\.reach\b": "TimeToTarget",
    r"\bfacts\b|facts_": "metadata",
    r"\blocated\b": "build",
    r"\b(def )?say\(|\btold\(": "rank_zero_print, message",
    r"contestant": "baseline",
    r"method 1b|method 1\.4": "nothing: docs/ has no such page",
    r"\b(go|goes|going|went|gone) on\b(?! the page)": "resume, continue",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\blets? go of\b": "frees",
    r"slip of the pen": "typo",
    r"^\s*found\b|\bfound [:=]": "the name of what was found",
}
"""What is no longer said, and what is said instead."""
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(file below the package, the word as it stands there) → why it may."""
FILES_REPLACED = {
    *("gathering", "saving", "numerics", "sealed", "partial", "packing", "packer", "expansion"),
    *("duplicates", "passes", "subject", "origin", "looks", "placement", "refinement", "schedule"),
}
"""Names of modules that the tree no longer has."""


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("word", REPLACED)
def test_word_is_gone(word):
    left = []
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]):
        name = str(path.relative_to(PACKAGE))
        for number, line in enumerate(text_of(path).splitlines(), 1):
            for match in re.finditer(word, line):
                if (name, match[0].strip()) not in EXCEPTIONS:
                    left.append(f"{name}:{number}: {line.strip()}")
    assert not left, f"say {REPLACED[word]}:\n" + "\n".join(left)


def test_exceptions_are_still_needed():
    for name, word in EXCEPTIONS:
        assert word in text_of(PACKAGE / name)


def test_module_names_are_the_field_s():
    names = {path.stem for path in PACKAGE.rglob("*.py")} - {"schedule"}
    assert not names & FILES_REPLACED
