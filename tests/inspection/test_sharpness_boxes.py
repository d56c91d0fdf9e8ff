"""`sharpness` in subspaces and in several boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklgap.inspection import Sharpness, sharpness
from sklgap.inspection._sharpness import SOLVERS, half_widths
from sklgap.objective import Subspace, random_subspace
from tests.cases import DOUBLE, PROBLEMS
from tests.inspection.sharp_nets import objective_of, random_net, trained_net
from tests.landscapes import landscape, linear

# -- subspaces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["tanh", "batch_norm"])
def test_the_identity_as_a_subspace_is_the_full_space(name, solver):
    objective = objective_of(PROBLEMS[name]())
    identity = Subspace(objective.theta0, torch.eye(objective.n_params, dtype=torch.float64))
    options = {"epsilon": 0.01, "solver": solver, "max_iter": 6, "n_restarts": 1, "random_state": 0}
    full, restricted = sharpness(objective, **options), sharpness(objective.restrict(identity), **options)
    assert restricted.value == pytest.approx(full.value, rel=1e-9)
    np.testing.assert_allclose(restricted.argmax, full.argmax, rtol=1e-6, atol=1e-9)
    assert (full.subspace_dim, restricted.subspace_dim) == (None, objective.n_params)
    assert restricted.box_ratio == pytest.approx(full.box_ratio)


@pytest.mark.parametrize("kind", ["gaussian", "orthonormal"])
def test_the_box_of_a_subspace_by_numpys_pseudo_inverse(kind):
    objective = objective_of(PROBLEMS["tanh"]())
    restricted = objective.restrict(random_subspace(objective.theta0, 5, kind, 0))
    A = restricted.subspace.basis.numpy().T
    expected = 0.01 * (np.abs(np.linalg.pinv(A) @ objective.theta0.numpy()) + 1)
    np.testing.assert_allclose(half_widths(restricted, 0.01), expected, **DOUBLE)
    # A linear function's maximum shows that this is the box used: the vertex of A^T c.
    problem, start, _ = linear(n=40)
    slope = objective_of(problem).gradient()[1].numpy()
    restricted = objective_of(problem).restrict(random_subspace(start, 5, kind, 0))
    A = restricted.subspace.basis.numpy().T
    bounds = 0.01 * (np.abs(np.linalg.pinv(A) @ start.numpy()) + 1)
    found = sharpness(objective_of(problem), epsilon=0.01, subspace_dim=5, subspace=kind, random_state=0)
    assert found.f_max == pytest.approx(found.f0 + np.abs(A.T @ slope) @ bounds, rel=1e-10)
    step = A @ found.argmax
    assert found.step_norm == pytest.approx(np.linalg.norm(step))
    assert found.box_ratio == pytest.approx((np.abs(step) / (0.01 * (np.abs(start.numpy()) + 1))).max())


def test_gaussian_and_orthonormal_directions_are_different_measurements():
    objective = trained_net(0)
    gaussian, orthonormal = (
        sharpness(objective, subspace_dim=4, subspace=kind, random_state=0) for kind in ("gaussian", "orthonormal")
    )
    # n_params = 171: a Gaussian direction is some 13 times as long as a unit vector, and the loss is convex along it.
    assert gaussian.value > 3 * orthonormal.value > 0
    assert gaussian.step_norm > 3 * orthonormal.step_norm


# -- several epsilons --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS[1:])
@pytest.mark.parametrize("dim", [None, 3])
def test_several_epsilons_are_each_as_alone(solver, dim):
    objective = objective_of(PROBLEMS["batch_norm"]())
    epsilons = [0.01, 0.001, 0.01, 0.1]
    found = sharpness(objective, epsilon=epsilons, solver=solver, subspace_dim=dim, random_state=0)
    assert [record.epsilon for record in found] == epsilons
    for record in found:
        alone = sharpness(objective, epsilon=record.epsilon, solver=solver, subspace_dim=dim, random_state=0)
        assert record.value == alone.value
        np.testing.assert_array_equal(record.argmax, alone.argmax)


def test_epsilon_as_a_sequence_or_a_number():
    objective = objective_of(linear()[0])
    assert isinstance(sharpness(objective, epsilon=0.01), Sharpness)
    for sequence in ([0.01], (0.01,), np.array([0.01])):
        found = sharpness(objective, epsilon=sequence)
        assert [record.epsilon for record in found] == [0.01]
    assert sharpness(objective, epsilon=np.float32(0.5)).epsilon == 0.5
    assert sharpness(objective, epsilon=1).epsilon == 1.0


@given(
    seed=st.integers(0, 1000),
    epsilons=st.lists(st.floats(1e-5, 1.0), min_size=2, max_size=4),
    dim=st.sampled_from([None, 2]),
    max_iter=st.integers(1, 4),
)
@settings(max_examples=40)
def test_auto_never_decreases_with_epsilon(seed, epsilons, dim, max_iter):
    objective = random_net(seed, batch_norm=True, dtype=torch.float64)
    found = sharpness(objective, epsilon=epsilons, subspace_dim=dim, max_iter=max_iter, random_state=seed)
    assert [record.epsilon for record in found] == epsilons
    by_epsilon = sorted(found, key=lambda record: record.epsilon)
    values = [record.value for record in by_epsilon]
    assert values == sorted(values)
    for record in found:
        assert bool(np.isfinite(record.argmax).all())


def test_the_point_of_the_smaller_box_is_kept_where_it_is_better():
    # Every larger box reaches a deep valley where the gradient leads.
    start = torch.zeros(1, dtype=torch.float64)
    problem = landscape(lambda t: torch.where(t.abs() <= 0.1, t.abs() + t, t.square() * 0).sum(), start)
    small_box, large_box = sharpness(objective_of(problem), epsilon=[0.1, 10.0], max_iter=1, random_state=0)
    assert large_box.f_max == small_box.f_max > 0
    assert "smaller box" in large_box.status
    np.testing.assert_array_equal(large_box.argmax, small_box.argmax)
