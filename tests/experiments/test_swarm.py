"""A swarm of real small runs, and the laws that are fitted to it."""

import json
import sys

import pytest
from rich.console import Console

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.comparison.runs import find_runs
from dograph.experiments.laws.run_table import read_runs
from dograph.experiments.plan import Corpora
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.recipe.swarm_section import SwarmSettings
from dograph.experiments.swarm import Swarm


def swarm(path, overrides=(), **more):
    console = Console(file=sys.stderr, width=200)
    return Swarm.of(RecipeFile(path, overrides), SwarmSettings(**more), console)


def test_the_designs_choose_mixtures_of_the_drawn_domains(small_recipe):
    path = small_recipe("small")
    chosen = swarm(path, mixtures=10).chosen()
    assert chosen.shape == (13, 3)  # a corner for each domain
    assert chosen[-3:].max(axis=1) == pytest.approx([0.85] * 3)
    assert swarm(path, mixtures=10, corners=0).chosen().tolist() == chosen[:10].tolist()
    assert swarm(path).chosen().shape == (35, 3)
    alone = swarm(path, mixtures=0, corners=1.0).chosen()  # a model of each domain
    assert alone.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    unseen = swarm(path, ["data.unseen=[code]"], mixtures=5, design="oracle")
    assert unseen.chosen().shape == (5, 2)
    assert unseen.domains == ("animals", "numbers")


def test_a_capped_domain_is_as_large_as_its_cap(small_recipe):
    """RegMix draws around the domains' shares of the tokens, and never above 15 times one."""
    path = small_recipe("small")
    whole, capped = (
        swarm(path, more, mixtures=10, corners=0).chosen()[:, 1].max()
        for more in ([], ["data.cap={code: 100}"])
    )
    assert capped < 0.1 < whole


def test_mistakes_show_before_anything_runs(small_recipe, tmp_path):
    path = small_recipe("small")
    for key, value in (("mixtures", 1), ("repeats", -1), ("corners", 1.5), ("processes", 0)):
        with pytest.raises(UserError, match=f"command line: {key} is {value}"):
            swarm(path, **{key: value})
    with pytest.raises(UserError, match=r"design is 'regmx'; did you mean 'regmix'"):
        swarm(path, design="regmx")
    with pytest.raises(UserError, match="one mixture of the domains to train on"):
        swarm(path, ["data.unseen=[code,animals]"]).run()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_swarm_and_its_laws_from_end_to_end(small_recipe, tmp_path, capfd):
    path = small_recipe("small", more="target: code\n")
    words = ["swarm", str(path), "--mixtures", "3", "--repeats", "2", "--curves"]
    words += ["--jobs", "2", "--threads", "1"]
    assert main(words) == 0
    folder = tmp_path / "runs" / "small_swarm"
    assert capfd.readouterr().out.endswith(f"dograph fit {folder} --law regmix\n")
    assert json.loads((folder / "swarm.json").read_text())["finished"]
    # Its runs are no methods.
    with pytest.raises(UserError, match="no finished run in it"):
        find_runs([tmp_path / "runs"])
    before = {file: file.stat().st_mtime_ns for file in folder.glob("**/summary.json")}
    assert len(before) == 3 + 3 + 2
    table = read_runs([folder])
    assert table.domains == table.names == ("animals", "code", "numbers")
    assert (len(table.losses), table.count) == (8, 7)
    assert table.target == {"code": 1.0}
    assert table.noise(table.losses[:, 0]) > 0
    store = Corpora().prepare(swarm(path).recipe)
    tokens = {entry.name: entry.train_tokens for entry in store.domains}
    assert table.sizes == pytest.approx(tokens, rel=0.1)  # whole sequences of them
    curves = read_runs([folder], whole=True)
    assert sorted(set(curves.steps)) == [4, 8]
    check_fits(folder, capfd)
    # Given again nothing runs; more mixtures add to them; another recipe is refused.
    assert main(words) == 0
    assert {f: f.stat().st_mtime_ns for f in folder.glob("**/summary.json")} == before
    with pytest.raises(UserError, match=r"of another recipe \(changed: trainer.max_steps\)"):
        swarm(path, ["trainer.max_steps=9"], curves=True).run()
    with pytest.raises(UserError, match=r"of another recipe \(changed: --curves\)"):
        swarm(path).run()


def check_fits(folder, capfd):
    for law in ("gp", "bimix"):
        assert main(["fit", str(folder), "--law", law, "--at-most", "code=0.5"]) == 0
        content = json.loads((folder / "fit.json").read_text())
        assert content["law"] == law
        assert content["target"] == {"animals": 0.0, "code": 1.0, "numbers": 0.0}
        assert content["weights"]["code"] <= 0.5
        assert sum(content["weights"].values()) == pytest.approx(1, abs=1e-3)
        assert content["errors"]["target"]["noise"] > 0
        assert len(content["sources"]) == 8
        assert content["sentence"] in capfd.readouterr().out
    assert content["parameters"]["code"]["beta"] > 0  # of steps, too
