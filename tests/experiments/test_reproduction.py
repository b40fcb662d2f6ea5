"""A finished run once more: the same to the bit, or what is not."""

import json

import pytest

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.reproduction import reproduce, runs_of
from dograph.experiments.run import run


@pytest.fixture
def finished(small_recipe, capfd):
    """A finished run of DoGraph."""
    folder = run(
        check(compose(small_recipe("small", "dograph.mixers.DoGraph\n  init_args: {clusters: 4}")))
    )
    capfd.readouterr()
    return folder


def test_a_run_agrees_with_itself_and_a_tampered_one_does_not(finished, capfd):
    assert main(["reproduce", str(finished)]) == 0
    out = capfd.readouterr().out
    assert "the same to the bit" in out
    assert (finished / "reproduced" / "summary.json").is_file()
    # The last bit of one loss.
    path = finished / "history.json"
    history = json.loads(path.read_text())
    losses = history["validations"][-1]["losses"]
    losses["code"] += 2**-50
    path.write_text(json.dumps(history))
    assert main(["reproduce", str(finished)]) == 1
    out = " ".join(capfd.readouterr().out.split())
    assert "NOT the same: losses differ by up to 8.88e-16 nats" in out
    assert "validations[1].losses.code" in out
    assert (finished / "reproduced_1").is_dir()


def test_another_host_and_a_vanished_store_are_told(finished, capfd, tmp_path):
    path = finished / "provenance.json"
    facts = json.loads(path.read_text())
    facts["versions"]["torch"], facts["host"]["processor"] = "1.0", "Abacus"
    path.write_text(json.dumps(facts))
    changed = reproduce(finished).changed
    assert any(text.startswith("version of torch: 1.0 → ") for text in changed)
    assert any(text.startswith("processor: Abacus → ") for text in changed)
    facts["fingerprint"] = "0ther"
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="the corpus is no longer what"):
        reproduce(finished)


def test_what_is_no_finished_run_is_refused(tmp_path, finished):
    with pytest.raises(UserError, match="no finished run"):
        runs_of(tmp_path / "nowhere")
    (finished / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary\.json is missing"):
        runs_of(finished)
