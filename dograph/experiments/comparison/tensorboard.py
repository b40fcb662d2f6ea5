"""A comparison in TensorBoard: a run for each method and for each of its seeds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from dograph.errors import UserError
from dograph.experiments.comparison import curves
from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.hyperparameters import hyperparameters, write_columns, write_row
from dograph.experiments.comparison.methods import Method
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.comparison.tables import as_narrow_markdown
from dograph.reports.tensorboard import show_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERALL = "(all methods)"
"""TensorBoard run of everything that shows all methods together."""
MARK = ".dograph-comparison"
"""A file that marks a folder as a comparison's, which may be replaced."""
SCORES = {
    "target_perplexity": "Target's perplexity",
    "target_loss": "Target's loss",
    "mean_perplexity": "Mean perplexity",
    "worst_perplexity": "Worst domain's perplexity",
    "mean_loss": "Mean loss",
    "worst_loss": "Worst domain's loss",
}
SHARES: dict[curves.Kind, str] = {"weights": "Weight", "effective": "Effective share"}
ENDS = ("lower_bound", "upper_bound")
Layout = dict[str, dict[str, list[object]]]


def write_board(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> None:
    """Writes a folder for ``tensorboard --logdir``.

    Methods become TensorBoard runs with curves averaged over seeds, runs become TensorBoard runs
    with hyper-parameters and final metrics. They are written beside their place and moved there
    whole, so that writing again doubles nothing and a failure leaves an earlier folder as it was.

    Args:
        comparison: the methods and runs to write.
        figures: by the names of their tags, in ``figures/``.
        folder: new, empty, or an earlier comparison's, which is replaced; any other is refused.
    """
    names = _run_names(comparison)
    with _replacing(folder) as beside:
        # In this order TensorBoard lists them and gives out its seven colours.
        for method in comparison.methods:
            with SummaryWriter(str(beside / names[method.name])) as writer:
                _write_curves(writer, method, comparison.domains)
        _write_overall(comparison, figures, beside / OVERALL)
        for method in comparison.methods:
            for run in method.runs:
                values = hyperparameters(method.label, run)
                of_seed = beside / names[method.name] / f"seed_{run.seed}"
                with SummaryWriter(str(of_seed)) as writer:
                    write_row(writer, values, _final(run), run.summary.steps)


def _run_names(comparison: Comparison) -> dict[str, str]:
    """A TensorBoard run for each method: its label, where labels tell methods apart."""
    methods = comparison.methods
    clear = len({OVERALL, *(method.label for method in methods)} - {""}) == len(methods) + 1
    return {method.name: method.label if clear else method.name for method in methods}


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``folder`` in the end, if all goes well."""
    folder = folder.resolve()
    beside, before = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    for ours in (beside, before):
        if ours.is_dir() and any(ours.iterdir()) and not (ours / MARK).is_file():
            raise UserError(f"{ours} is not of dograph: move it away, or name another folder")
    _restore(folder, before)
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / MARK).is_file():
        raise UserError(
            f"{folder} holds files that are not a comparison's TensorBoard log: name a new or an "
            "empty folder"
        )
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        (beside / MARK).touch()
        yield beside
        if folder.exists():
            folder.rename(before)
        beside.rename(folder)
    finally:
        _restore(folder, before)
        shutil.rmtree(beside, ignore_errors=True)


def _restore(folder: Path, before: Path) -> None:
    """Puts the earlier folder back, unless a new one took its place."""
    if before.exists() and not folder.exists():
        before.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _write_overall(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> None:
    """Figures, tables, the layout of the charts, and the columns of the table of runs."""
    last = max(run.summary.steps for run in comparison.runs)
    with SummaryWriter(str(folder)) as writer:
        for name, text in as_narrow_markdown(comparison).items():
            writer.add_text(f"tables/{name}", text, last)
        for name, figure in figures.items():
            show_figure(writer, name, figure, last)
        writer.add_custom_scalars(chart_layout(comparison))
        columns = [hyperparameters(m.label, run) for m in comparison.methods for run in m.runs]
        write_columns(writer, columns, list(_final(comparison.runs[0])))


def chart_layout(comparison: Comparison) -> Layout:
    """The charts of the Custom Scalars tab, all methods in each.

    Bands are only there if a method ran with several seeds. A chart of lines names its tags by
    regular expressions, so domains' names are escaped.
    """
    several = any(len(method.runs) > 1 for method in comparison.methods)
    layout: Layout = {
        "Validation, mean over seeds (set Smoothing to 0)": {
            title: ["Multiline", [f"comparison/{score}$"]] for score, title in SCORES.items()
        }
    }
    if several:
        layout["Validation, 95 % interval over seeds"] = {
            title: ["Margin", [f"comparison/{score}", *(f"{end}/{score}" for end in ENDS)]]
            for score, title in SCORES.items()
        }
    for kind, title in SHARES.items():
        layout[f"{title} of each domain"] = {
            domain: ["Multiline", [f"{kind}/{re.escape(domain)}$"]] for domain in comparison.domains
        }
    return layout


def _write_curves(writer: SummaryWriter, method: Method, domains: Sequence[str]) -> None:
    for name, curve in curves.score_curves(method).items():
        _write_curve(writer, f"comparison/{name}", curve.steps, curve.mean)
        for end, bound in zip(ENDS, curve.bounds or (), strict=False):
            _write_curve(writer, f"{end}/{name}", curve.steps, bound)
    for kind in SHARES:
        moved = curves.share_trajectory(method, kind, domains)
        for domain, shares in zip(domains, moved.shares.T, strict=True):
            _write_curve(writer, f"{kind}/{domain}", moved.steps, shares)


def _write_curve(
    writer: SummaryWriter, tag: str, steps: curves.Steps, values: curves.Floats
) -> None:
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        writer.add_scalar(tag, value, step)


def _final(run: ComparedRun) -> dict[str, float]:
    """Final scores, and the cost of all stages, by their tags."""
    metrics = {**run.summary.scores, "target_loss": run.target_loss, **run.cost}
    return {f"final/{name}": value for name, value in metrics.items()}
