"""What TensorBoard's HParams tab filters and sorts runs by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from dograph.experiments.comparison.runs import ComparedRun

Hyperparameter = str | int | float
OF_DATA = ("batch_size", "context")
OF_MODEL = ("learning_rate", "final_learning_rate", "warmup", "weight_decay")


def hyperparameters(label: str, run: ComparedRun) -> dict[str, Hyperparameter]:
    """A run's method, mixer, seed and sizes, and the mixer's own settings, by flat names.

    A mixer's settings bear its name (``mixer/DoGraph/beta``), because another mixer's of the same
    name means something else. Left out: settings that the recipe leaves to their defaults, lists
    and mappings (such as ``Fixed``'s weights).
    """
    data, model, mixer = (run.recipe.get(part) or {} for part in ("data", "model", "mixer"))
    config, arguments = model.get("config") or {}, mixer.get("init_args") or {}
    values: dict[str, Any] = {
        "method": label,
        "mixer": run.summary.mixer,
        "seed": str(run.seed),  # a name rather than a quantity
        "stages": len(run.stages),
        "steps": run.summary.steps,
        **{key: data.get(key) for key in OF_DATA},
        **{key: model.get(key) for key in OF_MODEL},
        "model/architecture": model.get("architecture"),
        **{f"model/{key}": value for key, value in config.items()},
        **{f"mixer/{run.summary.mixer}/{key}": value for key, value in arguments.items()},
    }
    return {
        key: _plain(value) for key, value in values.items() if isinstance(value, Hyperparameter)
    }


def _plain(value: Hyperparameter) -> Hyperparameter:
    """A switch as "true" or "false", which TensorBoard would show as 1.0 or 0.0."""
    return str(value).lower() if isinstance(value, bool) else value


def write_columns(
    writer: SummaryWriter, runs: Sequence[Mapping[str, Hyperparameter]], metrics: Sequence[str]
) -> None:
    """Writes which columns the table of all runs has; at first it shows those that differ.

    TensorBoard believes the first such list that it finds, so one list has the hyper-parameters
    of all runs: no run alone has those of every mixer. torch's writer cannot say which differ.
    """
    names = dict.fromkeys(name for run in runs for name in run)
    experiment = api_pb2.Experiment(
        hparam_infos=[_column(name, [run.get(name) for run in runs]) for name in names],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag)
            for tag in metrics
        ],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    about = metadata.create_summary_metadata(content)
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    writer._get_file_writer().add_summary(Summary(value=[value]))


def write_row(
    writer: SummaryWriter,
    values: Mapping[str, Hyperparameter],
    metrics: Mapping[str, float],
    step: int,
) -> None:
    """Writes one run's row, and its final scalars by tag at its last step."""
    _, start, end = hparams(dict(values), {})  # its list of columns would hide those of all runs
    for summary in (start, end):
        writer._get_file_writer().add_summary(summary)
    for tag, metric in metrics.items():
        writer.add_scalar(tag, metric, step)


def _column(name: str, values: Sequence[Hyperparameter | None]) -> api_pb2.HParamInfo:
    """A hyper-parameter of all runs; None where a run has none. Words can be ticked."""
    given = [value for value in values if value is not None]
    words = any(isinstance(value, str) for value in given)
    column = api_pb2.HParamInfo(
        name=name,
        display_name=name,
        type=api_pb2.DATA_TYPE_STRING if words else api_pb2.DATA_TYPE_FLOAT64,
        differs=len(set(given)) > 1,
    )
    if words:
        column.domain_discrete.extend(sorted({str(value) for value in given}))
    return column
