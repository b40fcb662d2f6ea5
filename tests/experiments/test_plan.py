"""A recipe with stages is read, checked, built and prepared once."""

from collections import Counter
from pathlib import Path

import pytest

from dograph.cli.main import main

DOREMI = Path(__file__).parent.parent.parent / "recipes" / "doremi_gpt2.yaml"


@pytest.fixture
def counts(monkeypatch):
    """How often each kind of work is done.

    "files" are YAML files parsed; "overrides" are the command line's, parsed together; "checks"
    are those of all of a recipe's sections; networks are counted by ``build_network``: "meta" ones
    have no memory, the others are the stages' and the reference model's, read from its checkpoint.
    """
    counts = Counter()

    def count(target, name):
        module, _, attribute = target.rpartition(".")
        function = getattr(__import__(module, fromlist=[attribute]), attribute)

        def counted(*arguments, **keywords):
            result = function(*arguments, **keywords)
            counts[name(result) if callable(name) else name] += 1
            return result

        monkeypatch.setattr(target, counted)

    def kind(network):
        return f"networks on {next(network.parameters()).device}"

    count("dograph.experiments.recipe.compose.load_bounded", "files")
    count("dograph.experiments.recipe.compose._parse_overrides", "overrides")
    for module in ("plan", "recipe.check"):  # where it is called from
        count(f"dograph.experiments.{module}.check", "checks")
    for module in ("plan", "run"):
        count(f"dograph.experiments.{module}.prepare", "prepared corpora")
    count("dograph.data.data_mixer.prepare", "prepared corpora")
    count("dograph.experiments.recipe.check.build_network", kind)
    count("dograph.training.language_model.build_network", kind)
    monkeypatch.setattr("dograph.experiments.recipe.check._buildable", set())
    return counts


def test_three_stages_read_check_build_and_prepare_once(
    store, corpus_settings, tmp_path, counts, capfd
):
    overrides = [
        *(f"corpus.source={corpus_settings.source}", f"corpus.store={corpus_settings.store}"),
        *("corpus.vocab_size=300", "corpus.validation_fraction=0.2", f"runs={tmp_path}"),
        "data={context: 16, batch_size: 8, validation_sequences: 4}",
        "model.config={n_layer: 1, n_embd: 16, n_head: 2}",
        *("trainer.max_steps=2", "trainer.val_check_interval=2", "report.figures_every=0"),
    ]
    assert main(["run", str(DOREMI), *overrides]) == 0
    assert counts == {
        "files": 7,  # the recipe, what it composes (data, model, trainer), and for each page
        "overrides": 1,
        "checks": 3,  # one a stage
        "networks on meta": 1,  # the stages' model sections are equal
        "networks on cpu": 4,  # one a stage, and the reference model of the proxy
        "prepared corpora": 1,
    }
    counts.clear()
    assert main(["run", str(DOREMI), *overrides]) == 0
    assert capfd.readouterr().out.count("finished before, used again") == 3
    assert counts == {"files": 4, "overrides": 1, "checks": 3, "prepared corpora": 1}
