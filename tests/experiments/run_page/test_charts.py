"""Charts of a run's page: every name is in its place, however many there are."""

import numpy as np
import pytest

from dograph.experiments.run_page.charts import run_charts
from dograph.mixers.target import Target
from dograph.reports.history import MixtureHistory, Validation


def history_of(domains):
    """One domain with 0.3, most of the others with hardly anything."""
    names = tuple(f"source_{index:02d}" for index in range(domains))
    weights = np.geomspace(0.3, 1e-4, domains) if domains > 1 else np.ones(1)
    history = MixtureHistory(names)
    for step in (10, 20):
        history.add(step, weights, 100 * step * weights, 10 * step * weights)
        losses = {name: 4 - 0.01 * index for index, name in enumerate(names)}
        history.add_validation(Validation(step, 100 * step, 1.0, losses))
    return history


@pytest.mark.parametrize("domains", [1, 2, 7, 22, 40])
def test_every_name_is_inside_and_none_on_another(domains):
    charts = run_charts(history_of(domains), Target.parse("source_00"))
    assert list(charts) == ["losses", "weights", "realised", "effective"]
    for figure in charts.values():
        figure.canvas.draw()
        (axes,) = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts if "source" in text.get_text()]
        assert len(boxes) == domains + (figure is charts["losses"])
        for box in boxes:
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width
            assert box.y0 >= 0 and box.y1 <= figure.bbox.height
        middles = sorted((box.y0 + box.y1) / 2 for box in boxes)
        assert all(np.diff(middles) > 10)


def test_a_run_without_a_point_has_no_chart():
    assert run_charts(MixtureHistory(("a", "b")), Target()) == {}
