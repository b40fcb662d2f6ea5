"""The devices a recipe asks for, on a machine that has none of them."""

import pytest

from dograph.errors import UserError
from dograph.experiments.forecast.devices import Devices


@pytest.mark.parametrize(
    ("given", "nodes", "count"),
    [(8, 128, 1024), ([0, 3], 1, 2), ("2", 2, 4), ("0,1,2", 1, 3), ("0,", 1, 1)],
)
def test_numbers_lists_and_texts_are_counted(given, nodes, count):
    trainer = {"accelerator": "gpu", "devices": given, "num_nodes": nodes, "strategy": "ddp"}
    devices = Devices.of(trainer)
    assert devices.count == count
    assert not devices.assumed


@pytest.mark.parametrize(("given", "nodes"), [("many", 1), (0, 1), (-3, 1), ([], 1), (1, 0)])
def test_numbers_that_no_machine_has_are_refused(given, nodes):
    trainer = {"accelerator": "gpu", "devices": given, "num_nodes": nodes, "strategy": "ddp"}
    with pytest.raises(UserError, match=r"trainer\.(devices|num_nodes) is"):
        Devices.of(trainer)


def test_what_lightning_would_count_is_this_machine_s():
    trainer = {"accelerator": "cpu", "devices": "auto", "num_nodes": 2, "strategy": "auto"}
    assert Devices.of(trainer) == Devices(1, 2, "cpu", "auto", assumed=False)
    assert Devices.of({**trainer, "accelerator": "gpu", "devices": -1}).assumed


@pytest.mark.parametrize(
    ("strategy", "name", "sharded"),
    [
        ("ddp_find_unused_parameters_true", "ddp_find_unused_parameters_true", False),
        ("fsdp", "fsdp", True),
        (
            {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"},
            "ModelParallelStrategy",
            True,
        ),
    ],
)
def test_strategies_by_name_and_by_class(strategy, name, sharded):
    trainer = {"accelerator": "gpu", "devices": 2, "num_nodes": 1, "strategy": strategy}
    devices = Devices.of(trainer)
    assert (devices.strategy, devices.sharded) == (name, sharded)
