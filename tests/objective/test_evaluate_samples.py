"""Which samples are predicted right, in the order in which they were given."""

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.objective import Objective


@pytest.mark.parametrize("chunk_size", [7, 100])
@pytest.mark.parametrize("batch_norm", ["batch", "population", "running"])
def test_right_samples_are_in_the_order_of_the_data(chunk_size, batch_norm):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 3, generator=generator)
    y = torch.randint(3, (40,), generator=generator)
    module = nn.Linear(3, 3)
    evaluation, right = Objective(
        module, nn.CrossEntropyLoss(), (X, y), chunk_size=chunk_size, batch_norm=batch_norm
    ).evaluate_samples()
    np.testing.assert_array_equal(right, (module(X).argmax(1) == y).numpy())
    assert evaluation.accuracy == right.mean()


def test_a_regression_has_none():
    f = Objective(nn.Linear(3, 1), nn.MSELoss(), (torch.zeros(5, 3), torch.zeros(5, 1)))
    evaluation, right = f.evaluate_samples()
    assert right is None
    assert np.isnan(evaluation.accuracy)
