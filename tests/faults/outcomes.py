"""What a run leaves, to be compared with another's to the bit."""

import json

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dograph.report.history import MixtureHistory

CLOCKED = ("speed/", "mixer/solver_milliseconds", "final/seconds")
"""Scalars that a clock measures."""


def outcome(folder):
    """All that a run leaves, but for what a clock measures."""
    final = torch.load(folder / "checkpoints" / "final.ckpt", weights_only=True)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(CLOCKED)]
    points = {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in tags}
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("seconds", "tokens_per_second"):
        del summary[key]
    return {
        "weights": final["state_dict"],
        "optimiser": final["optimizer_states"],
        "sampler": final["DataMixer"]["sampler"],
        "mixer": final["DataMixer"]["mixer"],
        "history": MixtureHistory.read(folder).outcome(),
        "summary": summary,
        "points": points,
    }


def differing(left, right, name=""):
    """Dotted names in which two outcomes differ, to the bit."""
    if isinstance(left, dict):
        keys = dict.fromkeys([*left, *right])
        return [
            d for key in keys for d in differing(left.get(key), right.get(key), f"{name}.{key}")
        ]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return [f"{name}: {len(left)} and {len(right)} entries"]
        pairs = enumerate(zip(left, right, strict=True))
        return [d for index, pair in pairs for d in differing(*pair, f"{name}[{index}]")]
    if isinstance(left, torch.Tensor):
        return [] if torch.equal(left, right) else [name]
    return [] if repr(left) == repr(right) else [f"{name}: {left} and {right}"]
