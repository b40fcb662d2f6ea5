"""Python's search for cycles, held back while libraries are imported."""

import gc
import sys

import pytest

from dograph.cli.run import uncollected


@pytest.fixture
def fresh(monkeypatch):
    """A process that seems to have no torch yet."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield
    gc.unfreeze()


def test_what_is_made_meanwhile_is_left_out_of_later_searches(fresh):
    with uncollected():
        assert not gc.isenabled()
        made = [[index] for index in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_an_import_that_fails_leaves_the_search_as_it_was(fresh):
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_a_search_that_was_off_stays_off(fresh):
    gc.disable()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_with_torch_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    before = gc.get_freeze_count()
    with uncollected():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
