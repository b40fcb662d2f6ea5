"""TensorBoard's tags, charts of all domains together, pictures, and order of event files."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from dograph.files.atomic import write_files
from dograph.files.levels import by_top_level
from dograph.files.run_dir import DOMAIN_RUNS, EVENT_FILES
from dograph.reports.domain_logger import SECTIONS, DomainLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAMPED = re.compile(r"(events\.out\.tfevents\.)(\d+)(\..*)")
"""Name of an event file, with the second in which it was started."""


def settle_event_files(folder: Path) -> None:
    """Renames event files of a resumed run where the next one would not come after them by name.

    After a clock was set back, or within the same second, readers would drop the next file's
    points instead of the earlier ones'. The earlier files get the stamps 0, 1, 2 …; if this is
    interrupted, they are still in order. The runs of the domains are settled alike.
    """
    below = (path for path in (folder / DOMAIN_RUNS).rglob("*") if path.is_dir())
    for each in (folder, *below):
        _settle(each)


def _settle(folder: Path) -> None:
    stamped = sorted(
        (path, match) for path in folder.glob(EVENT_FILES) if (match := STAMPED.match(path.name))
    )
    if not stamped or int(stamped[-1][1][2]) < int(time.time()):
        return
    for number, (path, match) in enumerate(stamped):
        path.rename(path.with_name(f"{match[1]}{number:010d}{match[3]}"))


def chart_layout(
    schedule: bool = False, domain_runs: bool = False, levels: bool = False
) -> dict[str, dict[str, list[object]]]:
    """The charts of the Custom Scalars tab, each of all domains together.

    Tags are regular expressions of whole groups, so that a domain may have any name.

    Args:
        schedule: whether there are a sampling schedule's influences and terms.
        domain_runs: whether each domain has a run of its own, as ``DomainLogger`` writes them.
        levels: whether domains stand below levels, whose sums are shown.
    """

    def of(group: str) -> list[str]:
        return [f"^{SECTIONS.get(group, '')}{group}$" if domain_runs else f"{group}/.*"]

    groups = {
        "Domain weights": "weights",
        "Sampling weights": "sampling",
        "Realised shares": "realised",
        "Effective weights": "effective",
        "Tokens": "tokens",
        "Epochs": "epochs",
    }
    mixture = {title: of(group) for title, group in groups.items()}
    validation = {
        "Loss per domain": of("validation/loss"),
        "Perplexity per domain": of("validation/perplexity"),
        "Target, mean and worst": [
            f"validation/{score}_loss$" for score in ("target", "mean", "worst")
        ],
    }
    influence = {
        "Influence on the target": of("mixer/influence"),
        "Standard error of the influence": of("mixer/influence_error"),
        "Terms of the objective": ["mixer/term/.*"],
    }
    categories = {"Mixture": mixture, "Validation": validation}
    if levels:
        categories["Mixture by level"] = {
            title: [f"levels/{group}/.*"] for title, group in groups.items() if group != "epochs"
        }
    if schedule:
        categories["Schedule"] = influence
    return {
        category: {title: ["Multiline", tags] for title, tags in charts.items()}
        for category, charts in categories.items()
    }


def show_figure(
    writer: SummaryWriter, name: str, figure: Figure, step: int
) -> npt.NDArray[np.uint8]:
    """Draws a figure at its own size, shows it as ``figures/name``, returns it as (H, W, RGB)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    writer.add_image(f"figures/{name}", pixels, step, dataformats="HWC")
    return pixels


class Board:
    """Writes scalars and pictures of one run; pictures also as PNG into the folder ``figures``.

    Args:
        logger: the run's TensorBoard, which shows all of it.
        others: further loggers, which get the scalars by the same tags.
        figures: folder of the pictures.
    """

    def __init__(self, logger: TensorBoardLogger, others: Sequence[Logger], figures: Path) -> None:
        self.logger, self.others, self.figures = logger, others, figures
        self.writer: SummaryWriter = logger.experiment

    def begin(self, domains: Sequence[str], step: int, schedule: bool = False) -> None:
        """Writes the layout of the charts, and lets TensorBoard drop an interrupted run's points.

        Those after ``step`` are dropped, so that no curve goes back in time. ``schedule``: see
        ``chart_layout``.
        """
        restart = Event(session_log=SessionLog(status=SessionLog.START))
        self.writer._get_file_writer().add_event(restart, step + 1)
        has_runs = isinstance(self.logger, DomainLogger)
        if isinstance(self.logger, DomainLogger):
            self.logger.begin(domains, step)
        layout = chart_layout(schedule, has_runs, levels=bool(by_top_level(domains)))
        self.writer.add_custom_scalars(layout)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes every value by its tag, ``group/name``."""
        for logger in (self.logger, *self.others):
            logger.log_metrics(dict(values), step)

    def picture(self, name: str, figure: Figure, step: int, final: bool = False) -> Path:
        """Shows a figure as ``figures/name`` and saves it; returns the path of the PNG.

        If ``final``, the file's name has no step, so that only the latest is kept.
        """
        from PIL import Image

        pixels = show_figure(self.writer, name, figure, step)
        path = self.figures / (f"{name}.png" if final else f"{name}_{step:07d}.png")
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        write_files({path: content.getvalue()})
        return path

    def flush(self) -> None:
        """Writes everything to the disk; an OSError if the system refuses any of it."""
        self.writer.flush()
        # TensorBoard's thread reports its failure only to the next event: an empty one.
        self.writer._get_file_writer().add_event(Event())
        self.writer.flush()
        for other in self.others:
            other.save()


def grouped(group: str, values: Mapping[str, float]) -> dict[str, float]:
    """``group/name`` for every name."""
    return {f"{group}/{name}": value for name, value in values.items()}


def by_domain(group: str, domains: Sequence[str], values: npt.ArrayLike) -> dict[str, float]:
    """``group/domain`` for every domain of (S,) ``values``."""
    numbers = np.asarray(values, dtype=np.float64).tolist()
    return grouped(group, dict(zip(domains, numbers, strict=True)))


def by_level(group: str, domains: Sequence[str], values: npt.ArrayLike) -> dict[str, float]:
    """``levels/group/level``, the sum below each top level, of (S,) ``values``."""
    numbers = np.asarray(values, dtype=np.float64)
    sums = {top: float(numbers[below].sum()) for top, below in by_top_level(domains).items()}
    return grouped(f"levels/{group}", sums)
