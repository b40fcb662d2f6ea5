"""What a run leaves, to be compared to the bit."""

import json
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dograph.reports.history import MixtureHistory

ROOT = Path(__file__).parent.parent
CLOCKED = ("speed/", "mixer/solver_milliseconds", "final/seconds")
"""Scalars that a clock measures."""


def arguments(name, settings, place, steps, *more):
    """A recipe, shrunk; its corpus is prepared anew in ``place``."""
    return [
        str(ROOT / "recipes" / f"{name}.yaml"),
        f"corpus.source={settings.source}",
        f"corpus.store={place / 'store'}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data={context: 32, batch_size: 16, validation_sequences: 16}",
        "model.config={n_layer: 2, n_embd: 32, n_head: 2}",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=10",
        "report={every: 4, figures_every: 20, window: 4, checkpoint_every: 10}",
        f"runs={place / 'runs'}",
        *more,
    ]


def scalars_of(folder):
    """(step, value) of every scalar of a run; of a domain's TensorBoard run as ``tag/domain``."""
    points = {}
    for home in (folder, *sorted(folder.glob("domains/*"))):
        events = EventAccumulator(str(home), size_guidance={"scalars": 0}).Reload()
        end = "" if home == folder else f"/{home.name}"
        for tag in events.Tags()["scalars"]:
            points[tag + end] = [(point.step, point.value) for point in events.Scalars(tag)]
    return points


def outcome(folder):
    """All that a run leaves, but for what a clock measures."""
    final = torch.load(folder / "checkpoints" / "final.ckpt", weights_only=True)
    points = {tag: of for tag, of in scalars_of(folder).items() if not tag.startswith(CLOCKED)}
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
    """Dotted names in which two outcomes differ, to the bit; what a clock measures may."""
    if name.endswith(".solver_milliseconds"):
        return []
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
