"""What shipped recipes need to act in a run of 12 steps on the small corpus."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CLUSTERS = "mixer.init_args.clusters=4"
SCHEDULE = "{interval: 2, measure: 6, skip: 2}"
SHORT = {
    "ado_gpt2": ["mixer.init_args={start: 4, refit_every: 3, ignore: 2, window: 5, stride: 1}"],
    "dograph_anchored_gpt2": [CLUSTERS],
    "dograph_gpt2": [CLUSTERS],
    "dograph_proxy_gpt2": [f"stages.proxy.mixer.init_args={SCHEDULE}", "target=code"],
    "dograph_schedule_gpt2": [f"mixer.init_args={SCHEDULE}", "target=code"],
    "dynamic_loss_gpt2": ["mixer.init_args.warmup=4"],
    "grape_gpt2": ["mixer.init_args={update_every: 3, probe: 2}"],
    "odm_gpt2": ["mixer.init_args.warmup=4"],
    "skill_it_gpt2": ["mixer.init_args.graph=null", "mixer.init_args.update_every=4"],
}
"""Overrides by recipe; one that is not here runs as it is."""
