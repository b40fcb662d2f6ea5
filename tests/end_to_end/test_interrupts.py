"""Ctrl-C while a corpus is prepared: the command ends at once, and leaves nothing running."""

import itertools
import json
import random
import signal
import subprocess
import sys
import time

import pytest


def corpus(folder):
    """A domain of few words, and one of two documents that are one word each."""
    draw = random.Random(0)  # long enough to train on that a busy machine is not too late
    texts = {
        "words": [f"{number} " + "one two three " * 50 for number in range(40)],
        "letters": ["".join(draw.choices("ACGT", k=2_000_000)) for _ in range(6)],
    }
    folder.mkdir()
    for domain, documents in texts.items():
        lines = [json.dumps({"text": text}) for text in documents]
        (folder / f"{domain}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_ctrl_c_ends_the_training_of_a_tokenizer_at_once(tmp_path):
    """Soon, by how long the command needed to begin on a busy machine."""
    recipe, store = tmp_path / "recipe.yaml", tmp_path / "store"
    source = str(corpus(tmp_path / "text"))
    section = {"source": source, "vocab_size": 50_000, "store": str(store)}
    recipe.write_text(json.dumps({"corpus": section}))
    command = [sys.executable, "-m", "dograph", "prepare", str(recipe)]
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = iter(process.stdout.readline, b"")
        output = b"".join(itertools.takewhile(lambda line: b"tokenizer: begins" not in line, lines))
        assert process.poll() is None, output.decode()
        begun = time.monotonic() - begin
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        output = process.communicate()[0].decode()  # to its end: no process is left that holds it
    assert time.monotonic() - interrupted < max(10, 3 * begun)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not store.exists()
