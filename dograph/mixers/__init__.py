"""Mixers: what is drawn, and how it counts."""

from dograph.mixers.base import BaseMixer, Seen, Signal
from dograph.mixers.dograph import DoGraph
from dograph.mixers.fixed import Fixed, Proportional, Stratified, Temperature

__all__ = [
    "BaseMixer",
    "DoGraph",
    "Fixed",
    "Proportional",
    "Seen",
    "Signal",
    "Stratified",
    "Temperature",
]
