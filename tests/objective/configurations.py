"""Every problem under every batch-norm policy and chunking, with the reference that it is compared with."""

import numpy as np
import pytest
import torch

from sklgap.objective import Objective
from tests.cases import FOUR_CHUNKS, ONE_CHUNK, POLICIES, PROBLEMS, WITH_BATCH_NORM
from tests.references import flat, loss_of_flat

# Every problem under every policy that means something for it, in one chunk and in four unequal ones.
CONFIGURATIONS = [
    (name, policy, chunk_size)
    for name in PROBLEMS
    for policy in (POLICIES if name in WITH_BATCH_NORM else ("batch",))
    for chunk_size in (ONE_CHUNK, FOUR_CHUNKS)
]
everywhere = pytest.mark.parametrize(("name", "policy", "chunk_size"), CONFIGURATIONS)


def objective_and_reference(name, policy, chunk_size, dtype=torch.float64):
    """Return the objective, the reference f, and a point that is not theta0."""
    module, criterion, X, y = PROBLEMS[name]()
    objective = Objective(module, criterion, (X, y), batch_norm=policy, chunk_size=chunk_size, dtype=dtype)
    theta = flat(module) + 0.1 * torch.from_numpy(np.random.default_rng(1).normal(size=objective.n_params))
    return objective, loss_of_flat(module, criterion, X, y, policy, chunk_size), theta


def direction_for(objective):
    return torch.from_numpy(np.random.default_rng(2).normal(size=objective.n_params))
