"""The seed of all random faults, printed and to be given."""

import os
import random

import pytest


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
