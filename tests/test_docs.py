"""README and docs/ are true: every code block runs, every link, path and doctest holds."""

import doctest
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dograph
from dograph.cli.main import build_parser, main
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.reports.summary import DomainSummary, RunSummary, write_summary

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted({*DOCS.rglob("*.md")} - {*(DOCS / "results").rglob("*")}),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = {"text": "a command's output", "tree": "tests/test_architecture.py reads it"}
"""Languages of blocks that are no code."""
NOT_OURS = {
    "pip": "installs what these tests run in",
    "python -m venv": "the same",
    ".": "the same",
    "pytest": "runs these tests",
    "pre-commit": "writes into the clone's .git",
    "bash .ci/run": "runs all of this",
}
"""Commands that a test can't run."""
BASE = "compose: {data: environment, model: gpt2_nano, trainer: cpu}\n"
MIXER = "mixer: {class_path: dograph.mixers.Stratified}\n"
"""What a recipe has around the parts that a page shows."""


def blocks(*languages):
    """Parameters (page, text) of all code blocks in some languages."""
    return [
        pytest.param(page, match[2], id=f"{page.name}:{line_of(page, match.start())}")
        for page in PAGES
        for match in FENCE.finditer(page.read_text())
        if match[1] in languages
    ]


def line_of(page, position):
    return page.read_text().count("\n", 0, position) + 1


def prose(page):
    return FENCE.sub("", page.read_text())


def commands():
    """(page, command) of sh blocks and of the text's `lightning run …`, `dograph …`, each once."""
    found = {}
    for page in PAGES:
        shown = []
        for language, text in FENCE.findall(page.read_text()):
            if language == "sh":
                lines = text.replace("\\\n", " ").splitlines()
                shown += [command for line in lines for command in line.split(" && ")]
        shown += re.findall(r"`((?:lightning run|dograph \w+) [^`]+)`", prose(page))
        for command in shown:
            found.setdefault(command.split(" # ")[0].strip(), page.name)
    return [(page, command) for command, page in found.items()]


def words(command):
    """A command's words as bash reads them, in the working folder."""
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], check=True, capture_output=True, text=True
    )
    return shown.stdout.split("\0")[:-1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, corpus_folder):
    """A folder as the pages assume it: a clone, with a user's own text, tokenizer and mixer."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("recipes", "configs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    text = folder / "text"
    text.mkdir()
    for name, written in (("web", "animals"), ("notes", "numbers"), ("code", "code")):
        shutil.copy(corpus_folder / f"{written}.jsonl", text / f"{name}.jsonl")
    prepare(  # so that nothing waits for it
        CorpusSettings(str(text), vocab_size=300, store=str(folder / "my_text")), progress=False
    )
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "tokenizer.json").symlink_to(folder / "my_text" / "tokenizer.json")
    for name, page in (("my_mixers", "mixers"), ("my_problems", "problems")):
        shown = FENCE.findall((DOCS / f"{page}.md").read_text())[0][1]
        (folder / f"{name}.py").write_text(shown)
    fit = folder / "runs" / "uniform_gpt2_swarm" / "fit.json"
    fit.parent.mkdir(parents=True)
    fit.write_text('{"weights": {"web": 0.25, "code": 0.75}}')
    found = folder / "runs" / "dograph_gpt2" / "seed_0"  # what `--from` reads
    found.mkdir(parents=True)
    weights = {"code": 0.2, "readmes": 0.2, "web": 0.6}
    numbers = dict.fromkeys(DomainSummary.__dataclass_fields__, 0)
    domains = [
        DomainSummary(**{**numbers, "name": name, "average_weight": weight})
        for name, weight in weights.items()
    ]
    write_summary(RunSummary("DoGraph", 400, 1.0, 1.0, tuple(domains), {}, None), found)
    (folder / "my_recipe.yaml").write_text(BASE + "mixer: {class_path: my_mixers.LossSeeker}\n")
    return folder


@pytest.fixture
def inside(clone, monkeypatch):
    """Works in the clone; code that `--mixers` allows is forgotten afterwards."""
    monkeypatch.chdir(clone)
    monkeypatch.setenv("DOGRAPH_CACHE", str(clone / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_mixers", raising=False)
    yield clone
    sys.modules.pop("my_mixers", None)


def test_every_block_says_what_it_is():
    for page in PAGES:
        assert page.read_text().count("\n```") % 2 == 0, page
        known = {"python", "sh", "yaml", *NOT_RUN}
        assert {language for language, _ in FENCE.findall(page.read_text())} <= known, page


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()])
def test_python_runs(page, inside, capsys):
    space = {"__name__": page.stem}
    for language, text in FENCE.findall(page.read_text()):
        if language == "python":
            code = text.replace("steps=400", "steps=2").replace("context=128", "context=16")
            exec(compile(code, page.name, "exec"), space)  # noqa: S102  (the page's own code)


def test_the_readmes_mixer_does_not_take_absent_domains_for_easy():
    space = {}
    shown = next(text for _, text in FENCE.findall(README.read_text()) if "LossSeeker" in text)
    exec(shown, space)  # noqa: S102  (the README's own example)
    mixer = space["LossSeeker"]()
    mixer.setup([f"domain_{index}" for index in range(22)], [1000] * 22, batch_size=16)
    draw = torch.Generator().manual_seed(0)
    for step in range(100):
        domain = torch.randint(0, 22, (16,), generator=draw)
        mixer.step(dograph.BatchSignals(step, domain, torch.full((16,), 5.0)))
    assert mixer.updates == 5
    assert 0.5 * (mixer.weights - 1 / 22).abs().sum() < 0.05


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_is_a_recipe(page, text, inside, capsys):
    around = BASE if "mixer:" in text else BASE + MIXER
    (inside / "shown.yaml").write_text(text if "compose:" in text else around + text)
    assert main(["run", "shown.yaml", "--check", "--mixers", "my_mixers.py"]) == 0


@pytest.mark.parametrize(("page", "command"), commands())
def test_command(page, command, inside, capsys):
    if any(command.split(" ")[: len(name.split(" "))] == name.split(" ") for name in NOT_OURS):
        return
    program, *arguments = words(command)
    if program == "python":
        assert importlib.util.find_spec(arguments[1]), command
        return
    assert program in ("lightning", "dograph")
    parsed, rest = build_parser(program).parse_known_args(arguments)
    assert all("=" in word for word in rest)
    if parsed.command == "run":
        assert main([*arguments, "--check"], program) == 0
    elif parsed.command == "prepare":
        assert main(arguments, program) == 0
    elif parsed.command == "plan":  # measuring has tests of its own
        assert main([each for each in arguments if each != "--measure"], program) == 0
    elif parsed.command == "sweep":
        recipe, *others = [word for word in parsed.recipes if "=" not in word]
        assert all(Path(other).is_file() for other in others)
        overrides = [word for word in parsed.recipes if "=" in word] + rest
        assert main(["run", recipe, *overrides, "--check"]) == 0


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        links = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", prose(page))
        waiting += {(page.parent / link).resolve() for link in links if "://" not in link} - reached
        reached |= {*waiting}
    assert {*PAGES} <= reached


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    roots = [ROOT, ROOT / "dograph", ROOT / "tests"]
    for name in re.findall(r"`([\w.]+/[\w./]+\.(?:py|yaml))`", prose(page)):
        assert any((root / name).is_file() for root in roots), name


def test_the_readme_is_short_and_has_ci_s_commands():
    text = README.read_text()
    assert text.count("\n") <= 140
    assert "\npip install -e . && lightning run recipes/dograph_gpt2.yaml\n" in text
    assert "\npip install -e '.[dev]' && pytest\n" in text


def test_every_recipe_is_in_the_readme():
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"(recipes/{recipe.name})" in README.read_text()


WITH_DOCTESTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "dograph").rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("module", WITH_DOCTESTS)
def test_doctests(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted
    assert not failed


SMALL = [
    *("corpus.source=my_text", "corpus.tokenizer=path/to/tokenizer.json"),
    *("data.context=32", "data.batch_size=8", "data.validation_sequences=8"),
    *("model.config={n_layer: 1, n_embd: 16, n_head: 2}", "trainer.max_steps=4"),
    *("trainer.val_check_interval=4", "report.figures_every=0"),
]


@pytest.fixture(scope="module")
def finished(clone):
    """Small runs where the pages have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        patch.setenv("DOGRAPH_CACHE", str(clone / "cache"))
        for name in ("uniform", "doremi"):
            assert main(["run", f"recipes/{name}_gpt2.yaml", *SMALL]) == 0
        for name in ("uniform", "proportional"):
            for seed in (0, 1):
                more = [f"seed={seed}", "runs=runs/study"]
                assert main(["run", f"recipes/{name}_gpt2.yaml", *SMALL, *more]) == 0


READING = ("compare", "evaluate", "export", "reproduce")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [line for _, line in commands() if line.startswith(tuple(f"dograph {w} " for w in READING))],
)
def test_command_on_runs(command, inside, finished, capsys):
    """The pages' commands that read runs, on such runs."""
    arguments = words(command)[1:]
    if arguments[0] == "compare":  # whatever study the page has just run
        arguments[1] = "runs/study"
    assert main(arguments) == 0
