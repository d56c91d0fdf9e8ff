"""Arrays in chunks: held in the order of the chunks for many passes, or gathered chunk by chunk for few."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sklgap import Objective
from sklgap.objective._data import ArrayData
from tests.tiny import Mlp, TinyF1, blobs

X, Y = blobs(23)
WEIGHT = np.arange(23) % 4 + 0.5


def both(data=(X, Y), chunk_size=5, **more):
    made = (data, chunk_size, torch.float32, torch.device("cpu"))
    return ArrayData(*made, **more), ArrayData(*made, passes="few", **more)


def same(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, csr_matrix], ids=["array", "tensor", "sparse"])
@pytest.mark.parametrize("chunk_size", [23, 10, 5, 1])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_both_ways_hold_the_same_chunks(make, chunk_size, weight):
    held, gathered = both((make(X), Y), chunk_size, weight=weight)
    assert held.sizes == gathered.sizes
    for _ in range(2):
        for a, b in zip(held, gathered, strict=True):
            same(a, b)
    same(held.few(), gathered.few())
    for rows in ([3, 0, 22], [7], torch.arange(23)):
        same(held.take(rows), gathered.take(rows))
    for a, b in zip(held.targets(), gathered.targets(), strict=True):
        same(a, b)
    y = torch.cat([y for y, _ in held.targets()])
    np.testing.assert_array_equal(held.in_order(y), Y)
    np.testing.assert_array_equal(gathered.in_order(y), Y)


@pytest.mark.parametrize("chunk_size", [23, 10, 5])
def test_gathering_takes_no_copy_of_the_data(chunk_size):
    gathered = both(chunk_size=chunk_size)[1]
    assert gathered._whole.X.data_ptr() == X.ctypes.data
    assert sum(batch.X.numel() for batch in gathered) == X.size


@pytest.mark.parametrize("policy", ["batch", "population", "running"])
def test_objectives_of_both_are_equal_bit_for_bit(policy):
    net = TinyF1(4, 3)
    held, gathered = (Objective(net, nn.CrossEntropyLoss(), data, batch_norm=policy) for data in both())
    assert held.evaluate() == gathered.evaluate()
    np.testing.assert_array_equal(held.evaluate_samples()[1], gathered.evaluate_samples()[1])
    assert torch.equal(held.gradient()[1], gathered.gradient()[1])


class Writing(Mlp):
    """A net whose first step changes its input."""

    def forward(self, X):
        return super().forward(X.mul_(1.0))


@pytest.mark.parametrize(
    "net",
    [Writing(), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), nn.Sequential(nn.Hardtanh(inplace=True), Mlp())],
    ids=["own", "relu", "hardtanh"],
)
def test_a_module_that_writes_into_the_data_is_refused(net):
    before = X.copy()
    with pytest.raises(ValueError, match="write into its inputs"):
        Objective(net, nn.CrossEntropyLoss(), (X, Y))
    np.testing.assert_array_equal(X, before)
