"""Small corpora made on the spot."""

import json
import random
from pathlib import Path

WORDS = ["tensor", "graph", "weight", "domain", "mixes", "learns", "text", "of", "loss", "and"]


def sentences(seed: int, count: int, words: int = 60) -> list[str]:
    """Documents that differ, made of few words so that a small vocabulary suffices."""
    draw = random.Random(seed)
    return [f"{number} " + " ".join(draw.choices(WORDS, k=words)) for number in range(count)]


def write_corpus(folder: Path, documents: int = 60) -> Path:
    """Two domains: a folder of text files, and a JSONL file."""
    (folder / "notes").mkdir(parents=True)
    for number, text in enumerate(sentences(1, documents)):
        (folder / "notes" / f"{number}.txt").write_text(text)
    lines = [json.dumps({"text": text}) for text in sentences(2, 2 * documents)]
    (folder / "web.jsonl").write_text("\n".join(lines))
    return folder
