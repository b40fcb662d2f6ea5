"""The seed of all random faults, printed and to be given."""

import os
import random
import time

import pytest


@pytest.fixture(scope="session")
def fault_seed():
    """``DOGRAPH_FAULT_SEED``, or another every time."""
    seed = int(os.environ.get("DOGRAPH_FAULT_SEED", time.time_ns() % 2**32))
    print(f"\nfaults by DOGRAPH_FAULT_SEED={seed}")
    return seed


@pytest.fixture
def chance(fault_seed, request):
    """A generator of its own for each test."""
    return random.Random(f"{fault_seed} {request.node.name}")
