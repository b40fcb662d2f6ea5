"""kill -9 at random instants: what was run again ends as if it had never been killed."""

from collections import Counter
from pathlib import Path

import pytest
from lives import Lives
from outcomes import differing, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parent.parent.parent


def arguments(name, settings, place, steps, *more):
    """A recipe, shrunk; its corpus is prepared anew in ``place``."""
    return [
        str(ROOT / "recipes" / f"{name}.yaml"),
        f"corpus.source={settings.source}",
        f"corpus.store={place / 'store'}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data={context: 32, batch_size: 16, validation_sequences: 16}",
        "model.config={n_layer: 2, n_embd: 32, n_head: 2}",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=10",
        "report={every: 4, figures_every: 20, window: 4, checkpoint_every: 10}",
        f"runs={place / 'runs'}",
        *more,
    ]


def kill_until(count, name, steps, folders, settings, tmp_path, chance, *more):
    """Chains of killed lives until there were ``count`` kills; each is compared with no kill."""
    whole = tmp_path / "whole"
    whole.mkdir()
    Lives(arguments(name, settings, whole, steps, *more), whole / "log", chance).run([])
    expected = {folder: outcome(whole / "runs" / name / folder) for folder in folders}
    kills, chain = [], 0
    while len(kills) < count:
        place = tmp_path / f"chain_{chain}"
        place.mkdir()
        targets = [None, "training", "checkpointing", None, "evaluating", "checkpointing"]
        lives = Lives(arguments(name, settings, place, steps, *more), place / "log", chance)
        lives.run(["preparing", *chance.sample(targets, len(targets))])
        for folder, before in expected.items():
            wrong = differing(before, outcome(place / "runs" / name / folder))
            assert not wrong, f"{folder} after kills in {lives.kills}: {wrong[:10]}"
        leftover = list((place / "runs" / name).glob("**/*.partial"))
        assert not leftover
        kills += lives.kills
        chain += 1
    print(f"{len(kills)} kills in {chain} runs, all equal in the end: {dict(Counter(kills))}")
    return Counter(kills)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_dograph_survives(corpus_settings, tmp_path, chance, workers):
    more = [f"data.workers={workers}", "mixer.init_args.clusters=4"]
    kills = kill_until(18, "dograph_gpt2", 64, ["seed_0"], corpus_settings, tmp_path, chance, *more)
    for phase in ("preparing", "training", "checkpointing", "evaluating"):
        assert kills[phase], phase


def test_doremis_three_stages_survive(corpus_settings, tmp_path, chance):
    folders = ["seed_0/reference", "seed_0/proxy", "seed_0/main"]
    kills = kill_until(12, "doremi_gpt2", 24, folders, corpus_settings, tmp_path, chance)
    assert kills["training"]
