"""The oracle on real small runs: search, validation, what it leaves, resuming, refusals."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.comparison.runs import find_runs
from dograph.experiments.oracle.search import Oracle
from dograph.experiments.recipe.compose import RecipeFile

SIZE = {"mixtures": 4, "rounds": 2, "seeds": 2, "processes": 2, "threads": 1}


def oracle(path, overrides=(), **more):
    console = Console(file=sys.stderr, width=200)
    return Oracle(RecipeFile(path, overrides), console=console, **{**SIZE, **more})


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("**/summary.json")}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_oracle_from_end_to_end(small_recipe, tmp_path, capfd, warm_sweeps):
    """Search, validation, resuming and replacing, with real runs."""
    path = small_recipe("small", more="target: code\n")
    path.write_text(path.read_text().replace("data: {", "data: {unseen: [code], "))
    words = [
        "oracle",
        str(path),
        "--mixtures",
        "4",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--threads",
        "1",
    ]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "fixed mixture" in said.splitlines()[-2]
    folder = tmp_path / "runs" / "small_oracle"
    content = json.loads((folder / "oracle.json").read_text())
    assert content["finished"]
    assert len(content["mixtures"]) == 6
    for mixture in content["mixtures"]:
        assert mixture["weights"].keys() == {"animals", "numbers"}
        (run,) = (folder / "mixtures" / mixture["folder"]).glob("seed_*")
        summary = json.loads((run / "summary.json").read_text())
        assert summary["target_loss"] == pytest.approx(mixture["loss"])
        assert summary["weights"]["last"]["code"] == 0
    validated = content["validated"]
    assert validated["seeds"] == [0, 1]
    losses, even = (validated[key]["values"] for key in ("loss", "loss_of_even"))
    gaps = [one - other for one, other in zip(even, losses, strict=True)]
    assert validated["gap"]["values"] == pytest.approx(gaps)
    assert content["cost"]["search"]["tokens"] == 6 * 8 * 8 * 16
    assert content["cost"]["validation"]["runs"] == 4
    # Its validated runs are ordinary ones; the search's are not taken for methods.
    runs = find_runs([tmp_path / "runs"])
    assert [(run.method, run.seed) for run in runs] == [("small_oracle", 0), ("small_oracle", 1)]
    assert find_runs([folder])[0].summary.mixer == "Fixed"
    check_resuming(path, folder, capfd)


def check_resuming(path, folder, capfd):
    before, record = times(folder), (folder / "oracle.json").read_text()
    # A run of the search and a validated one are gone: only these are made again.
    lost = [sorted(before)[0], folder / "seed_1" / "summary.json"]
    for summary in lost:
        summary.unlink()
    oracle(path).run()
    after = times(folder)
    assert {place for place in after if after[place] != before.get(place)} >= set(lost[1:])
    assert len(after) == len(before)
    same = json.loads((folder / "oracle.json").read_text())
    assert same["optimum"] == json.loads(record)["optimum"]
    assert same["validated"] == json.loads(record)["validated"]
    # A larger search takes all that was tried before.
    oracle(path, rounds=3, seeds=1).run()
    more = json.loads((folder / "oracle.json").read_text())["mixtures"]
    assert more[:6] == same["mixtures"]
    assert [each["round"] for each in more] == [1, 1, 1, 1, 2, 2, 3, 3]
    # Another recipe: refused, or asked for, and then nothing is lost.
    with pytest.raises(UserError, match=r"of another recipe \(changed: trainer.max_steps\)"):
        oracle(path, ["trainer.max_steps=6"]).run()
    capfd.readouterr()
    smaller = {"mixtures": 2, "rounds": 1, "seeds": 1}
    oracle(path, ["trainer.max_steps=6"], force=True, **smaller).run()
    assert "moved to" in capfd.readouterr().err
    earlier = folder / "mixtures" / "earlier_optimum"
    assert {"seed_0", "seed_1"} <= {place.name for place in earlier.iterdir()}
    assert len(find_runs([folder])) == 1


def test_mistakes_show_before_anything_runs(small_recipe, tmp_path):
    path = small_recipe("small")
    for key, value in (("mixtures", 1), ("rounds", 0), ("seeds", 0)):
        with pytest.raises(UserError, match=f"command line: {key} is {value}"):
            oracle(path, **{key: value})
    with pytest.raises(UserError, match="one mixture of the domains to train on"):
        oracle(path, ["data.unseen=[code,animals]"]).run()
    with pytest.raises(UserError, match="limits are set: an oracle tries mixtures beyond them"):
        oracle(path, ["limits.at_most.code=0.3"])
    with pytest.raises(UserError, match="nosuch"):
        oracle(path, ["target=nosuch"]).run()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "small_oracle" / "seed_0" / "figures").mkdir(parents=True)
    with pytest.raises(UserError, match="holds runs that no oracle made"):
        oracle(path).run()
    record = {"inputs": oracle(path)._inputs, "mixtures": [{"round": 1, "weights": {"code": 1}}]}
    (tmp_path / "runs" / "small_oracle" / "oracle.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"oracle\.json is damaged"):
        oracle(path).run()


def test_a_staged_recipe_lends_its_last_stage(small_recipe):
    path = Path(__file__).parents[3] / "recipes" / "doge_gpt2.yaml"
    recipe = oracle(path, ["stages.main.trainer.max_steps=7"]).recipe
    assert (recipe.name, recipe.steps) == ("doge_gpt2", 7)
