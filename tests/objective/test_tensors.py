import numpy as np
import pytest
import torch
from torch import nn

from sklgap import Objective
from sklgap.objective._tensors import as_tensor
from tests.tiny import Mlp, blobs, small


def misplaced(X, offset):
    """Return a copy of the array that starts so many bytes after an address that a vector unit likes."""
    raw = np.empty(X.nbytes + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + offset
    copy = raw[start : start + X.nbytes].view(X.dtype).reshape(X.shape)
    copy[:] = X
    return copy


@pytest.mark.parametrize("offset", [0, 16, 32])
def test_memory_is_shared(offset):
    X = misplaced(blobs()[0], offset)
    assert as_tensor(X).data_ptr() == X.ctypes.data
    assert as_tensor(torch.from_numpy(X)).data_ptr() == X.ctypes.data


@pytest.mark.parametrize("offset", [4, 8, 12])
def test_results_do_not_depend_on_where_the_numbers_lie(offset):
    X, y = blobs(n=203)
    model = small(random_state=5).fit(X, y)
    moved = small(random_state=5).fit(misplaced(X, offset), y)
    torch.testing.assert_close(moved.module_.state_dict(), model.module_.state_dict(), rtol=0, atol=0)
    module, criterion = Mlp(), nn.CrossEntropyLoss()
    tensors = [torch.from_numpy(part) for part in (X, misplaced(X, offset))]
    values = [Objective(module, criterion, (rows, y)).value() for rows in (X, misplaced(X, offset), *tensors)]
    assert len(set(values)) == 1


def test_labels_must_be_numbers():
    with pytest.raises(ValueError, match="X and y must be numbers"):
        as_tensor(["cat", "dog"])
