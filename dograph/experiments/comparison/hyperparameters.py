"""What TensorBoard's HParams tab filters and sorts runs by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import struct_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter

from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.recipe.compose import load_yaml
from dograph.files.run_dir import RECIPE

Hyperparameter = str | int | float
OF_DATA = ("batch_size", "context")
OF_MODEL = ("learning_rate", "final_learning_rate", "warmup", "weight_decay")


def hyperparameters(label: str, run: ComparedRun) -> dict[str, Hyperparameter]:
    """A run's method, mixer, seed and sizes, and the mixer's own settings.

    Args:
        label: the method, as tables name it.
        run: of an experiment with stages, what its last stage was told.

    Returns:
        flat names to values; a mixer's settings bear its name (``mixer/DoGraph/beta``), for
        another's of the same name means something else. Not in it: a setting that the recipe
        leaves to its default, and a list or a mapping (such as ``Fixed``'s weights).
    """
    recipe = load_yaml(run.final / RECIPE)
    data, model, mixer = (recipe.get(part) or {} for part in ("data", "model", "mixer"))
    values: dict[str, Any] = {
        "method": label,
        "mixer": run.summary.mixer,
        "seed": str(run.seed),  # a name rather than a quantity
        "stages": len(run.stages),
        "steps": run.summary.steps,
        **{key: data.get(key) for key in OF_DATA},
        **{key: model.get(key) for key in OF_MODEL},
        "model/architecture": model.get("architecture"),
        **dict(_under("model", model.get("config") or {})),
        **dict(_under(f"mixer/{run.summary.mixer}", mixer.get("init_args") or {})),
    }
    return {key: _plain(value) for key, value in values.items() if _is_one_value(value)}


def _under(group: str, values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield f"{group}/{key}", value


def _is_one_value(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _plain(value: Hyperparameter) -> Hyperparameter:
    """A switch as "true" or "false", which TensorBoard would show as 1.0 or 0.0."""
    return str(value).lower() if isinstance(value, bool) else value


def write_columns(
    writer: SummaryWriter, runs: Sequence[Mapping[str, Hyperparameter]], metrics: Sequence[str]
) -> None:
    """Says which columns the table of all runs has; at first it shows those that differ.

    TensorBoard believes the first such list that it finds. So there is one of all runs'
    hyper-parameters, for no run alone has those of every mixer.

    Args:
        writer: of any run.
        runs: hyper-parameters of each run; a name may be missing in some.
        metrics: tags of their final scalars.
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
    _write(writer, metadata.EXPERIMENT_TAG, content)


def write_row(
    writer: SummaryWriter,
    values: Mapping[str, Hyperparameter],
    metrics: Mapping[str, float],
    step: int,
) -> None:
    """Writes one run's row.

    Args:
        writer: of this run.
        values: its hyper-parameters.
        metrics: final scalars by tag.
        step: its last.
    """
    start = plugin_data_pb2.SessionStartInfo(
        hparams={name: _value(value) for name, value in values.items()}
    )
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value("STATUS_SUCCESS"))
    for tag, content in (
        (
            metadata.SESSION_START_INFO_TAG,
            plugin_data_pb2.HParamsPluginData(session_start_info=start),
        ),
        (metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)),
    ):
        _write(writer, tag, content)
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


def _value(value: Hyperparameter) -> struct_pb2.Value:
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    return struct_pb2.Value(number_value=value)


def _write(writer: SummaryWriter, tag: str, content: plugin_data_pb2.HParamsPluginData) -> None:
    about = metadata.create_summary_metadata(content)
    value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    writer._get_file_writer().add_summary(Summary(value=[value]))
