"""Pictures of a run as matplotlib Figures; pure functions without pyplot's global state."""

from dograph.report.figures.domain_graph import domain_graph_figure
from dograph.report.figures.gradient_directions import (
    GradientDirections,
    early_late_figure,
    gradient_directions,
    gradient_directions_figure,
)
from dograph.report.figures.schedule import schedule_figure
from dograph.report.figures.trajectories import weight_trajectories_figure

__all__ = [
    "GradientDirections",
    "domain_graph_figure",
    "early_late_figure",
    "gradient_directions",
    "gradient_directions_figure",
    "schedule_figure",
    "weight_trajectories_figure",
]
