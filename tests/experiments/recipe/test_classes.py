"""Classes that recipes name come from installed packages, or from where the user says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm import start_command

from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.classes import allow_code
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import build_trainer, is_sharded

MAIN = Path(__file__).parent.parent.parent.parent / "recipes" / "dograph_gpt2.yaml"
OWN = """\
from pathlib import Path
from dograph.mixers import Stratified
Path("{trap}").touch()
class Own(Stratified):
    pass
"""


def refused(override):
    with pytest.raises(UserError) as caught:
        check(compose(MAIN, [override]))
    return str(caught.value)


@pytest.fixture
def own_mixer(tmp_path):
    """A folder with a mixer, and the file that appears once its code has run."""
    (tmp_path / "hidden.py").write_text(OWN.format(trap=tmp_path / "ran"))
    return tmp_path, tmp_path / "ran"


def command(folder, *words):
    """The command, as a shell in ``folder`` runs it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    source = str(MAIN.parent.parent)
    code = f"import sys; sys.path.insert(0, {source!r}); from dograph.cli.main import main; "
    return subprocess.run(
        [sys.executable, "-P", "-c", code + f"sys.exit(main({list(words)}))"]
        if sys.version_info >= (3, 11)
        else [sys.executable, "-m", "dograph", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_code_beside_a_recipe_is_not_imported(own_mixer):
    folder, trap = own_mixer
    words = ["run", str(MAIN), "--check", "mixer={class_path: hidden.Own}"]
    ended = command(folder, *words)
    assert ended.returncode == 2
    assert "'hidden.Own', which cannot be imported" in ended.stderr
    assert "--mixers" in ended.stderr
    assert not trap.exists()


@pytest.mark.parametrize("named", [".", "hidden.py"])
def test_code_that_the_user_names_is(own_mixer, named, monkeypatch):
    folder, trap = own_mixer
    monkeypatch.chdir(folder)
    words = ["run", str(MAIN), "--check", "mixer={class_path: hidden.Own}", "--mixers", named]
    assert start_command(words, folder / "log").wait(60) == 0
    assert "class_path: hidden.Own" in (folder / "log").read_text()
    assert trap.exists()


def test_mixers_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--mixers .*nothing\.py: name a Python file"):
        allow_code(tmp_path / "nothing.py")


@pytest.mark.parametrize(
    "override",
    [
        "mixer={class_path: os.system}",
        "mixer={class_path: antigravity.Anything}",
        "trainer.strategy={class_path: this.that}",
        "trainer.profiler=antigravity.Anything",
        "trainer.plugins=[{class_path: antigravity.Anything}]",
    ],
)
def test_pythons_own_modules_are_not_imported(override):
    assert "standard library" in refused(override) or "name a class as" in refused(override)
    assert "antigravity" not in sys.modules


DDP = "class_path: lightning.pytorch.strategies.DDPStrategy"
POPEN = "torch.utils.cpp_extension.subprocess.Popen"


@pytest.mark.parametrize(
    "override",
    [
        f"trainer.strategy={{{DDP}, init_args: {{ddp_comm_state: {{class_path: {POPEN}}}}}}}",
        f"trainer.strategy={{{DDP}, init_args: {{ddp_comm_hook: {POPEN}}}}}",
        f"trainer.strategy={{{DDP}, dict_kwargs: {{ddp_comm_state: Popen}}}}",
        f"trainer.strategy={{{DDP}, init_args: {{process_group_backend: a.b}}}}",
        f"trainer.strategy={{class_path: {POPEN}}}",
        f"trainer.plugins=[{{class_path: {POPEN}, init_args: {{args: ls}}}}]",
        "trainer.plugins=[{class_path: Popen}]",
        f"trainer.accelerator={POPEN}",
        "mixer={class_path: torch.utils.cpp_extension.subprocess.Popen}",
    ],
)
def test_no_argument_builds_what_it_likes(override):
    """Types as wide as ``object``, and modules that a module imports, are ways to any code."""
    text = refused(override)
    assert any(
        words in text
        for words in (
            "is not allowed in a recipe",
            "cannot be imported",
            "name a class",
            "an invalid class path",
        )
    ), text


def test_trainer_keys_that_a_run_has_no_use_for_say_so():
    for key in ("limit_train_batches", "fast_dev_run", "min_steps", "max_epochs"):
        assert "a run is one epoch of trainer.max_steps steps" in refused(f"trainer.{key}=1")


def test_classes_are_of_the_expected_type():
    assert "name a subclass of dograph.mixers.BaseMixer" in refused(
        "mixer={class_path: torch.nn.Linear}"
    )
    assert "trainer.strategy" in refused("trainer.strategy={class_path: dograph.mixers.Stratified}")
    assert "an invalid class path" in refused("mixer={class_path: 'dograph..mixers'}")


def test_a_profiler_of_a_class_could_write_anywhere():
    name = "lightning.pytorch.profilers.SimpleProfiler"
    text = refused(f"trainer.profiler={{class_path: {name}, init_args: {{dirpath: /tmp}}}}")
    assert "not a part of a trainer" in text


def test_a_strategy_may_be_a_class_with_arguments():
    """As FSDP's sharding, which no name says."""
    name = "lightning.pytorch.strategies.DDPStrategy"
    given = f"trainer.strategy={{class_path: {name}, init_args: {{static_graph: true}}}}"
    recipe = check(compose(MAIN, [given]))
    first, second = (build_trainer(recipe, logger=False, callbacks=[]) for _ in range(2))
    assert type(first.strategy).__name__ == "DDPStrategy"
    assert first.strategy._ddp_kwargs["static_graph"] is True
    assert first.strategy is not second.strategy
    assert is_sharded("fsdp")
    assert not is_sharded(first.strategy)


def test_shards_keep_whole_checkpoints_where_the_strategy_is_asked_to():
    """And then they are written and checked as all are."""
    more = ["compose.trainer=gpu_sharded", "trainer.accelerator=cpu", "trainer.devices=2"]
    recipe = check(compose(MAIN, more))
    trainer = build_trainer(recipe, logger=False, callbacks=[])
    assert type(trainer.strategy).__name__ == "ModelParallelStrategy"
    assert not is_sharded(trainer.strategy)
    name = "lightning.pytorch.strategies.ModelParallelStrategy"
    assert is_sharded(
        check(compose(MAIN, [f"trainer.strategy={{class_path: {name}}}"])).trainer_arguments()[
            "strategy"
        ]
    )


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_ranks_that_keep_what_they_train_are_refused(strategy):
    recipe = check(compose(MAIN, [f"trainer.strategy={strategy}", "trainer.devices=2"]))
    with pytest.raises(UserError, match=rf"trainer.strategy is {strategy}.*set it to ddp"):
        build_trainer(recipe, logger=False, callbacks=[])


BUGS = """\
from typing import TYPE_CHECKING

import torch
from dograph.mixers import BaseMixer

if TYPE_CHECKING:
    from nowhere import Nowhere


class Untyped(BaseMixer):
    def __init__(self, k):
        super().__init__()


class Undefined(BaseMixer):
    def __init__(self, j: int = 1, *, k: "list[Nowhere]" = None):
        super().__init__()


class Fails(BaseMixer):
    def __init__(self, k: float):
        super().__init__()
        self.scale = 1 / (k - k)


class NoSuper(BaseMixer):
    def __init__(self, k: int = 3):
        self.k = k


class Draws(BaseMixer):
    def __init__(self, k: int = 3):
        super().__init__()
        self.noise = torch.rand(k)
"""


@pytest.fixture
def bugs(tmp_path, monkeypatch):
    """Names a class of a module with bugs, as an override of a recipe."""
    (tmp_path / "bugs.py").write_text(BUGS)
    (tmp_path / "broken.py").write_text("import torch\n\nscale = 1 / 0\n")
    (tmp_path / "unparsable.py").write_text("class M(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: f"mixer={{class_path: {name}, init_args: {{k: 3}}}}"
    for name in ("bugs", "broken", "unparsable"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bugs.Untyped", "mixer.init_args.k has no type in Untyped.__init__: write one, e.g. `k"),
        ("bugs.Undefined", "mixer.init_args.k has a type in Undefined.__init__ that is not def"),
        ("bugs.Fails", "bugs.py:23: Fails.__init__ fails before training in `self.scale = 1 /"),
        ("bugs.NoSuper", "NoSuper.__init__ does not call super().__init__(): call it first"),
        ("broken.M", "broken.py:3: `scale = 1 / 0`: ZeroDivisionError: division by zero"),
        ("unparsable.M", "unparsable.py:1: SyntaxError"),
    ],
)
def test_bugs_of_a_users_class_are_told_in_a_sentence(bugs, name, message):
    assert message in refused(bugs(name))


def test_random_numbers_of_a_constructor_follow_the_recipes_seed(bugs):
    first, again = (check(compose(MAIN, [bugs("bugs.Draws")])).mixer.noise for _ in range(2))
    other = check(compose(MAIN, [bugs("bugs.Draws"), "seed=1"])).mixer.noise
    assert first.tolist() == again.tolist() != other.tolist()
