"""Every exported mixer is described, by what its class and its recipes say."""

import re
from pathlib import Path

import pytest

from dograph.experiments.mixer_list import describe_mixers, shipped_mixers
from dograph.experiments.recipe.shipped import shipped_recipes
from dograph.mixers import BaseMixer, DoGE, Proportional, Sketch
from dograph.signals.batch_signals import Probe, Request

README = Path(__file__).parent.parent.parent / "README.md"
OURS = {
    "ByLevel",
    "DoGraphSchedule",
    "Fixed",
    "Phases",
    "Proportional",
    "Stratified",
    "Temperature",
}
"""Mixers without a paper."""


@pytest.fixture(scope="module")
def described():
    return {each.name: each for each in describe_mixers(shipped_mixers())}


def test_every_exported_mixer_is_described(described):
    rows = re.findall(r"^\| .*`\w+`.*\| .*\|", README.read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named <= described.keys()
    for name, each in described.items():
        assert each.class_path == f"dograph.mixers.{name}"
        assert each.summary.endswith((".", "α_s = n_s / Σ n.")) and len(each.summary) > 20
        assert each.acts_on and each.costs
        assert (each.paper is None) == (name in OURS)
        assert each.recipes


def test_every_shipped_recipe_is_of_one_mixer(described):
    about = [recipe for each in described.values() for recipe in each.recipes]
    assert sorted(about) == list(shipped_recipes())


def test_what_mixers_act_on_and_cost(described):
    assert described["Proportional"].acts_on == "what is drawn, fixed before the first step"
    assert described["Proportional"].costs == "nothing more"
    assert described["Fixed"].recipes == ("mixmin_gpt2", "regmix_gpt2")
    assert described["Fixed"].costs == "nothing more"
    assert described["ODM"].acts_on == "what is drawn"
    assert described["DynamicLoss"].acts_on == "how losses count"
    doremi = described["DoReMi"]
    assert doremi.acts_on == "the loss of a proxy, whose average weights a later stage draws by"
    assert doremi.costs == (
        "a reference model's forward in each step; 3 stages (reference, proxy, main)"
    )
    assert described["DoReMiOnline"].costs == "nothing more"  # without a reference
    assert "backward for each domain" in described["DoGE"].costs
    assert described["DoGE"].paper == "Fan et al. 2024, arXiv 2310.15393"
    assert described["DoGraphSchedule"].recipes == ("dograph_proxy_gpt2", "dograph_schedule_gpt2")


def test_who_follows_the_target_and_has_limits(described):
    follow = {name for name, each in described.items() if each.target}
    by_itself = {"Aioli", "DoGE", "DoGEOnline", "DoGraphSchedule", "GRAPE", "SkillIt"}
    assert follow == {*by_itself, "ByLevel", "Phases"}  # if their mixers do
    limits = {name: each.limits for name, each in described.items() if each.limits}
    assert limits == {
        "ADO": ("least",),
        "DoGEOnline": ("floor",),
        "DoGraph": ("max_difference", "cluster_floor"),
        "DoGraphSchedule": ("problem.max_difference", "problem.floor", "problem.target_floor"),
        "DoReMiOnline": ("floor",),
        "UniMax": ("max_epochs",),
    }


def test_every_request_says_what_it_costs():
    for request in Request.__args__:
        assert request.costs


class Plain(DoGE):
    """A user's own, by another rule (arXiv 2401.00001)."""

    needs = frozenset({Sketch()})

    def __init__(self, path: Path, floor: float = 0.1):
        BaseMixer.__init__(self, floor=floor)
        if not path.name:
            raise ValueError

    def update(self, signals):
        return self.weights


class Probing(BaseMixer):
    """Reads what is held out of the target's domains."""

    needs = frozenset({Probe(4, 4)})

    def loss_weights(self, signals):
        return signals.even_weights()


class Elsewhere(Probing):
    """Reads what is held out of another domain."""

    needs = frozenset({Probe(4, 4, domains=("code",))})


def test_a_user_s_mixers_are_described_alike():
    plain, probing, elsewhere, known = describe_mixers([Plain, Probing, Elsewhere, Proportional])
    assert plain.class_path == f"{Plain.__module__}.Plain"
    assert (plain.summary, plain.paper) == ("A user's own, by another rule.", "arXiv 2401.00001")
    assert plain.costs is None  # it cannot be made without a path
    assert (plain.limits, plain.recipes) == (("floor",), ())
    assert (plain.target, probing.target, elsewhere.target) == (True, True, False)
    assert known.recipes == ("proportional_gpt2",)
