"""The seed of all random faults, printed and to be given."""

import os
import random
import subprocess

import pytest
from disturbances import Disk


@pytest.fixture(scope="session")
def fault_seed():
    """``DOGRAPH_FAULT_SEED``, or always the same: what is tried is new only when asked for."""
    seed = int(os.environ.get("DOGRAPH_FAULT_SEED", "0"))
    print(f"\nfaults by DOGRAPH_FAULT_SEED={seed}")
    return seed


@pytest.fixture
def chance(fault_seed, request):
    """A generator of its own for each test."""
    return random.Random(f"{fault_seed} {request.node.name}")


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; without the right to mount one, its tests are skipped."""
    try:
        disk = Disk(tmp_path / "disk", "64m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield disk
    disk.unmount()
