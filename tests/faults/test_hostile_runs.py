"""Untrusted runs: what reads a run's folder ends with a result or a message."""

import copy
import json
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from nested import at, places
from subprocess_runner import SMALL, run_bounded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
COMMANDS = {
    "compare": ["compare", "runs", "--output", "report"],
    "export": ["export", "runs/run/seed_0", "--format", "json"],
    "evaluate": ["evaluate", "runs/run/seed_0", "--resamples", "10"],
    "run": ["run", "recipe.yaml"],
}
FILES = ("summary.json", "history.json", "provenance.json", "recipe.yaml")
VALUES = [
    *(None, True, -1, 0, 7, 2**63, 10**400, 1e300, float("nan"), float("inf"), "", "x", "../x"),
    *("/etc/passwd", "\x1b[31m", "<script>alert(1)</script>", "\0", [], {}, [1], {"a": 1}, [[]]),
]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, corpus_settings, store):
    """A folder with runs of two mixers, and the recipe of one."""
    folder = tmp_path_factory.mktemp("two_runs")
    for name, mixer in (("other", "Stratified"), ("run", "DoReMiOnline")):
        path = folder / "recipe.yaml"
        given = {"mixer": mixer, "arguments": "{}", "corpus": corpus_settings}
        path.write_text(SMALL.format(name=name, steps=4, every=2, **given))
        ended = run_bounded(["run", str(path)], folder / "log")
        assert ended.code == 0, ended.text
    for command in ("compare", "export", "evaluate"):
        ended = run_bounded(COMMANDS[command], folder / "log")
        assert ended.code == 0, ended.text
    shutil.rmtree(folder / "report")
    return folder


def forge(path, chance):
    """Changes a value of a JSON or YAML file, or its text; returns what was done."""
    text = path.read_text()
    if chance.random() < 0.2:
        cut = chance.randrange(len(text))
        deep = text[:cut] + "[" * 9000
        path.write_text(chance.choice([text[:cut], deep, text[cut:], "[" * 10**5]))
        return f"{path.name}: text at {cut}"
    content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    place = chance.choice(list(places(content)))
    node = at(content, place[:-1])
    if chance.random() < 0.25:
        del node[place[-1]]
    else:
        node[place[-1]] = copy.deepcopy(chance.choice(VALUES))
    dump = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
    path.write_text(dump(content))
    return f"{path.name}: {'.'.join(map(str, place))}"


def test_forged_runs_are_read_or_refused(two_runs, tmp_path, chance):
    """Files beside the checkpoints, read by every command; DOGRAPH_MUTANTS tries more."""
    made = []
    for number in range(int(os.environ.get("DOGRAPH_MUTANTS", "60"))):
        folder, command = tmp_path / str(number), list(COMMANDS)[number % len(COMMANDS)]
        shutil.copytree(two_runs, folder)
        forged = folder / "runs" / "run" / "seed_0"
        if command == "run":  # as if it had been killed
            (forged / "checkpoints" / "final.ckpt").unlink()
        made.append((folder, command, forge(forged / chance.choice(FILES), chance)))

    def tried(one):
        folder, command, done = one
        result = run_bounded(COMMANDS[command], folder / "log")
        fine = result.refused or (result.code == 0 and "Traceback" not in result.text)
        return result, None if fine else f"{command}, {done}: {result.code}\n{result.text[-1200:]}"

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(tried, made))
    bad = [text for _, text in ends if text]
    counts = Counter("read" if result.code == 0 else "refused" for result, _ in ends)
    print(f"{len(made)} forged runs: {dict(counts)}, {len(bad)} with another end")
    assert not bad, "\n\n".join(bad)
