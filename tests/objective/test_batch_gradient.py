import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.objective import Objective
from tests.cases import (
    DOUBLE,
    FOUR_CHUNKS,
    N_ROWS,
    ONE_CHUNK,
    PLAIN,
    POLICIES,
    PROBLEMS,
    SINGLE,
    WITH_BATCH_NORM,
    no_global_random_numbers,
    seeded_module,
    vectors,
)
from tests.references import flat, gradient, loss_of_flat

# More than a chunk of FOUR_CHUNKS.
ROWS = [3, 0, 22, 11, 7, 8, 19, 5, 14]
CONFIGURATIONS = [
    (name, policy, chunk_size)
    for name in PROBLEMS
    for policy in (POLICIES if name in WITH_BATCH_NORM else ("batch",))
    for chunk_size in (ONE_CHUNK, FOUR_CHUNKS)
]
everywhere = pytest.mark.parametrize(("name", "policy", "chunk_size"), CONFIGURATIONS)
# What has independent rows.
ALONE = [(name, "running", chunk) for name in PROBLEMS for chunk in (ONE_CHUNK, FOUR_CHUNKS)]


def _objective(name, policy, chunk_size, dtype=torch.float64):
    module, criterion, X, y = PROBLEMS[name]()
    objective = Objective(module, criterion, (X, y), batch_norm=policy, chunk_size=chunk_size, dtype=dtype)
    theta = flat(module) + 0.1 * torch.from_numpy(np.random.default_rng(1).normal(size=objective.n_params))
    return objective, theta


def _reference(name, policy, rows):
    """The loss of the rows alone: normalised by their own statistics, or by the buffers."""
    module, criterion, X, y = PROBLEMS[name]()
    return loss_of_flat(module, criterion, X[rows], y[rows], "running" if policy == "running" else "batch")


# -- mini-batches --------------------------------------------------------------------------------------------------


@everywhere
def test_a_mini_batch_is_its_rows_alone(name, policy, chunk_size):
    objective, theta = _objective(name, policy, chunk_size)
    f = _reference(name, policy, ROWS)
    value, found = objective.batch_gradient(ROWS, theta)
    assert value == pytest.approx(f(theta).item(), rel=1e-12)
    torch.testing.assert_close(found, gradient(f, theta), **DOUBLE)
    # At the module's own parameters by default; an array of another integer type will do.
    value, found = objective.batch_gradient(np.array(ROWS, dtype=np.int32))
    assert value == pytest.approx(f(objective.theta0).item(), rel=1e-12)
    torch.testing.assert_close(found, gradient(f, objective.theta0), **DOUBLE)


@everywhere
def test_float32(name, policy, chunk_size):
    objective, theta = _objective(name, policy, chunk_size, torch.float32)
    value, found = objective.batch_gradient(ROWS, theta)
    f = _reference(name, policy, ROWS)
    assert found.dtype == torch.float32
    assert value == pytest.approx(f(theta).item(), rel=1e-4)
    torch.testing.assert_close(found.double(), gradient(f, theta), **SINGLE)


@everywhere
def test_all_rows_are_the_whole_function_where_their_order_does_not_matter(name, policy, chunk_size):
    objective, theta = _objective(name, policy, chunk_size)
    value, found = objective.batch_gradient(np.random.default_rng(0).permutation(N_ROWS), theta)
    if objective.batch_statistics and chunk_size == FOUR_CHUNKS:
        return  # each chunk has its own statistics, at the second layer of "population" too
    expected_value, expected = objective.gradient(theta)
    assert value == pytest.approx(expected_value, rel=1e-12)
    torch.testing.assert_close(found, expected, **DOUBLE)


@everywhere
def test_nothing_is_left_behind(name, policy, chunk_size):
    objective, theta = _objective(name, policy, chunk_size)
    before, state = objective.gradient(theta), copy.deepcopy(objective._module.state_dict())
    with no_global_random_numbers():
        objective.batch_gradient(ROWS, theta)
        if not objective.batch_statistics:
            objective.row_gradient_norms(ROWS, theta)
    after = objective.gradient(theta)
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert all(torch.equal(value, state[key]) for key, value in objective._module.state_dict().items())
    assert all(p.grad is None for p in objective._like.values())
    objective.batch_gradient(ROWS, theta)
    assert objective._tap is None or not objective._tap.collected  # which would hold a graph


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_depend_on_each_other_through_batch_statistics_only(policy):
    assert not _objective("tanh", policy, ONE_CHUNK)[0].batch_statistics
    assert _objective("batch_norm", policy, ONE_CHUNK)[0].batch_statistics == (policy != "running")


# -- single rows ---------------------------------------------------------------------------------------------------


def _norms_one_by_one(name, theta, rows):
    return torch.stack([gradient(_reference(name, "running", [row]), theta).norm() for row in rows])


@pytest.mark.parametrize(("name", "policy", "chunk_size"), ALONE)
def test_norms_of_single_rows(name, policy, chunk_size):
    objective, theta = _objective(name, policy, chunk_size)
    expected = _norms_one_by_one(name, theta, ROWS)
    torch.testing.assert_close(objective.row_gradient_norms(ROWS, theta), expected, **DOUBLE)
    norms = objective.row_gradient_norms(np.arange(N_ROWS))
    torch.testing.assert_close(norms, _norms_one_by_one(name, objective.theta0, range(N_ROWS)), **DOUBLE)


@pytest.mark.parametrize("name", PROBLEMS)
def test_norms_of_single_rows_in_float32(name):
    objective, theta = _objective(name, "running", FOUR_CHUNKS, torch.float32)
    norms = objective.row_gradient_norms(ROWS, theta)
    torch.testing.assert_close(norms, _norms_one_by_one(name, theta, ROWS), **SINGLE)


def test_blocks_of_rows(monkeypatch):
    objective, theta = _objective("tanh", "running", ONE_CHUNK)
    expected = objective.row_gradient_norms(ROWS, theta)
    monkeypatch.setattr("sklgap.objective._objective._NUMBERS_AT_ONCE", 2 * objective.n_params)
    torch.testing.assert_close(objective.row_gradient_norms(ROWS, theta), expected, **DOUBLE)
    monkeypatch.setattr("sklgap.objective._objective._NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(objective.row_gradient_norms(ROWS, theta), expected, **DOUBLE)


class _Scaled(nn.Module):
    """A parameter without dimensions, one without use, one that is frozen, and a branch that vmap cannot batch."""

    def __init__(self, branch):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Parameter(torch.ones(2))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        self.first.weight.requires_grad_(False)
        self.branch = branch

    def forward(self, X):
        hidden = self.scale * torch.tanh(self.first(X))
        if self.branch and hidden.sum() > 1e9:  # vmap cannot know
            hidden = -hidden
        return self.second(hidden)


@pytest.mark.parametrize("branch", [False, True])
def test_modules_of_every_kind(branch):
    X, y = vectors()
    objective = Objective(seeded_module(lambda: _Scaled(branch)), nn.CrossEntropyLoss(), (X, y))
    expected = torch.stack([objective.batch_gradient([row])[1].norm() for row in ROWS])
    torch.testing.assert_close(objective.row_gradient_norms(ROWS), expected, **DOUBLE)


class _Recurrent(nn.Module):
    """An LSTM, and attention: vmap loops over both, or gives up."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(1, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, X):
        hidden = self.recurrent(X[..., None])[0]
        return self.head(self.attention(hidden, hidden, hidden, need_weights=False)[0][:, -1])


def test_what_vmap_is_slow_at_brings_no_warning():
    X, y = vectors()
    objective = Objective(seeded_module(_Recurrent), nn.CrossEntropyLoss(), (X, y))
    expected = torch.stack([objective.batch_gradient([row])[1].norm() for row in ROWS])
    torch.testing.assert_close(objective.row_gradient_norms(ROWS), expected, **DOUBLE)


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[], [N_ROWS], [-1], [0.5], [True, False], [[0]], 0], ids=str)
def test_rows_that_are_none(rows):
    objective, _ = _objective("tanh", "batch", ONE_CHUNK)
    with pytest.raises(ValueError, match=r"rows must be a sequence of integers from 0 to 22; got"):
        objective.batch_gradient(rows)


@pytest.mark.parametrize("policy", ["batch", "population"])
def test_single_rows_have_no_gradient_under_batch_statistics(policy):
    objective, _ = _objective("batch_norm", policy, ONE_CHUNK)
    with pytest.raises(
        ValueError, match=f"batch_norm must be 'running' for the gradients of single samples; got '{policy}'"
    ):
        objective.row_gradient_norms(ROWS)


def test_a_point_of_another_dimension():
    objective, _ = _objective(next(iter(PLAIN)), "batch", ONE_CHUNK)
    with pytest.raises(ValueError, match="theta must have shape"):
        objective.batch_gradient(ROWS, torch.zeros(3))
