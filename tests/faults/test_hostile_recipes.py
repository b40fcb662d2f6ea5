"""Mutated recipes: each trains as it says, or ends with a message; nothing else."""

import copy
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml
from nested import at, places
from omegaconf import OmegaConf
from subprocess_runner import run_bounded

MIXERS = {
    "dograph.mixers.Stratified": {},
    "dograph.mixers.Proportional": {},
    "dograph.mixers.Temperature": {"temperature": 2.0},
    "dograph.mixers.Fixed": {"weights": {"animals": 0.2, "numbers": 0.3, "code": 0.5}},
    "dograph.mixers.DynamicLoss": {},
    "dograph.mixers.ODM": {"estimate": "exp3", "warmup": 0},
    "dograph.mixers.UniMax": {"max_epochs": 4},
    "dograph.mixers.SkillIt": {"graph": {"code": {"numbers": 1.0}}, "window": 2},
    "dograph.mixers.Aioli": {"sweeps": 1, "probe_steps": 1, "round_steps": 8, "sequences": 2},
    "dograph.mixers.ADO": {"start": 0, "refit_every": 1, "ignore": 0, "window": 5, "stride": 1},
    "dograph.mixers.DoGE": {},
    "dograph.mixers.GRAPE": {"update_every": 2, "probe": 1},
    "dograph.mixers.DoGraph": {"clusters": 3, "beta": 0.1, "neighbours": 2, "prior": None},
    "dograph.mixers.DoGraphSchedule": {"interval": 2, "measure": 2, "skip": 0},
}
SCALARS = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**63, -(10**30), 0.0, -0.5, 1.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), float("-inf"), "", "auto", "../x", "/etc/passwd", "~", "\0"),
    *("a\nb", "\x1b[31m", "<script>alert(1)</script>", "${seed}", "${nothing}", "${oc.env:HOME}"),
    *("os.system", "torch.nn.Linear", "dograph.mixers.DoReMi", "\ud7ff", "x" * 5000, "1e3", "0x10"),
]
NESTED = [[], {}, [1, 2], [[]], {"a": 1}, {"class_path": "os.system", "init_args": {}}, ["x"] * 50]
SNIPPETS = [
    *("\t", "{", "[", "]", "}", ":", "- ", "&a ", "*a", "!!python/object/apply:os.system [ls]"),
    *(
        "\0",
        "\ufeff",
        "'",
        '"',
        "#",
        "${",
        "}",
        "\n---\n",
        "%YAML 9\n",
        "? ",
        "|",
        ">",
        "<<: ",
        "!x ",
    ),
]
STEPS = 4
STAGES = {
    "reference": {"mixer": {"class_path": "dograph.mixers.Stratified"}},
    "proxy": {
        "mixer": {
            "class_path": "dograph.mixers.DoReMi",
            "init_args": {"reference": "${stages.reference.checkpoint}", "step_size": 1.0},
        }
    },
    "main": {
        "mixer": {
            "class_path": "dograph.mixers.Fixed",
            "init_args": {"weights": "${stages.proxy.weights}"},
        },
        "model": {"learning_rate": 2e-3},
    },
}
SECTIONS = (
    "corpus",
    "tokenizer",
    "mixer",
    "weights",
    "model",
    "data.",
    "trainer",
    "report",
    "sketch",
)


def base(chance, source, store, runs):
    """A whole recipe, with most keys written out; one in ten has stages."""
    mixer = chance.choice(list(MIXERS))
    staged = chance.random() < 0.1
    return {
        **({"stages": copy.deepcopy(STAGES)} if staged else {}),
        "name": "hostile",
        "seed": 3,
        "runs": str(runs),
        "mixer": {"class_path": mixer, "init_args": copy.deepcopy(MIXERS[mixer])},
        "corpus": {
            "source": source,
            "store": store,
            "vocab_size": 300,
            "validation_fraction": 0.2,
            "megabytes": None,
            "text_key": "text",
            "tokenizer": "train",
            "workers": 2,
        },
        "data": {
            "context": 16,
            "batch_size": 8,
            "validation_sequences": 4,
            "draw": "stratified",
            "workers": 0,
            "lookahead": 4,
        },
        "model": {
            "architecture": "gpt2",
            "config": {"n_layer": 1, "n_embd": 16, "n_head": 2, "activation_function": "gelu"},
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-4,
            "warmup": 2,
            "weight_decay": 0.01,
            "betas": [0.9, 0.95],
            "compile": False,
        },
        "sketch": {"blocks": "last", "rank": 4, "seed": 0, "fresh": False, "exact": False},
        "report": {
            "every": 2,
            "figures_every": 0,
            "window": 2,
            "checkpoint_every": 2,
            "checkpoint_minutes": 10.0,
            "checkpoints_kept": 2,
            "non_finite_limit": 2,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": STEPS,
            "val_check_interval": 2,
            "log_every_n_steps": 2,
            "gradient_clip_val": 1.0,
            "precision": "32-true",
            "accumulate_grad_batches": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }


def change(values, chance):
    """Changes one value, key or branch in place; returns what was done."""
    path = chance.choice(list(places(values)))
    node = at(values, path[:-1])
    was, kinds = node[path[-1]], ["scalar"] * 6 + ["nested", "delete", "rename", "add", "move"]
    kind = chance.choice(kinds + ["nudge"] * 15 * (type(was) in (int, float)))
    if kind == "delete":
        del node[path[-1]]
    elif kind == "rename" and isinstance(node, dict):
        node[str(path[-1])[:-1] + chance.choice("sx_1")] = node.pop(path[-1])
    elif kind == "add" and isinstance(node, dict):
        node[chance.choice(["extra", "compose", "stages", "rounds", 7, "", "a.b"])] = 1
    elif kind == "nudge":
        node[path[-1]] = type(was)(was * chance.choice([0.5, 1.5, 2]) + chance.choice([0, 1]))
    elif kind == "move":
        node[path[-1]] = copy.deepcopy(values)
    else:
        node[path[-1]] = copy.deepcopy(chance.choice(NESTED if kind == "nested" else SCALARS))
    return f"{kind} {'.'.join(map(str, path))}"


def garble(text, chance):
    """Changes the text itself, once or a few times."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text))
        kind = chance.choice(["insert", "cut", "truncate", "double", "swap"])
        lines = text.splitlines(keepends=True)
        line = chance.randrange(len(lines))
        if kind == "insert":
            text = text[:place] + chance.choice(SNIPPETS) + text[place:]
        elif kind == "cut":
            text = text[:place] + text[place + chance.randint(1, 12) :]
        elif kind == "truncate":
            text = text[: max(place, 1)]
        elif kind == "double":
            text = "".join([*lines[:line], lines[line], *lines[line:]])
        else:
            other = chance.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
            text = "".join(lines)
        text = text or "\n"
    return text


def wrong(recipe, folder, result):
    """What is wrong with how a recipe ended, or nothing."""
    if result.code is None:
        return "did not end"
    if result.code != 0:
        message = result.text.rpartition("error: ")[2]
        named = any(word in message for word in ("/", "File name", *SECTIONS))
        return None if result.refused and named else f"exit code {result.code}"
    if "Traceback" in result.text:
        return "a traceback beside success"
    return differing(read(recipe), folder, result)


def read(path):
    """A recipe's own values; OmegaConf reads some files that plain YAML refuses."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def differing(given, folder, result):
    """In what a run that came to its end is not what its recipe says, or nothing."""
    place = folder / given.get("runs", "runs") / given.get("name", "recipe")
    last = list(given["stages"])[-1] if "stages" in given else "."
    (run,) = place.glob(f"seed_*/{last}")
    ran = read(run / "recipe.yaml")
    for key, value in given.items() if last == "." else ():
        if "${" not in str(value) and repr(ran.get(key)) != repr(value):
            return f"{key} was {value}, the run had {ran.get(key)}"
    final = torch.load(run / "checkpoints" / "final.ckpt", weights_only=True)
    if final["global_step"] != ran["trainer"]["max_steps"]:
        return f"{final['global_step']} steps"
    summary = json.loads((run / "summary.json").read_text())
    losses = [domain["validation_loss"] for domain in summary["domains"].values()]
    # A model that a recipe drove to infinity has no loss, and its table says so.
    if not all(isinstance(loss, float) or "nan" in result.text for loss in losses):
        return f"losses {losses}"
    store = (given.get("corpus") or {}).get("store")
    named = {str(place).split("/")[0] for place in (given.get("runs"), store, f"{store}.lock")}
    outside = {path.name for path in folder.iterdir()} - named - {"runs", "recipe.yaml", "log"}
    return f"wrote {outside}" if outside else None


def mutant(number, folder, source, store, chance):
    """A mutated recipe in a folder of its own."""
    folder.mkdir()
    values = base(chance, source, store, folder / "runs")
    if number % 3 == 2:
        text = garble(yaml.safe_dump(values, allow_unicode=True), chance)
        done = "text"
    else:
        done = "; ".join(change(values, chance) for _ in range(chance.choice([1, 1, 2])))
        bounded = values.get("trainer")
        # Else it would just be long, or two processes of pytest.
        for key, most in (("max_steps", 8), ("accumulate_grad_batches", 8), ("devices", 1)):
            if isinstance(bounded, dict) and type(bounded.get(key)) is int:
                bounded[key] = min(bounded[key], most)
        text = yaml.safe_dump(values, allow_unicode=True)
    path = folder / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path, done


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_mutated_recipes_train_or_are_refused(corpus_settings, store, tmp_path, chance):
    """Keys and values that nobody thought of; DOGRAPH_MUTANTS and DOGRAPH_FAULT_SEED try others."""
    count = int(os.environ.get("DOGRAPH_MUTANTS", "150"))
    source, place = corpus_settings.source, corpus_settings.store
    mutants = [
        mutant(number, tmp_path / str(number), source, place, chance) for number in range(count)
    ]

    def tried(made):
        path, done = made
        result = run_bounded(["run", str(path)], path.parent / "log")
        return done, path, result, wrong(path, path.parent, result)

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(tried, mutants))
    counts = Counter("trained" if result.code == 0 else "refused" for _, _, result, _ in ends)
    bad = [f"{done} ({path}): {fault}\n{r.text[-1500:]}" for done, path, r, fault in ends if fault]
    print(f"{count} mutated recipes: {dict(counts)}, {len(bad)} with another end")
    assert not bad, "\n\n".join(bad)
    assert min(counts["trained"], counts["refused"]) > count / 20
