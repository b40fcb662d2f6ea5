"""Data mixing for language-model pretraining: swappable mixers, one trainer, one comparison."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dograph.data.batch import Batch
    from dograph.data.corpus.prepare import prepare
    from dograph.data.corpus.settings import CorpusSettings
    from dograph.data.corpus.store import Store
    from dograph.data.data_mixer import DataMixer
    from dograph.data.sampler import MixtureSampler
    from dograph.errors import UserError
    from dograph.evaluation.perplexity import DomainPerplexity
    from dograph.experiments.comparison.comparison import compare
    from dograph.graph.cvxpy_problem import CvxpyProblem
    from dograph.graph.graph_solver import GraphSolver
    from dograph.mixers.ado import ADO
    from dograph.mixers.aioli import Aioli
    from dograph.mixers.base import BaseMixer
    from dograph.mixers.by_level import ByLevel
    from dograph.mixers.doge import DoGE, DoGEOnline
    from dograph.mixers.dograph import DoGraph
    from dograph.mixers.dograph_schedule import DoGraphSchedule
    from dograph.mixers.doremi import DoReMi, DoReMiOnline
    from dograph.mixers.dynamic_loss import DynamicLoss
    from dograph.mixers.fixed import Fixed, Proportional, Stratified, Temperature
    from dograph.mixers.grape import GRAPE
    from dograph.mixers.limits import Limits
    from dograph.mixers.odm import ODM
    from dograph.mixers.phases import Phase, Phases
    from dograph.mixers.skill_it import SkillIt
    from dograph.mixers.unimax import UniMax
    from dograph.reports.domain_logger import DomainLogger
    from dograph.reports.mixture_report import MixtureReport
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
    from dograph.signals.sketches import SequenceSketcher, SketchSettings
    from dograph.training.language_model import LanguageModel
    from dograph.training.mixing_callback import MixingCallback
    from dograph.training.mixing_loop import MixingLoop

# Imported when first used, so that `--help` does not wait for torch.
_HOMES = {
    "ADO": "mixers.ado",
    "AlignmentProbe": "signals.batch_signals",
    "Aioli": "mixers.aioli",
    "BaseMixer": "mixers.base",
    "Batch": "data.batch",
    "CorpusSettings": "data.corpus.settings",
    "CvxpyProblem": "graph.cvxpy_problem",
    "DataMixer": "data.data_mixer",
    "DoGE": "mixers.doge",
    "DoGEOnline": "mixers.doge",
    "DoGraph": "mixers.dograph",
    "DoGraphSchedule": "mixers.dograph_schedule",
    "DoReMi": "mixers.doremi",
    "DoReMiOnline": "mixers.doremi",
    "DomainGradients": "signals.batch_signals",
    "DomainLogger": "reports.domain_logger",
    "DomainPerplexity": "evaluation.perplexity",
    "DynamicLoss": "mixers.dynamic_loss",
    "DomainText": "signals.batch_signals",
    "EmbeddingGradients": "signals.batch_signals",
    "ExcessLoss": "signals.batch_signals",
    "Fixed": "mixers.fixed",
    "GRAPE": "mixers.grape",
    "HeldOutLoss": "signals.batch_signals",
    "GraphSolver": "graph.graph_solver",
    "LanguageModel": "training.language_model",
    "Limits": "mixers.limits",
    "MixingCallback": "training.mixing_callback",
    "MixingLoop": "training.mixing_loop",
    "MixtureReport": "reports.mixture_report",
    "MixtureSampler": "data.sampler",
    "ODM": "mixers.odm",
    "Phase": "mixers.phases",
    "Phases": "mixers.phases",
    "Probe": "signals.batch_signals",
    "Proportional": "mixers.fixed",
    "BatchSignals": "signals.batch_signals",
    "ByLevel": "mixers.by_level",
    "SequenceSketcher": "signals.sketches",
    "Sketch": "signals.batch_signals",
    "SketchSettings": "signals.sketches",
    "SkillIt": "mixers.skill_it",
    "Store": "data.corpus.store",
    "Stratified": "mixers.fixed",
    "Temperature": "mixers.fixed",
    "TokenGradients": "signals.batch_signals",
    "UniMax": "mixers.unimax",
    "UserError": "errors",
    "ValidationLoss": "signals.batch_signals",
    "compare": "experiments.comparison.comparison",
    "prepare": "data.corpus.prepare",
}

__all__ = [
    "ADO",
    "GRAPE",
    "ODM",
    "Aioli",
    "AlignmentProbe",
    "BaseMixer",
    "Batch",
    "BatchSignals",
    "ByLevel",
    "CorpusSettings",
    "CvxpyProblem",
    "DataMixer",
    "DoGE",
    "DoGEOnline",
    "DoGraph",
    "DoGraphSchedule",
    "DoReMi",
    "DoReMiOnline",
    "DomainGradients",
    "DomainLogger",
    "DomainPerplexity",
    "DomainText",
    "DynamicLoss",
    "EmbeddingGradients",
    "ExcessLoss",
    "Fixed",
    "GraphSolver",
    "HeldOutLoss",
    "LanguageModel",
    "Limits",
    "MixingCallback",
    "MixingLoop",
    "MixtureReport",
    "MixtureSampler",
    "Phase",
    "Phases",
    "Probe",
    "Proportional",
    "SequenceSketcher",
    "Sketch",
    "SketchSettings",
    "SkillIt",
    "Store",
    "Stratified",
    "Temperature",
    "TokenGradients",
    "UniMax",
    "UserError",
    "ValidationLoss",
    "compare",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dograph' has no attribute {name!r}")
    return getattr(import_module(f"dograph.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
