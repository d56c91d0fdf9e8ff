import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sklgap.regimes import n_batches
from sklgap.training import HostLoader, ResidentLoader, plan_epoch
from sklgap.training._datasets import WeightedRows
from sklgap.training._loaders import SequentialLoader, SparseLoader, make_loader
from tests.cases import no_global_random_numbers

CPU = torch.device("cpu")
both = pytest.mark.parametrize("kind", [HostLoader, ResidentLoader])


def _data(n_rows):
    X = torch.arange(n_rows)
    return X[:, None].float(), X


def _loader(kind, n_rows, size_of_epoch, **kwargs):
    return kind(*_data(n_rows), size_of_epoch, **{"seed": 3, "device": CPU, **kwargs})


def _rows(loader):
    batches = [(X, y) for X, y in loader]
    assert all((X[:, 0] == y).all() for X, y in batches)
    return [y.tolist() for _, y in batches]


@both
@given(n_rows=st.integers(1, 60), batch_size=st.integers(1, 70), epoch=st.integers(0, 9))
def test_every_row_exactly_once_in_the_order_of_the_plan(kind, n_rows, batch_size, epoch):
    loader = _loader(kind, n_rows, lambda epoch: batch_size)
    loader.set_epoch(epoch)
    batches = _rows(loader)
    permutation, slices = plan_epoch(n_rows, batch_size, 3, epoch)
    assert batches == [permutation[rows].tolist() for rows in slices]
    assert sorted(row for batch in batches for row in batch) == list(range(n_rows))
    assert len(loader) == len(batches) == n_batches(n_rows, batch_size)


@both
def test_the_batch_size_follows_the_epoch(kind):
    loader = _loader(kind, 20, lambda epoch: 4 * (epoch + 1))
    for epoch, sizes in enumerate([[4] * 5, [8, 8, 4], [12, 8], [20], [20]]):
        loader.set_epoch(epoch)
        assert loader.batch_size == 4 * (epoch + 1)
        assert [len(batch) for batch in _rows(loader)] == sizes


@both
def test_an_epoch_repeats_and_another_differs(kind):
    loader = _loader(kind, 20, lambda epoch: 8)
    first = _rows(loader)
    assert _rows(loader) == first
    loader.set_epoch(1)
    assert _rows(loader) != first
    assert _rows(_loader(kind, 20, lambda epoch: 8, seed=4)) != first


@both
@pytest.mark.parametrize(("before", "left"), [(0, 3), (1, 3), (5, 2), (6, 1), (7, 0)])
def test_max_batches(kind, before, left):
    loader = _loader(kind, 20, lambda epoch: 8, max_batches=7)
    loader.set_epoch(2, batches_before=before)
    assert len(loader) == left
    whole = _loader(kind, 20, lambda epoch: 8)
    whole.set_epoch(2)
    assert _rows(loader) == _rows(whole)[:left]


@both
def test_nothing_is_drawn_from_the_global_generators(kind):
    with no_global_random_numbers():
        _rows(_loader(kind, 20, lambda epoch: 8))


@both
def test_batches_are_copies(kind):
    X, y = _data(8)
    for X_batch, y_batch in kind(X, y, lambda epoch: 8, seed=0, device=CPU):
        X_batch.zero_(), y_batch.zero_()
    assert X[:, 0].tolist() == y.tolist() == list(range(8))


def test_the_host_loader_is_one_batch_ahead_and_no_more():
    gathered = []

    class Watched(HostLoader):
        def _gather(self, index):
            gathered.append(len(index))
            return super()._gather(index)

    loader = iter(_loader(Watched, 20, lambda epoch: 4))
    for i in range(5):
        next(loader)
        assert len(gathered) == min(i + 2, 5)


def test_data_that_fit_are_resident():
    loader = make_loader(*_data(8), lambda epoch: 4, seed=3, device=CPU, max_batches=1)
    assert type(loader) is ResidentLoader
    assert len(_rows(loader)) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_sequential(batch_size):
    loader = SequentialLoader(*_data(7), batch_size, CPU)
    batches = _rows(loader)
    assert [row for batch in batches for row in batch] == list(range(7))
    assert len(loader) == len(batches)


@pytest.mark.parametrize("kind", [ResidentLoader, HostLoader, SparseLoader])
def test_weights_go_with_their_rows(kind):
    X, y = _data(20)
    given = csr_matrix(X.numpy()) if kind is SparseLoader else X
    plain = kind(given, y, lambda epoch: 7, seed=3, device=CPU)
    weighted = kind(given, y, lambda epoch: 7, seed=3, device=CPU, weight=0.5 * y)
    for batches, pairs in ((weighted, plain), (weighted.sample(2, 7, seed=1), plain.sample(2, 7, seed=1))):
        for batch, pair in zip(batches, pairs, strict=True):
            assert type(batch) is WeightedRows
            assert type(pair) is tuple
            assert torch.equal(batch.X, pair[0])
            assert torch.equal(batch.y, pair[1])
            assert torch.equal(batch.weight, 0.5 * batch.y)


def test_sequential_with_weights():
    X, y = _data(10)
    batches = list(SequentialLoader(X, y, 4, CPU, 0.5 * y))
    assert [len(batch.y) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([batch.weight for batch in batches]), 0.5 * y)
