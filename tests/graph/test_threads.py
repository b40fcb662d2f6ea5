"""One thread while it lasts, and as before afterwards."""

import pytest
import torch

from dograph.graph.clusters import cluster_sequences
from dograph.graph.threads import one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_it_ends_also_with_an_error(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 2


def test_labels_do_not_depend_on_threads(two_threads):
    sketches = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    with one_thread():
        alone = cluster_sequences(sketches, 5, seed=0)
    assert torch.equal(cluster_sequences(sketches, 5, seed=0), alone)
