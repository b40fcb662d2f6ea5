"""Small real runs to compare: two methods with two seeds each."""

from pathlib import Path

import pytest
from written_runs import write_experiment, write_study

from dograph.cli.main import main
from dograph.experiments.comparison.comparison import compare

RECIPES = Path(__file__).parent.parent.parent.parent / "recipes"
METHODS = {"uniform_gpt2": [], "dynamic_loss_gpt2": ["mixer.init_args.warmup=2"]}
SEEDS = (0, 1)
ODD_NAME = "<script>document.title='run'</script> *a* | b_ [c](d) & (.*"


def shrunk(settings, runs):
    """Overrides for a tiny model on the small corpus: 12 steps, 3 validations, 3 points."""
    return [
        f"corpus.source={settings.source}",
        f"corpus.store={settings.store}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data.context=16",
        "data.batch_size=8",
        "data.validation_sequences=8",
        "model.config={n_layer: 1, n_embd: 16, n_head: 2}",
        "trainer.max_steps=12",
        "trainer.val_check_interval=4",
        "report={every: 4, figures_every: 0, window: 1, checkpoint_every: 100}",
        f"runs={runs}",
    ]


@pytest.fixture(scope="session")
def finished_runs(store, corpus_settings, tmp_path_factory):
    """The folder of all runs; read-only."""
    runs = tmp_path_factory.mktemp("compared") / "runs"
    for name, own in METHODS.items():
        for seed in SEEDS:
            recipe = str(RECIPES / f"{name}.yaml")
            overrides = [*shrunk(corpus_settings, runs), *own, f"seed={seed}"]
            assert main(["run", recipe, *overrides]) == 0
    return runs


@pytest.fixture(scope="session")
def oddly_named_runs(finished_runs, tmp_path_factory):
    """The same runs as of a corpus whose domain `code` has a name of HTML and Markdown."""
    runs = tmp_path_factory.mktemp("odd") / "runs"
    for file in finished_runs.glob("*/*/*.*"):
        if file.name in ("summary.json", "history.json", "provenance.json", "recipe.yaml"):
            copy = runs / file.relative_to(finished_runs)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(file.read_text().replace('"code"', f'"{ODD_NAME}"'))
    return runs


@pytest.fixture(scope="session")
def finished(finished_runs):
    """The comparison of the finished runs."""
    return compare([finished_runs])


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Known runs: uniform, a better method and a worse one with stages, five seeds each."""
    runs = write_study(tmp_path_factory.mktemp("study"), spread=0.01)
    for seed in range(5):
        write_experiment(runs / "staged_gpt2" / f"seed_{seed}", seed, [(5.0, 5.0), (9.0, 9.5)])
    return runs
