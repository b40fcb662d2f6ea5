"""The figure of ``docs/scale.md``: what published DoGraph adds to a step, by number of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cost_counts import MODELS
from benchmarks.cost_model import BOTTLENECK, Setting, loop_seconds, published, shares
from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR, quiet_axes, style

GPUS = [2**power for power in range(11)]
LABELS = {
    "K-means, solve": "K-means and solve, on the CPU",
    "backward": "second backward (none with one backward)",
    "messages": "gathering sketches, broadcasting weights",
    "projections": "projections",
    "the loop": "the loop: sampler, losses gathered, reduce (any mixer)",
}
LEAST, MOST = 0.03, 6000
"""Percent, the ends of the axis."""


def draw(path: Path) -> Path:
    """Draws GPT-2 small and the 7 B model side by side, and says where."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.9), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, model in zip(panels, (MODELS[0], MODELS[-1]), strict=True):
        settings = [Setting(model, gpus) for gpus in GPUS]
        _lines(axes, [_parts(setting) for setting in settings])
        most = settings[-1].batch
        axes.set_title(
            f"{model.name}, up to {most:,} sequences a step", fontsize=10, color=TEXT_COLOUR
        )
    panels[0].set_ylabel("% of a plain training step", fontsize=9, color=TEXT_COLOUR)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(
        "Published DoGraph: with more GPUs, K-means on the CPU outgrows all else (H100, modelled)",
        fontsize=11,
        color=TEXT_COLOUR,
    )
    figure.tight_layout(rect=(0, 0.15, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _parts(setting: Setting) -> dict[str, float]:
    return shares({**published(setting), "the loop": loop_seconds(setting)}, setting)


def _lines(axes: Any, parts: list[dict[str, float]]) -> None:
    for index, (name, label) in enumerate(LABELS.items()):
        look = style(index)
        points = [(gpus, each[name]) for gpus, each in zip(GPUS, parts, strict=True)]
        shown = [(gpus, value) for gpus, value in points if value >= LEAST]
        axes.plot(
            [gpus for gpus, _ in shown],
            [value for _, value in shown],
            color=look.colour,
            marker=look.marker,
            markersize=4.5,
            linewidth=1.8,
            linestyle="--" if name == "the loop" else "-",
            label=label,
        )
    axes.axhspan(LEAST, BOTTLENECK, color="#F3F3F3", zorder=0)
    axes.text(1, LEAST * 1.2, f"below {BOTTLENECK:.0f} %", fontsize=8, va="bottom",
              color=QUIET_COLOUR)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, MOST)
    axes.set_xticks([1, 8, 64, 256, 1024], ["1", "8", "64", "256", "1,024"])
    axes.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("GPUs", fontsize=9, color=TEXT_COLOUR)
    quiet_axes(axes)
