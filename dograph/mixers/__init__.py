"""Mixers: what is drawn, and how it counts."""

from dograph.mixers.ado import ADO
from dograph.mixers.aioli import Aioli
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.mixers.by_level import ByLevel
from dograph.mixers.doge import DoGE, DoGEOnline
from dograph.mixers.dograph import DoGraph
from dograph.mixers.dograph_schedule import DoGraphSchedule
from dograph.mixers.doremi import DoReMi, DoReMiOnline
from dograph.mixers.dynamic_loss import DynamicLoss
from dograph.mixers.fixed import Fixed, Proportional, Stratified, Temperature
from dograph.mixers.grape import GRAPE
from dograph.mixers.odm import ODM
from dograph.mixers.phases import Phase, Phases
from dograph.mixers.skill_it import SkillIt
from dograph.mixers.unimax import UniMax
from dograph.signals.batch_signals import (
    AlignmentProbe,
    BatchSignals,
    DomainGradients,
    DomainText,
    EmbeddingGradients,
    ExcessLoss,
    HeldOutLoss,
    Probe,
    Sketch,
    TokenGradients,
    ValidationLoss,
)

__all__ = [
    "ADO",
    "GRAPE",
    "LOSS",
    "ODM",
    "SAMPLING",
    "Aioli",
    "AlignmentProbe",
    "BaseMixer",
    "BatchSignals",
    "ByLevel",
    "DoGE",
    "DoGEOnline",
    "DoGraph",
    "DoGraphSchedule",
    "DoReMi",
    "DoReMiOnline",
    "DomainGradients",
    "DomainText",
    "DynamicLoss",
    "EmbeddingGradients",
    "ExcessLoss",
    "Fixed",
    "HeldOutLoss",
    "Phase",
    "Phases",
    "Probe",
    "Proportional",
    "Sketch",
    "SkillIt",
    "Stratified",
    "Temperature",
    "TokenGradients",
    "UniMax",
    "ValidationLoss",
]
