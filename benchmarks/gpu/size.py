"""What is trained in the GPU benchmark, at full and at toy size, and by which overrides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parent.parent.parent / "recipes"
LOOP = "hand-written loop"
"""Name of the process that trains without Lightning and DoGraph."""
RUNS = {
    "run": "uniform_gpt2.yaml",
    "run without figures": "uniform_gpt2.yaml",
    "dograph": "dograph_gpt2.yaml",
    "schedule": "dograph_schedule_gpt2.yaml",
}
"""Recipes by the names of the processes that train them as `lightning run` does."""
CORPUS = ("corpus.source=environment", "corpus.megabytes=1")
"""The corpus without a prepared one: enough for every domain's validation at 1,024 tokens."""
ENDLESS = (
    "trainer.max_steps=1000000",
    "trainer.val_check_interval=1000000",
    "report.checkpoint_every=1000000",
    "report.checkpoint_minutes=1000000",
)
"""Overrides by which a run neither ends, validates nor saves while it is measured."""
READING = ("mixer.init_args.measure=1000000", "mixer.init_args.skip=0")
"""Overrides by which the schedule reads gradients in every segment."""


@dataclass(frozen=True)
class Size:
    """A model, its batch, and how often it is measured.

    Attributes:
        name: what tables call it.
        model: name of a file in configs/model.
        layers, width, heads: its sizes.
        vocabulary: rows of the output layer, at least the prepared store's vocabulary.
        batch: number of sequences.
        context: tokens in a sequence.
        steps: steps of a measured segment.
        profiled: steps under the profiler.
        rounds: maximum number of segments of each process in one part.
        bf16: whether training is mixed with bfloat16.
        compiled: whether the model is compiled.
        schedule: overrides of the schedule, so that segments hold whole intervals of it.
        compared: overrides of the model that is trained on CPU and GPU alike.
        judged: whether the figures have targets.
    """

    name: str
    model: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    context: int
    steps: int
    profiled: int
    rounds: int
    bf16: bool
    compiled: bool
    schedule: tuple[str, ...]
    compared: tuple[str, ...]
    judged: bool

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.context


SIZES = {
    "full": Size(
        name="GPT-2 124 M",
        model="gpt2_small",
        layers=12,
        width=768,
        heads=12,
        vocabulary=50304,  # GPT-2's 50,257, padded to a multiple of 64, as in nanoGPT
        batch=16,
        context=1024,
        steps=40,
        profiled=5,
        rounds=30,
        bf16=True,
        compiled=True,
        schedule=(),
        compared=("compose.model=gpt2_nano",),
        judged=True,
    ),
    "toy": Size(
        name="a toy GPT-2",
        model="gpt2_nano",
        layers=2,
        width=32,
        heads=2,
        vocabulary=4096,
        batch=12,
        context=16,
        steps=8,
        profiled=2,
        rounds=2,
        bf16=False,
        compiled=False,
        schedule=("mixer.init_args.interval=8",),
        compared=("compose.model=gpt2_nano", "model.config.n_layer=1", "data.context=16"),
        judged=False,
    ),
}


def overrides(size: Size, device: str, store: str | None) -> list[str]:
    """Overrides that make a shipped recipe one of this size.

    Args:
        size: the model and its batch.
        device: "cpu" or "cuda".
        store: folder of a prepared corpus. None: the text of the Python environment.
    """
    words = [
        f"compose.trainer={'gpu' if device == 'cuda' else 'cpu'}",
        f"compose.model={size.model}",
        f"model.config.n_layer={size.layers}",
        f"model.config.n_embd={size.width}",
        f"model.config.n_head={size.heads}",
        f"model.config.vocab_size={size.vocabulary}",
        f"model.compile={str(size.compiled).lower()}",
        f"data.batch_size={size.batch}",
        f"data.context={size.context}",
        "trainer.devices=1",
        f"trainer.precision={'bf16-mixed' if size.bf16 else '32-true'}",
        *ENDLESS,
    ]
    return [*words, *([f"corpus.source={store}"] if store else CORPUS)]


def mixer_overrides(name: str, size: Size) -> list[str]:
    """Overrides of one process of ``RUNS``."""
    if name == "schedule":
        return [*READING, *size.schedule]
    return ["report.figures_every=0"] if name == "run without figures" else []
