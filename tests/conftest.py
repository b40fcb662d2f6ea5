"""Small real corpora and runs that many tests share."""

import json
import os
import random
import zlib
from pathlib import Path

import pytest
from warm import WarmTokenizeProcess, start_warm_run

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.tokenize_process import TokenizeProcess

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
WORDS = {
    "animals": "the cat dog horse mouse lion runs sleeps eats jumps hides under tree house",
    "numbers": "one two three four five six seven plus minus times equals sum half double",
    "code": "def return import class self for if else while lambda yield ( ) [ ] : = + -",
}


def write_corpus(folder: Path, documents: dict[str, int]) -> Path:
    """JSONL files of random sentences, a domain each with its own words."""
    folder.mkdir(parents=True, exist_ok=True)
    for domain, count in documents.items():
        draw = random.Random(zlib.crc32(domain.encode()))
        words = WORDS.get(domain, WORDS["animals"]).split()
        with (folder / f"{domain}.jsonl").open("w") as file:
            for number in range(count):
                text = " ".join(draw.choices(words, k=120)) + f" {number}"
                file.write(json.dumps({"text": text}) + "\n")
    return folder


@pytest.fixture(scope="session", autouse=True)
def warm_tokenizing():
    """Corpora are tokenised by forked processes, except in tests that use `cold_tokenizing`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dograph.data.corpus.prepare.TokenizeProcess", WarmTokenizeProcess)
        yield


@pytest.fixture
def cold_tokenizing(monkeypatch):
    """Corpora are tokenised by processes that start as users' do."""
    monkeypatch.setattr("dograph.data.corpus.prepare.TokenizeProcess", TokenizeProcess)


@pytest.fixture
def warm_sweeps(monkeypatch):
    """Runs of a sweep are forked processes."""
    monkeypatch.setattr("dograph.experiments.sweep.start_run", start_warm_run)


@pytest.fixture(scope="session")
def make_corpus():
    """Writes a corpus into a folder, by the number of documents of each domain."""
    return write_corpus


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """Three domains of 60, 120 and 240 documents."""
    folder = tmp_path_factory.mktemp("corpus") / "text"
    return write_corpus(folder, {"animals": 60, "numbers": 120, "code": 240})


@pytest.fixture(scope="session")
def corpus_settings(corpus_folder, tmp_path_factory):
    """Settings of the small corpus, to be prepared or already prepared."""
    store = tmp_path_factory.mktemp("stores") / "small"
    return CorpusSettings(
        source=str(corpus_folder), vocab_size=300, store=str(store), validation_fraction=0.2
    )


@pytest.fixture(scope="session")
def store(corpus_settings):
    """The small corpus, prepared once."""
    return prepare(corpus_settings, progress=False)


SMALL_RECIPE = """\
name: {name}
mixer:
  class_path: {mixer}
model:
  config: {{n_layer: 1, n_embd: 16, n_head: 2}}
  warmup: 2
data: {{context: 16, batch_size: 8, validation_sequences: 4}}
trainer: {{accelerator: cpu, max_steps: {steps}, val_check_interval: 4, log_every_n_steps: 4}}
report: {{every: 4, figures_every: 0, checkpoint_every: 4}}
corpus:
  source: {source}
  store: {store}
  vocab_size: 300
  validation_fraction: 0.2
"""


@pytest.fixture(scope="session")
def recipe_text(corpus_settings, store):
    """A small recipe's text by name, mixer and steps; it has no `runs`."""

    def text(name, mixer="dograph.mixers.Stratified", steps=8):
        source, place = corpus_settings.source, corpus_settings.store
        return SMALL_RECIPE.format(name=name, mixer=mixer, steps=steps, source=source, store=place)

    return text


@pytest.fixture
def small_recipe(tmp_path, recipe_text):
    """Writes a small recipe by name and mixer."""

    def write(name, mixer="dograph.mixers.Stratified", steps=8, more=""):
        path = tmp_path / f"{name}.yaml"
        text = recipe_text(name, mixer, steps)
        path.write_text(text + f"runs: {tmp_path / 'runs'}\n" + more)
        return path

    return write
