"""Damaged and forged checkpoints: noticed, or resumed from to the bit; never a traceback."""

import copy
import math
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nested import at, places
from outcomes import differing, outcome
from subprocess_runner import SMALL, run_bounded

from dograph.errors import UserError
from dograph.training.checkpoint_reader import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
VALUES = [
    *(None, True, -1, 0, 1, 7, 2**31, 2**63, 1e300, float("nan"), float("inf"), "", "x", "../x"),
    *([], {}, [1], {"a": 1}, (1, 2), torch.tensor(float("nan")), torch.zeros(3), torch.zeros(0)),
    *(torch.full((16, 16), math.inf), torch.zeros(2, dtype=torch.int64)),
]
MIXERS = {
    "Stratified": "{}",
    "DoGraph": "{clusters: 3, window: 2}",
    "DoGraphSchedule": "{interval: 2, measure: 4, skip: 0}",
    "DoReMiOnline": "{step_size: 0.5}",
    "DoGEOnline": "{}",
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, corpus_settings, store):
    """By mixer: a recipe, what its run leaves, and the run as killed after its third checkpoint."""
    made = {}
    for mixer, arguments in MIXERS.items():
        folder = tmp_path_factory.mktemp(mixer)
        recipe = folder / "recipe.yaml"
        given = {"mixer": mixer, "arguments": arguments, "corpus": corpus_settings}
        recipe.write_text(SMALL.format(name="run", steps=8, every=4, **given))
        first = run_bounded(["run", str(recipe)], folder / "log")
        assert first.code == 0, first.text
        run = folder / "runs" / "run" / "seed_0"
        whole = outcome(run)
        for name in ("summary.json", "checkpoints/final.ckpt", "history.json"):
            (run / name).unlink()
        assert {path.name for path in (run / "checkpoints").iterdir()} == {
            "step=2.ckpt",
            "step=4.ckpt",
            "step=6.ckpt",
        }
        made[mixer] = (recipe, whole, run)
    return made


def again(interrupted, mixer, folder):
    """A copy of a killed run, and the newest checkpoint in it."""
    recipe, whole, run = interrupted[mixer]
    folder.mkdir()
    shutil.copyfile(recipe, folder / "recipe.yaml")
    shutil.copytree(run, folder / "runs" / "run" / "seed_0")
    return whole, folder / "runs" / "run" / "seed_0"


def damage(content, chance):
    """Bytes that a disk, a network or a hand might leave."""
    kind = chance.choice(["flip", "flip", "truncate", "zeros", "double", "insert", "swap", "empty"])
    place = chance.randrange(len(content))
    if kind == "flip":
        for _ in range(chance.choice([1, 1, 8])):
            place = chance.randrange(len(content))
            flipped = content[place] ^ (1 << chance.randrange(8))
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        return content
    if kind == "swap":
        other = chance.randrange(len(content))
        low, high = sorted((place, other))
        return content[:low] + content[high:] + content[low:high]
    size = chance.randint(1, 4096)
    return {
        "truncate": content[:place],
        "zeros": content[:place]
        + bytes(len(content[place : place + size]))
        + content[place + size :],
        "double": content + content,
        "insert": content[:place] + chance.randbytes(size) + content[place:],
        "empty": b"",
    }[kind]


def test_damaged_bytes_are_found_or_harmless(interrupted, tmp_path, chance):
    """No byte of a checkpoint is read that its checksums do not cover."""
    newest = interrupted["DoGraph"][2] / "checkpoints" / "step=6.ckpt"
    content, expected = newest.read_bytes(), read_checkpoint(newest)
    path, counts = tmp_path / "step=6.ckpt", Counter()
    for _ in range(300):
        path.write_bytes(damage(content, chance))
        try:
            restored = read_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error)
            counts["refused"] += 1
        else:
            assert not differing(expected, restored)
            counts["harmless"] += 1
    print(f"300 checkpoints with damaged bytes: {dict(counts)}, 0 with another end")
    assert counts["refused"] > 200


def test_a_run_goes_on_from_the_one_before_a_damaged_one(interrupted, tmp_path, chance):
    """A run finds its newest sound checkpoint, with any mixer's state."""

    def tried(number):
        mixer = list(MIXERS)[number % len(MIXERS)]
        whole, run = again(interrupted, mixer, tmp_path / str(number))
        damaged = chance.sample(["step=6.ckpt", "step=4.ckpt", "step=2.ckpt"], chance.randint(1, 2))
        for name in damaged:
            path = run / "checkpoints" / name
            path.write_bytes(damage(path.read_bytes(), chance))
        result = run_bounded(["run", "recipe.yaml"], tmp_path / str(number) / "log")
        assert result.code == 0, (mixer, damaged, result.text)
        assert not differing(whole, outcome(run)), (mixer, damaged, result.text)
        return "warned" if "is damaged" in result.text else "silent"

    counts = Counter(map(tried, range(10)))
    print(f"10 runs with damaged checkpoints, all equal in the end: {dict(counts)}")
    assert counts["warned"] > 2


def forge(checkpoint, chance):
    """The same file with one value changed or gone; its checksums fit. Returns what was done."""
    content = torch.load(checkpoint, weights_only=True)
    top = chance.choice(list(content))  # else most would be parameters
    below = (
        [(top, *path) for path in places(content[top])] if isinstance(content[top], dict) else []
    )
    path = chance.choice([(top,), *below])
    node = at(content, path[:-1])
    if chance.random() < 0.2:
        del node[path[-1]]
        done = "delete"
    else:
        node[path[-1]] = copy.deepcopy(chance.choice(VALUES))
        done = f"{node[path[-1]]!r}"[:40]
    torch.save(content, checkpoint)
    return f"{'.'.join(map(str, path))} = {done}"


def test_forged_checkpoints_are_refused_or_trained_on(interrupted, tmp_path, chance):
    """Values that checksums cover and nobody wrote; DOGRAPH_MUTANTS tries more."""
    count = int(os.environ.get("DOGRAPH_MUTANTS", "60"))
    made = []
    for number in range(count):
        mixer = list(MIXERS)[number % len(MIXERS)]
        folder = tmp_path / str(number)
        _, run = again(interrupted, mixer, folder)
        made.append((folder, run, f"{mixer} {forge(run / 'checkpoints' / 'step=6.ckpt', chance)}"))

    def tried(one):
        folder, run, done = one
        result = run_bounded(["run", "recipe.yaml"], folder / "log")
        return f"{done}: {wrong(run, result)}\n{result.text[-1200:]}", result, wrong(run, result)

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(tried, made))
    bad = [text for text, _, fault in ends if fault]
    counts = Counter("trained" if result.code == 0 else "refused" for _, result, _ in ends)
    print(f"{count} forged checkpoints: {dict(counts)}, {len(bad)} with another end")
    assert not bad, "\n\n".join(bad)


def wrong(run, result):
    """What is wrong with how a run ended, or nothing."""
    if result.code != 0:
        return None if result.refused else f"exit code {result.code}"
    if "Traceback" in result.text:
        return "a traceback beside success"
    final = torch.load(run / "checkpoints" / "final.ckpt", weights_only=True)
    sampler = final["DataMixer"]["sampler"]
    if (final["global_step"], sampler["trained"], sum(sampler["realised"])) != (8, 8, 64):
        return f"{final['global_step']} steps, {sampler['trained']} batches"
    if not all(value.isfinite().all() for value in final["state_dict"].values()):
        return "parameters that are not finite"
    return None
