"""Loggers of a recipe get TensorBoard's tags; what cannot work is refused before training."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest
from outcomes import scalars_of

from dograph.cli.main import main

CSV = "{class_path: lightning.pytorch.loggers.CSVLogger}"
MLFLOW = "{class_path: lightning.pytorch.loggers.MLFlowLogger, init_args: {%s}}"
DOMAINS = ("animals", "code", "numbers")


def test_a_csv_logger_has_the_same_tags_and_values(small_recipe, tmp_path):
    recipe = str(small_recipe("logged"))
    assert main(["run", recipe, f"trainer.logger=[{CSV}]"]) == 0
    folder = tmp_path / "runs" / "logged" / "seed_0"
    (file,) = folder.glob("lightning_logs/version_0/metrics.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    points = scalars_of(folder)
    for tag, name in (
        ("train/loss", "train/loss"),
        ("validation/mean_loss", "validation/mean_loss"),
        *((f"sampling/{domain}", f"mixture/sampling/{domain}") for domain in DOMAINS),
        *((f"validation/loss/{domain}", f"validation/loss/{domain}") for domain in DOMAINS),
    ):
        values = [(int(row["step"]), float(row[tag])) for row in rows if row[tag]]
        assert values == [(step, pytest.approx(value, rel=1e-6)) for step, value in points[name]]
    hyperparameters = (folder / "lightning_logs" / "version_0" / "hparams.yaml").read_text()
    assert "class_path: dograph.mixers.Stratified" in hyperparameters


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("true", "trainer.logger is True: every run has a TensorBoard"),
        ("CSVLogger", "trainer.logger is 'CSVLogger'"),
        ("[{class_path: lightning.pytorch.loggers.CVSLogger}]", "did you mean 'CSVLogger'?"),
        ("{class_path: nowhere.SomeLogger}", "cannot be imported (No module named 'nowhere')"),
        ("{class_path: torch.nn.Linear}", "not a logger"),
        ("{class_path: lightning.pytorch.loggers.TensorBoardLogger}", "leave it out"),
        ("{class_path: lightning.pytorch.loggers.CSVLogger, args: {}}", "'trainer.logger.args'"),
        (MLFLOW % "experiment_nam: mine", "did you mean 'experiment_name'?"),
        (MLFLOW % "save_dir: elsewhere", "save_dir is the run's folder: leave it out"),
        (MLFLOW % "tracking_uri: 'file:/elsewhere'", "could lead out of the run's folder"),
        (MLFLOW % "experiment_name: ../../elsewhere", "could lead out of the run's folder"),
    ],
)
def test_what_cannot_work_is_refused(small_recipe, capsys, given, expected):
    assert main(["run", str(small_recipe("wrong")), f"trainer.logger={given}", "--check"]) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "trainer.logger" in shown


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_logger_whose_package_is_missing_is_named(small_recipe, capsys):
    given = "{class_path: lightning.pytorch.loggers.WandbLogger}"
    assert main(["run", str(small_recipe("wrong")), f"trainer.logger={given}"]) == 2
    shown = capsys.readouterr().err
    assert "trainer.logger cannot be used" in shown
    assert "wandb" in shown


@pytest.mark.slow
def test_wandb_has_the_same_tags_offline(small_recipe, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = "{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {project: mixtures}}"
    assert main(["run", str(small_recipe("logged")), f"trainer.logger={given}"]) == 0
    (run,) = Path(tmp_path / "runs" / "logged" / "seed_0" / "wandb").glob("offline-run-*")
    (record,) = run.glob("*.wandb")
    content = record.read_bytes()
    assert all(f"sampling/{domain}".encode() in content for domain in DOMAINS)
    assert b"validation/mean_loss" in content
