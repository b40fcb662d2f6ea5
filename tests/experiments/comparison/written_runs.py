"""Run folders with known numbers, written by the package's own writers."""

import json

import numpy as np
from omegaconf import OmegaConf

from dograph.files.atomic import write_json
from dograph.reports.history import MixtureHistory, Validation
from dograph.reports.summary import DomainSummary, RunSummary, write_summary

DOMAINS = ("code", "prose")
RECIPE = {
    "model": {"architecture": "gpt2", "config": {"n_layer": 1, "n_embd": 16}},
    "data": {"context": 64, "batch_size": 8, "validation_sequences": 16},
    "trainer": {"max_steps": 40},
}


def write_run(
    folder,
    seed,
    curve,
    mixer="Stratified",
    domains=DOMAINS,
    tokens=4000,
    seconds=10.0,
    fingerprint="f00d",
    tokenizer="beef",
    recipe=None,
    more_metadata=None,
):
    """A finished run; ``curve`` has the losses of each validation, a tuple with one a domain."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(curve)
    history = MixtureHistory(domains=tuple(domains))
    for index, losses in enumerate(curve, start=1):
        share = np.full(len(domains), 1 / len(domains))
        history.add(10 * index, share, index * share, index * share)
        history.add_validation(
            Validation(
                10 * index,
                tokens * index // count,
                seconds * index / count,
                dict(zip(domains, losses, strict=True)),
            )
        )
    end = curve[-1]
    summaries = tuple(
        DomainSummary(
            name,
            1 / len(domains),
            1 / len(domains),
            tokens // len(domains),
            0.5,
            loss,
            1.0,
            0.5,
            0.5,
        )
        for name, loss in zip(domains, end, strict=True)
    )
    scores = {"mean_loss": sum(end) / len(end), "worst_loss": max(end)}
    scores |= {"mean_perplexity": 1.0, "worst_perplexity": 1.0}
    write_summary(
        RunSummary(mixer, 10 * count, seconds, 1e9, summaries, scores, domains[0]), folder
    )
    history.write(folder)
    metadata = {"seed": seed, "fingerprint": fingerprint, "tokenizer": tokenizer, "digest": "d"}
    metadata |= {
        "commit": "c0ffee",
        "versions": {"torch": "2"},
        "host": {"cores": 2},
        "corpus": "x",
    }
    metadata |= more_metadata or {}
    write_json(folder / "provenance.json", metadata)
    values = {"mixer": {"class_path": f"dograph.mixers.{mixer}"}, **(recipe or RECIPE)}
    (folder / "recipe.yaml").write_text(OmegaConf.to_yaml(values))
    return folder


def write_experiment(folder, seed, curve, mixer="DoReMi"):
    """A finished experiment: a proxy, and a main run with the losses."""
    write_run(folder / "proxy", seed, [(9.0, 9.0)], mixer, tokens=1000, seconds=5.0)
    write_run(folder / "main", seed, curve, "Fixed")
    for name in ("proxy", "main"):
        write_json(folder / name / "stage.json", {"stage": name, "finished": True})
    summary = json.loads((folder / "main" / "summary.json").read_text())
    stages = [{"stage": name, "folder": name} for name in ("proxy", "main")]
    write_json(folder / "summary.json", {**summary, "cost": {"stages": stages}, "folder": "main"})
    return folder


def write_study(runs, seeds=(0, 1, 2, 3, 4), second=-0.1, spread=0.0):
    """Uniform and another method that ends ``second`` nats away, ± ``spread`` by seed."""
    for seed in seeds:
        base = 3.0 + 0.2 * seed
        start = (base + 2, base + 2)
        write_run(runs / "uniform_gpt2" / f"seed_{seed}", seed, [start, (base, base + 1)])
        end = base + second + spread * (-1) ** seed
        write_run(
            runs / "other_gpt2" / f"seed_{seed}", seed, [start, (end, end + 1)], "Proportional"
        )
    return runs
