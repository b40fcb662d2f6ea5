"""kill -9 at random instants: what was run again ends as if it had never been killed."""

from collections import Counter

import pytest
from outcomes import ROOT, arguments, differing, outcome
from restarts import Restarts
from short_recipes import CLUSTERS, SHORT, stages_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PHASES = ("preparing", "training", "checkpointing", "evaluating")
MOST_CHAINS = 8
TARGETS = ("preparing", None, "training", "checkpointing", None, "evaluating", "checkpointing")
OTHERS = ("doge_gpt2", "dograph_proxy_gpt2", "phases_gpt2", "regmix_gpt2", "skill_it_learnt_gpt2")
"""A recipe for every kind of run and of state.

The matrix (`tests/end_to_end/test_matrix.py`) tests that every mixer's state is whole after a stop.
"""


def kill_until(
    count, name, steps, folders, settings, tmp_path, chance, *more, targets=TARGETS, phases=()
):
    """Chains of restarts until ``count`` kills hit all ``phases``, each compared with no kill.

    A chain begins with the first target, since a corpus is prepared just once.
    """
    whole = tmp_path / "whole"
    whole.mkdir()
    Restarts(arguments(name, settings, whole, steps, *more), whole / "log", chance).run([])
    expected = {folder: outcome(whole / "runs" / name / folder) for folder in folders}
    kills, chain = [], 0
    while len(kills) < count or (set(phases) - set(kills) and chain < MOST_CHAINS):
        place = tmp_path / f"chain_{chain}"
        place.mkdir()
        restarts = Restarts(arguments(name, settings, place, steps, *more), place / "log", chance)
        restarts.run([*targets[:1], *chance.sample(targets[1:], len(targets) - 1)])
        for folder, before in expected.items():
            wrong = differing(before, outcome(place / "runs" / name / folder))
            assert not wrong, f"{folder} after kills in {restarts.kills}: {wrong[:10]}"
        leftover = list((place / "runs" / name).glob("**/*.partial"))
        assert not leftover
        kills += restarts.kills
        chain += 1
    print(f"{len(kills)} kills in {chain} runs, all equal in the end: {dict(Counter(kills))}")
    return Counter(kills)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_dograph_survives(corpus_settings, tmp_path, chance, workers):
    """Kills at any instant: of prepare and of DoGraph's run, with and without loader processes."""
    more = [f"data.workers={workers}", CLUSTERS]
    given = (10, "dograph_gpt2", 64, ["seed_0"], corpus_settings, tmp_path, chance, *more)
    kills = kill_until(*given, phases=PHASES)
    assert all(kills[phase] for phase in PHASES), kills


def test_doremis_three_stages_survive(corpus_settings, tmp_path, chance):
    """What stages hand over is whole, or made again."""
    folders = ["seed_0/reference", "seed_0/proxy", "seed_0/main"]
    kills = kill_until(7, "doremi_gpt2", 24, folders, corpus_settings, tmp_path, chance)
    assert kills["training"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_recipes_survive(name, corpus_settings, store, tmp_path, chance):
    """Stages, swarms, ramps; the corpus is there already."""
    runs = stages_of(ROOT / "recipes" / f"{name}.yaml")
    folders = [f"seed_0/{stage}" if stage else "seed_0" for stage, *_ in runs]
    more = [f"data.workers={chance.choice([0, 2])}", *SHORT.get(name, [])]
    more += [f"corpus.store={corpus_settings.store}"]
    targets = ("training", "checkpointing", None)
    kills = kill_until(
        3, name, 24, folders, corpus_settings, tmp_path, chance, *more, targets=targets
    )
    assert kills.total() >= 3
