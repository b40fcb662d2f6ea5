"""The figure of ``docs/scale.md``: what published DoGraph adds to a step, by number of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.scale.counts import MODELS, Architecture
from benchmarks.scale.seconds import Setting, backward_seconds, loop_seconds, published, shares
from benchmarks.scale.tables import BOTTLENECK
from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR, quiet_axes, style_of

GPUS = [2**power for power in range(11)]
LABELS = {
    "K-means, solve": "K-means and solve, on the CPU",
    "backward": "second backward (only with FSDP)",
    "messages": "gathering sketches, broadcasting weights",
    "projections": "projections",
    "the loop": "the loop: sampler, gathered losses, joint decisions (any mixer)",
}
LEAST, MOST = 0.03, 6000
"""Percent at the ends of the axis."""


def draw(path: Path) -> None:
    """Draw GPT-2 small and the 7 B model side by side."""
    figure = Figure(figsize=(9.2, 4.9), dpi=150, facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, model in zip(panels, (MODELS[0], MODELS[-1]), strict=True):
        _panel(axes, model)
    panels[0].set_ylabel("% of a plain training step", fontsize=9, color=TEXT_COLOUR)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    title = (
        "Published DoGraph: with more GPUs, K-means on the CPU outgrows all else (H100, modelled)"
    )
    figure.suptitle(title, fontsize=11, color=TEXT_COLOUR)
    figure.tight_layout(rect=(0, 0.15, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _parts(setting: Setting) -> dict[str, float]:
    waits = {"backward": backward_seconds(setting), "the loop": loop_seconds(setting)}
    return shares({**published(setting), **waits}, setting)


def _panel(axes: Any, model: Architecture) -> None:
    settings = [Setting(model, gpus) for gpus in GPUS]
    for index, (name, label) in enumerate(LABELS.items()):
        look, line = style_of(index), "--" if name == "the loop" else "-"
        values = [_parts(setting)[name] for setting in settings]
        shown = [value if value >= LEAST else float("nan") for value in values]
        axes.plot(GPUS, shown, line, color=look.colour, marker=look.marker, markersize=4.5,
                  linewidth=1.8, label=label)  # fmt: skip
    title = f"{model.name}, up to {settings[-1].batch:,} sequences a step"
    axes.set_title(title, fontsize=10, color=TEXT_COLOUR)
    axes.axhspan(LEAST, BOTTLENECK, color="#F3F3F3", zorder=0)
    below = f"below {BOTTLENECK:.0f} %"
    axes.text(1, LEAST * 1.2, below, fontsize=8, va="bottom", color=QUIET_COLOUR)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, MOST)
    axes.set_xticks([1, 8, 64, 256, 1024], ["1", "8", "64", "256", "1,024"])
    axes.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("GPUs", fontsize=9, color=TEXT_COLOUR)
    quiet_axes(axes)
