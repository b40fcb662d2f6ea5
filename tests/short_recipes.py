"""What shipped recipes need to act in a run of 12 steps on the small corpus."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CLUSTERS = "mixer.init_args.clusters=4"
SCHEDULE = "{interval: 2, measure: 6, skip: 2}"
SOURCES = (
    *("c_headers", "comments", "docstrings", "licences"),
    *("python_source", "readmes", "type_stubs"),
)
ALONE = (
    "{animals: 1, numbers: 0, code: 0}",
    "{animals: 0, numbers: 1, code: 0}",
    "{animals: 0, numbers: 0, code: 1}",
)
LEARNT = [
    *(
        f"stages.only_{source}.mixer.init_args.weights={weights}"
        for source, weights in zip(SOURCES, 3 * ALONE, strict=False)
    ),
    "stages.main.mixer.init_args.losses_alone={animals: '${stages.only_c_headers.losses}', "
    "numbers: '${stages.only_comments.losses}', code: '${stages.only_docstrings.losses}'}",
    "stages.main.mixer.init_args.update_every=4",
]
"""The small corpus's domains in the places of the recipe's first three, and of its others."""
SHORT = {
    "ado_gpt2": ["mixer.init_args={start: 4, refit_every: 3, ignore: 2, window: 5, stride: 1}"],
    "aioli_gpt2": [
        "mixer.init_args={sweeps: 1, probe_steps: 1, round_steps: 8, sequences: 2}",
    ],
    "dograph_anchored_gpt2": [CLUSTERS],
    "dograph_gpt2": [CLUSTERS],
    "dograph_proxy_gpt2": [f"stages.proxy.mixer.init_args={SCHEDULE}", "target=code"],
    "dograph_schedule_gpt2": [f"mixer.init_args={SCHEDULE}", "target=code"],
    "dynamic_loss_gpt2": ["mixer.init_args.warmup=4"],
    "grape_gpt2": ["mixer.init_args={update_every: 3, probe: 2}"],
    "odm_gpt2": ["mixer.init_args.warmup=4"],
    "phases_gpt2": [
        "mixer.init_args.phases=[{at: 0, weights: {animals: 1, numbers: 1, code: 1}}, {at: 0.2}, "
        "{at: 0.75, ramp: 0.1, weights: {code: 1}}]",
    ],
    "regmix_gpt2": ["stages.proxies.swarm.mixtures=4", "stages.proxies.fit.law=linear"],
    "skill_it_gpt2": ["mixer.init_args.graph=null", "mixer.init_args.update_every=4"],
    "skill_it_learnt_gpt2": LEARNT,
}
"""Overrides by recipe; one that is not here runs as it is."""


def stages_of(path):
    """(stage or None, mixer, its arguments' names) of a recipe's runs."""
    recipe = yaml.safe_load(path.read_text())
    for stage, section in (recipe.get("stages") or {None: recipe}).items():
        if mixer := section.get("mixer"):  # a swarm has none: its main run is by its fit
            yield stage, mixer["class_path"].rpartition(".")[2], tuple(mixer.get("init_args", {}))
