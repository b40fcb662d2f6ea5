"""A run through the command line, of a tiny model on the small corpus."""

from pathlib import Path

import pytest

from dograph.cli.main import main

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def run_folder(store, corpus_settings, tmp_path_factory):
    """A finished run of 20 steps with a context of 32 tokens."""
    runs = tmp_path_factory.mktemp("runs")
    overrides = [
        f"corpus.source={corpus_settings.source}",
        f"corpus.store={corpus_settings.store}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data={context: 32, batch_size: 16, validation_sequences: 24}",
        "model.config={n_layer: 2, n_embd: 32, n_head: 2}",
        "trainer={max_steps: 20, val_check_interval: 20}",
        f"runs={runs}",
    ]
    assert main(["run", str(ROOT / "recipes" / "uniform_gpt2.yaml"), *overrides]) == 0
    return runs / "uniform_gpt2" / "seed_0"
