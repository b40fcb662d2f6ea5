"""Pictures of a run as matplotlib Figures; pure functions without pyplot's global state."""

from dograph.reports.figures.domain_graph import domain_graph_figure
from dograph.reports.figures.gradient_directions import (
    GradientDirections,
    early_late_figure,
    gradient_directions,
    gradient_directions_figure,
)
from dograph.reports.figures.schedule import schedule_figure
from dograph.reports.figures.trajectories import weight_trajectories_figure

__all__ = [
    "GradientDirections",
    "domain_graph_figure",
    "early_late_figure",
    "gradient_directions",
    "gradient_directions_figure",
    "schedule_figure",
    "weight_trajectories_figure",
]
