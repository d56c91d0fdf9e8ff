"""An objective in a subspace."""

import numpy as np
import pytest
import torch

from sklgap.objective import Subspace
from tests.cases import DOUBLE
from tests.objective.configurations import everywhere, objective_and_reference
from tests.references import gradient, hessian_product


@everywhere
def test_restricted_is_the_chain_rule(name, policy, chunk_size):
    objective, f, _ = objective_and_reference(name, policy, chunk_size)
    rng = np.random.default_rng(3)
    A = torch.from_numpy(rng.normal(size=(objective.n_params, 3)))
    z, v = torch.from_numpy(0.1 * rng.normal(size=(2, 3)))
    restricted = objective.restrict(Subspace(objective.theta0, A.T))
    point = objective.theta0 + A @ z
    assert restricted.n_params == 3
    assert restricted.n_samples == objective.n_samples
    assert (restricted.batch_norm, restricted.dtype) == (policy, torch.float64)
    assert restricted.theta0.tolist() == [0, 0, 0]
    assert restricted.value() == pytest.approx(objective.value(), rel=1e-12)
    assert restricted.value(z) == pytest.approx(f(point).item(), rel=1e-12)
    assert restricted.evaluate(z.numpy()) == objective.evaluate(point)
    value, g = restricted.gradient(z)
    assert value == pytest.approx(f(point).item(), rel=1e-12)
    torch.testing.assert_close(g, A.T @ gradient(f, point), **DOUBLE)
    torch.testing.assert_close(restricted.hvp(v, z), A.T @ hessian_product(f, point, A @ v), **DOUBLE)
