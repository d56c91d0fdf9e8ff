import copy
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklgap.inspection import Sharpness, _maximizers, sharpness
from sklgap.inspection._sharpness import SOLVERS, half_widths, usual_gradients
from sklgap.objective import Objective, Subspace, random_subspace
from tests.cases import DOUBLE, PROBLEMS, WITH_BATCH_NORM, no_global_random_numbers, seeded_module, vectors
from tests.landscapes import box, concave, coupled_convex, indefinite, landscape, linear, separable_convex, vector
from tests.tiny import Mlp, blobs, small

# Several chunks: a value without a gradient adds them up in another order than one with it.
CHUNKED = 1e-12
# SciPy stops at a projected gradient of 1e-5: a maximum inside the box is found to about 1e-9.
LBFGSB = 1e-6
# Two solvers at the same vertex differ by rounding, 1e-16 relative to a loss up to 1e5 times its rise.
TIES = 1e-9
# Local maxima differ in a coordinate or two: over 16 nets another solver's was better by at most 2e-5 of the value.
NEIGHBOURS = 1e-4


def _objective(problem, **kwargs):
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y), **kwargs)


def _quiet(*args, **kwargs):
    """Sharpness without L-BFGS-B's warning that it did not move."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return sharpness(*args, **kwargs)


def _random_net(seed, *, batch_norm, dtype, n_layers=1):
    layers = [nn.Linear(4, 5)]
    for _ in range(n_layers):
        layers += [nn.BatchNorm1d(5)] * batch_norm + [nn.ReLU(), nn.Linear(5, 5)]
    module = seeded_module(lambda: nn.Sequential(*layers, nn.Tanh(), nn.Linear(5, 3)), seed)
    X, y = vectors(17, seed=seed)
    return Objective(module, nn.CrossEntropyLoss(), (X, y), dtype=dtype)


@cache
def _trained_net(seed):
    """A net with batch norm after 200 full-batch steps of Adam on separable classes: a small loss and gradient."""
    X, y = (torch.from_numpy(part) for part in blobs(60, seed=seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(8, 3)).double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X.double()), y).backward()
        optimizer.step()
    return Objective(module, nn.CrossEntropyLoss(), (X, y))


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("build", [linear, separable_convex])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_a_maximum_at_a_vertex(solver, build, epsilon):
    problem, start, maximum = build()
    objective = _objective(problem)
    bounds = box(start, epsilon)
    f0, f_max = objective.value(), maximum(bounds)
    found = sharpness(objective, epsilon=epsilon, solver=solver)
    assert found.f0 == f0
    assert found.f_max == pytest.approx(f_max, rel=1e-10)
    assert found.value == pytest.approx(100 * (f_max - f0) / (1 + f0), rel=1e-7)
    np.testing.assert_allclose(np.abs(found.argmax), bounds, **DOUBLE)
    assert (found.fraction_at_bound, found.solver, found.epsilon) == (1.0, solver, epsilon)
    assert found.step_norm == pytest.approx(float(bounds.norm()))
    assert found.box_ratio == pytest.approx(1)
    assert found.converged


@pytest.mark.parametrize("solver", ["lbfgsb", "lbfgsb-scaled"])
@pytest.mark.parametrize("build", [concave, indefinite])
def test_a_maximum_inside_the_box(solver, build):
    problem, start, maximum = build()
    objective = _objective(problem)
    f0, f_max = objective.value(), maximum(box(start, 0.1))
    found = sharpness(objective, epsilon=0.1, solver=solver, max_iter=50)
    assert found.value == pytest.approx(100 * (f_max - f0) / (1 + f0), rel=LBFGSB)
    assert found.fraction_at_bound == (0.0 if build is concave else 0.5)


@pytest.mark.parametrize("build", [concave, indefinite])
def test_auto_finds_a_maximum_inside_the_box(build):
    problem, start, maximum = build()
    objective = _objective(problem)
    f0, f_max = objective.value(), maximum(box(start, 0.1))
    found = sharpness(objective, epsilon=0.1, random_state=0)
    # See SIGN_STEPS in test_maximizers.
    assert 0.98 * (f_max - f0) <= found.f_max - f0 <= f_max - f0 + 1e-12


def test_a_linear_net_with_squared_error():
    # f(w) = mean((w - t) ** 2) on the identity: separable, n_features terms.
    net = nn.Linear(3, 1, bias=False).double()
    net.weight.data = torch.tensor([[0.5, -2.0, 1.0]], dtype=torch.float64)
    target = torch.tensor([[1.0], [-1.0], [1.0]], dtype=torch.float64)
    distance, bounds = np.array([0.5, 1.0, 0.0]), 0.01 * np.array([1.5, 3.0, 2.0])
    f0, f_max = np.mean(distance**2), np.mean((distance + bounds) ** 2)
    for solver in SOLVERS[1:]:
        # The third partial derivative is zero: these stay in that coordinate, or follow its curvature.
        found = sharpness((net, nn.MSELoss()), torch.eye(3), target, epsilon=0.01, solver=solver)
        assert found.value <= 100 * (f_max - f0) / (1 + f0) * (1 + 1e-12)
        assert found.f_max >= np.mean((distance + bounds * [1, 1, 0]) ** 2) * (1 - 1e-9)
    found = sharpness((net, nn.MSELoss()), torch.eye(3), target, epsilon=0.01, random_state=0, n_restarts=1)
    assert found.value == pytest.approx(100 * (f_max - f0) / (1 + f0), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_auto_with_restarts_equals_the_best_of_all_vertices(seed):
    problem, start, maximum = coupled_convex(seed=seed)
    found = sharpness(_objective(problem), epsilon=0.1, n_restarts=25, random_state=0)
    assert found.f0 == 0
    assert found.value == pytest.approx(100 * maximum(box(start, 0.1)), rel=1e-9)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3])
def test_a_small_box_measures_curvature(epsilon):
    # Fitted exactly, so the gradient is zero; third derivatives move the rise by a fraction of order epsilon.
    module, _, X, _ = PROBLEMS["tanh"]()
    objective = Objective(module, nn.MSELoss(), (X, module(X).detach()))
    subspace = random_subspace(objective.theta0, 1, "orthonormal", 0)
    direction = subspace.basis[0]
    curvature = float(direction @ objective.hvp(direction))
    half_width = epsilon * (abs(float(direction @ objective.theta0)) + 1)
    found = sharpness(objective, epsilon=epsilon, subspace_dim=1, subspace="orthonormal", random_state=0)
    assert found.f0 == 0
    assert found.f_max == pytest.approx(curvature * half_width**2 / 2, rel=10 * epsilon)


# -- what every record promises ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000),
    solver=st.sampled_from(SOLVERS),
    epsilon=st.sampled_from([1e-4, 5e-4, 1e-3, 1e-2, 0.3]),
    dim=st.sampled_from([None, 1, 4]),
    subspace=st.sampled_from(["gaussian", "orthonormal"]),
    batch_norm=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    max_iter=st.integers(1, 12),
)
def test_argmax_lies_in_the_box_and_f_there_is_f_max(seed, solver, epsilon, dim, subspace, batch_norm, dtype, max_iter):
    objective = _random_net(seed, batch_norm=batch_norm, dtype=dtype)
    found = _quiet(
        objective,
        epsilon=epsilon,
        solver=solver,
        subspace_dim=dim,
        subspace=subspace,
        max_iter=max_iter,
        random_state=seed,
    )
    if dim is None:
        space, bounds = objective, epsilon * (objective.theta0.abs() + 1)
    else:
        rng = np.random.RandomState(seed)
        space = objective.restrict(random_subspace(objective.theta0, dim, subspace, rng))
        bounds = epsilon * (space.subspace.pseudo_inverse(objective.theta0).abs() + 1)
    argmax = torch.from_numpy(found.argmax)
    assert argmax.dtype == dtype
    assert bool((argmax.abs() <= bounds).all())
    assert space.value(space.theta0 + argmax) == found.f_max
    assert found.f0 == objective.value() <= found.f_max
    assert found.value == 100 * (found.f_max - found.f0) / (1 + found.f0) >= 0
    at_bound = argmax.abs() >= bounds * (1 - 1e-6)
    assert found.fraction_at_bound == pytest.approx(float(at_bound.double().mean()))
    step = argmax if dim is None else space.subspace.directions(argmax)
    assert found.step_norm == pytest.approx(float(step.norm()))
    assert dim is not None or found.box_ratio <= 1 + 1e-6
    assert (found.n_samples, found.batch_norm, found.subspace_dim, found.solver) == (17, "batch", dim, solver)


@pytest.mark.parametrize("policy", ["batch", "population", "running"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_f_at_argmax_over_several_chunks_and_for_each_policy(policy, solver):
    objective = _objective(PROBLEMS["batch_norm"](), batch_norm=policy, chunk_size=7)
    found = sharpness(objective, epsilon=0.01, solver=solver, max_iter=5, random_state=0)
    value = objective.value(objective.theta0 + torch.from_numpy(found.argmax))
    assert value == pytest.approx(found.f_max, rel=CHUNKED)
    assert found.batch_norm == policy
    assert found.value > 0


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_the_policy_moves_the_metric(name):
    module, criterion, X, y = PROBLEMS[name]()
    values = [
        sharpness((module, criterion), X, y, batch_norm=policy, random_state=0).value for policy in ("batch", "running")
    ]
    assert values[0] != pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("problem", ["tanh", "relu", "batch_norm"])
def test_usual_gradients(problem, solver, dim):
    module, criterion, X, y = PROBLEMS[problem]()
    low, high = usual_gradients(solver, dim is not None)
    for epsilon in (1e-3, 0.1):
        found = sharpness((module, criterion), X, y, epsilon=epsilon, solver=solver, subspace_dim=dim, random_state=0)
        assert low <= found.n_evaluations <= high


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("epsilon", [0.01, [0.001, 0.01]])
def test_n_evaluations_is_the_number_of_evaluations(monkeypatch, solver, dim, epsilon):
    objective = _objective(PROBLEMS["batch_norm"]())
    calls = []
    for name in ("gradient", "evaluate"):
        original = getattr(Objective, name)
        monkeypatch.setattr(Objective, name, lambda *args, f=original: calls.append(1) or f(*args))
    found = sharpness(objective, epsilon=epsilon, subspace_dim=dim, solver=solver, random_state=0)
    assert sum(record.n_evaluations for record in np.atleast_1d(found)) == len(calls)


def test_a_larger_budget_is_used():
    objective = _trained_net(0)
    short, long = (sharpness(objective, max_iter=steps, random_state=0) for steps in (2, 40))
    assert long.value > short.value
    # Vertex steps, a fifth of the budget, end early at a fixed point.
    assert 1 + 32 <= long.n_evaluations <= 1 + 40
    assert short.n_evaluations == 1 + 2


def test_auto_may_go_on_only_where_the_budget_is_not_given(monkeypatch):
    asked = []
    original = _maximizers.best_of_starts
    monkeypatch.setattr(_maximizers, "best_of_starts", lambda *args, **kw: asked.append(kw) or original(*args, **kw))
    objective = _objective(linear()[0])
    for options in ({}, {"max_iter": 20}, {"subspace_dim": 2}):
        sharpness(objective, random_state=0, **options)
    assert [(kw["max_iter"], kw["max_extension"]) for kw in asked] == [(30, 70), (20, 0), (15, 0)]


def test_default_budgets():
    objective = _trained_net(0)
    assert 1 + 24 <= sharpness(objective, random_state=0).n_evaluations <= 1 + 30
    assert 1 + 4 * 12 <= sharpness(objective, subspace_dim=3, random_state=0).n_evaluations <= 1 + 4 * 15
    found = sharpness(objective, n_restarts=2, max_iter=5, random_state=0)
    assert 1 + 3 * 4 <= found.n_evaluations <= 1 + 3 * 5
    # The paper's 10 iterations, and the start.
    assert 1 < sharpness(_trained_net(1), solver="lbfgsb").n_evaluations <= 1 + 2 * 10
    assert sharpness(_trained_net(1), solver="lbfgsb", max_iter=1).n_evaluations <= 1 + 3


def test_a_record_is_frozen_and_prints_without_its_argmax():
    found = sharpness(_objective(linear()[0]), random_state=0)
    assert isinstance(found, Sharpness)
    assert "argmax" not in repr(found)
    assert "value=" in repr(found)
    assert str(found).startswith(f"sharpness {found.value:.4g} % (epsilon 0.001, full space")
    with pytest.raises(AttributeError):
        found.value = 0


# -- solvers against each other ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epsilon", [5e-4, 1e-3])
def test_auto_is_at_least_as_good_as_every_other_solver(seed, epsilon):
    objective = _trained_net(seed)
    values = {s: _quiet(objective, epsilon=epsilon, solver=s, random_state=0).value for s in SOLVERS}
    assert values["auto"] >= max(values.values()) * (1 - NEIGHBOURS) > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epsilon", [5e-4, 1e-3])
def test_auto_within_the_budget_of_the_paper(seed, epsilon):
    objective = _trained_net(seed)
    paper = _quiet(objective, epsilon=epsilon, solver="lbfgsb")
    # One gradient, of the start, belongs to every solver.
    auto = sharpness(objective, epsilon=epsilon, max_iter=max(1, paper.n_evaluations - 1), random_state=0)
    assert auto.n_evaluations <= max(2, paper.n_evaluations)
    assert auto.value >= paper.value * (1 - TIES)


@pytest.mark.parametrize("dim", [None, 3])
def test_auto_rises_from_a_zero_gradient(dim):
    module, _, X, _ = PROBLEMS["tanh"]()
    found = sharpness((module, nn.MSELoss()), X, module(X).detach(), subspace_dim=dim, random_state=0)
    assert found.f0 == 0
    assert found.value > 0


@pytest.mark.parametrize("solver", ["lbfgsb", "lbfgsb-scaled"])
def test_lbfgsb_says_that_it_stopped_at_its_start(solver):
    module, _, X, _ = PROBLEMS["tanh"]()
    with pytest.warns(ConvergenceWarning, match=r"stopped at its start at epsilon=0\.001") as caught:
        found = sharpness((module, nn.MSELoss()), X, module(X).detach(), solver=solver)
    assert caught[0].filename == __file__
    assert found.value == 0
    assert found.status.startswith("stopped at its start")
    assert not found.converged
    np.testing.assert_array_equal(found.argmax, 0)


def test_the_warning_does_not_advise_the_solver_that_stopped():
    module, _, X, _ = PROBLEMS["tanh"]()
    with pytest.warns(ConvergenceWarning, match="use solver='auto'") as caught:
        sharpness((module, nn.MSELoss()), X, module(X).detach(), solver="lbfgsb-scaled")
    assert "lbfgsb-scaled" not in str(caught[0].message)


def test_power_at_a_zero_gradient_does_not_claim_to_have_converged():
    # The centre is a fixed point of the iteration, and a minimum of f: 0 would be no measurement.
    module, _, X, _ = PROBLEMS["tanh"]()
    found = _quiet((module, nn.MSELoss()), X, module(X).detach(), solver="power")
    assert found.value > 0 or not found.converged


def test_scaling_moves_lbfgsb_on_a_flat_function():
    slope = 1e-6 * vector(4, 0)
    problem = landscape(lambda theta: slope @ theta, torch.zeros(4))
    with pytest.warns(ConvergenceWarning):
        assert sharpness(_objective(problem), epsilon=0.1, solver="lbfgsb").value == 0
    expected = 100 * 0.1 * float(slope.abs().sum())
    assert sharpness(_objective(problem), epsilon=0.1, solver="lbfgsb-scaled").value == pytest.approx(expected)


# -- subspaces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["tanh", "batch_norm"])
def test_the_identity_as_a_subspace_is_the_full_space(name, solver):
    objective = _objective(PROBLEMS[name]())
    identity = Subspace(objective.theta0, torch.eye(objective.n_params, dtype=torch.float64))
    options = {"epsilon": 0.01, "solver": solver, "max_iter": 6, "n_restarts": 1, "random_state": 0}
    full, restricted = sharpness(objective, **options), sharpness(objective.restrict(identity), **options)
    assert restricted.value == pytest.approx(full.value, rel=1e-9)
    np.testing.assert_allclose(restricted.argmax, full.argmax, rtol=1e-6, atol=1e-9)
    assert (full.subspace_dim, restricted.subspace_dim) == (None, objective.n_params)
    assert restricted.box_ratio == pytest.approx(full.box_ratio)


@pytest.mark.parametrize("kind", ["gaussian", "orthonormal"])
def test_the_box_of_a_subspace_by_numpys_pseudo_inverse(kind):
    objective = _objective(PROBLEMS["tanh"]())
    restricted = objective.restrict(random_subspace(objective.theta0, 5, kind, 0))
    A = restricted.subspace.basis.numpy().T
    expected = 0.01 * (np.abs(np.linalg.pinv(A) @ objective.theta0.numpy()) + 1)
    np.testing.assert_allclose(half_widths(restricted, 0.01), expected, **DOUBLE)
    # A linear function's maximum shows that this is the box used: the vertex of A^T c.
    problem, start, _ = linear(n=40)
    slope = _objective(problem).gradient()[1].numpy()
    restricted = _objective(problem).restrict(random_subspace(start, 5, kind, 0))
    A = restricted.subspace.basis.numpy().T
    bounds = 0.01 * (np.abs(np.linalg.pinv(A) @ start.numpy()) + 1)
    found = sharpness(_objective(problem), epsilon=0.01, subspace_dim=5, subspace=kind, random_state=0)
    assert found.f_max == pytest.approx(found.f0 + np.abs(A.T @ slope) @ bounds, rel=1e-10)
    step = A @ found.argmax
    assert found.step_norm == pytest.approx(np.linalg.norm(step))
    assert found.box_ratio == pytest.approx((np.abs(step) / (0.01 * (np.abs(start.numpy()) + 1))).max())


def test_gaussian_and_orthonormal_directions_are_different_measurements():
    objective = _trained_net(0)
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
    objective = _objective(PROBLEMS["batch_norm"]())
    epsilons = [0.01, 0.001, 0.01, 0.1]
    found = sharpness(objective, epsilon=epsilons, solver=solver, subspace_dim=dim, random_state=0)
    assert [record.epsilon for record in found] == epsilons
    for record in found:
        alone = sharpness(objective, epsilon=record.epsilon, solver=solver, subspace_dim=dim, random_state=0)
        assert record.value == alone.value
        np.testing.assert_array_equal(record.argmax, alone.argmax)


def test_epsilon_as_a_sequence_or_a_number():
    objective = _objective(linear()[0])
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
    objective = _random_net(seed, batch_norm=True, dtype=torch.float64)
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
    small_box, large_box = sharpness(_objective(problem), epsilon=[0.1, 10.0], max_iter=1, random_state=0)
    assert large_box.f_max == small_box.f_max > 0
    assert "smaller box" in large_box.status
    np.testing.assert_array_equal(large_box.argmax, small_box.argmax)


# -- random numbers ----------------------------------------------------------------------------------------------------

DRAWS = {
    "A": {"subspace_dim": 3},
    "restarts": {"n_restarts": 2, "max_iter": 2},
    "rows": {"max_samples": 11},
    "all": {"subspace_dim": 2, "max_samples": 0.5, "n_restarts": 1},
}


@pytest.mark.parametrize("draws", DRAWS)
def test_repeatable_and_independent_of_global_random_numbers(draws):
    module, criterion, X, y = PROBLEMS["batch_norm"]()

    def measure(random_state):
        return sharpness((module, criterion), X, y, epsilon=0.05, random_state=random_state, **DRAWS[draws])

    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = measure(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        again = measure(0)
    from_stream = measure(np.random.RandomState(0))
    other = measure(1)
    for record in (again, from_stream):
        assert record.value == first.value
        np.testing.assert_array_equal(record.argmax, first.argmax)
    if draws != "restarts":  # another start may find the same maximum
        assert other.value != first.value


def test_no_random_state_leaves_the_global_generators_alone():
    objective = _objective(PROBLEMS["batch_norm"]())
    with no_global_random_numbers():
        values = [sharpness(objective, epsilon=0.05, subspace_dim=2, max_iter=2).value for _ in range(2)]
    assert values[0] != values[1]


def test_max_samples_draws_the_same_rows_for_the_same_seed():
    _, criterion, X, y = PROBLEMS["tanh"]()
    module = PROBLEMS["tanh"]()[0]
    seen = [sharpness((module, criterion), X, y, max_samples=9, random_state=seed, max_iter=1) for seed in (0, 0, 1)]
    assert [record.n_samples for record in seen] == [9, 9, 9]
    assert seen[0].f0 == seen[1].f0 != seen[2].f0
    rows = np.sort(np.random.RandomState(0).choice(len(y), 9, replace=False))
    assert seen[0].f0 == pytest.approx(criterion(module(X[rows]), y[rows]).item(), rel=1e-12)
    assert sharpness((module, criterion), X, y, max_samples=0.5).n_samples == round(0.5 * len(y))
    assert sharpness((module, criterion), X, y, max_samples=10**6).n_samples == len(y)


# -- what can be measured ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs(40)
    return small().fit(X, y), X, y


def _options(**kwargs):
    return {"epsilon": 0.01, "max_iter": 4, "random_state": 0, **kwargs}


def test_every_kind_of_input_gives_the_same_value(fitted):
    model, X, y = fitted
    encoded = torch.from_numpy(y)
    expected = sharpness(model, X, y, **_options())
    pair = (model.module_, nn.CrossEntropyLoss())
    for estimator in (model.net_, pair):
        found = sharpness(estimator, X, y, **_options())
        assert found.value == expected.value
        np.testing.assert_array_equal(found.argmax, expected.argmax)
    assert sharpness(Objective(*pair, (X, encoded)), **_options()).value == expected.value
    assert sharpness(model, X.tolist(), y.tolist(), **_options()).value == expected.value
    assert sharpness(model, torch.from_numpy(X), encoded, **_options()).value == expected.value


def test_a_pipeline_and_a_search_measure_what_their_classifier_sees(fitted):
    _, X, y = fitted
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, y)
    scaled = pipeline[0].transform(X)
    expected = sharpness(pipeline[-1], scaled, y, **_options()).value
    assert sharpness(pipeline, X, y, **_options()).value == expected
    search = GridSearchCV(pipeline, {"lbgapclassifier__lr": [0.01]}, cv=2).fit(X, y)
    assert sharpness(search, X, y, **_options()).value == expected


def test_a_skorch_net_that_is_not_ours(fitted):
    _, X, y = fitted
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0)
        net.fit(X, y)
    expected = sharpness((net.module_, nn.CrossEntropyLoss()), X, y, **_options())
    found = sharpness(net, X, y, **_options())
    assert found.value == pytest.approx(expected.value, rel=1e-6)


def test_labels_that_are_strings(fitted):
    model, X, y = fitted
    names = np.array(["no", "perhaps", "yes"])
    named = small().fit(X, names[y])
    assert sharpness(named, X, names[y], **_options()).value == sharpness(model, X, y, **_options()).value


def test_measuring_leaves_the_model_as_it_was(fitted):
    model = copy.deepcopy(fitted[0])
    _, X, y = fitted
    module = model.module_
    module.train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    history, params, copies = list(model.history_), repr(model.get_params()), (X.copy(), y.copy())
    with no_global_random_numbers():
        for solver in SOLVERS:
            for policy in ("batch", "population", "running"):
                _quiet(model, X, y, solver=solver, batch_norm=policy, chunk_size=20, **_options(subspace_dim=2))
        sharpness(model, X, y, **_options())
    assert module.training
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in module.parameters())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert (list(model.history_), repr(model.get_params())) == (history, params)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(y, copies[1])


# -- bad input ---------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD_VALUES = {
    "solver": ({"solver": "lbfgs"}, "solver must be one of 'auto', 'lbfgsb', 'lbfgsb-scaled', 'power'; got 'lbfgs'"),
    "no solver": ({"solver": None}, "solver must be one of .*; got None"),
    "subspace": ({"subspace": "normal"}, "subspace must be 'gaussian' or 'orthonormal'; got 'normal'"),
    "subspace with dim": (
        {"subspace": "normal", "subspace_dim": 2},
        "subspace must be 'gaussian' or 'orthonormal'; got 'normal'",
    ),
    "dim 0": ({"subspace_dim": 0}, "subspace_dim must be an integer between 1 and the 6 parameters; got 0"),
    "dim 7": ({"subspace_dim": 7}, "subspace_dim must be an integer between 1 and the 6 parameters; got 7"),
    "dim True": ({"subspace_dim": True}, "subspace_dim must be an integer .*; got True"),
    "dim float": ({"subspace_dim": 2.0}, "subspace_dim must be an integer .*; got 2.0"),
    "max_iter 0": ({"max_iter": 0}, "max_iter must be None or an integer of at least 1; got 0"),
    "max_iter float": ({"max_iter": 2.5}, "max_iter must be None or an integer of at least 1; got 2.5"),
    "max_iter True": ({"max_iter": True}, "max_iter must be None or an integer of at least 1; got True"),
    "n_restarts": ({"n_restarts": -1}, "n_restarts must be None or an integer of at least 0; got -1"),
    **{
        f"epsilon {value}": ({"epsilon": value}, "epsilon must be a number above 0, or a sequence of such; got ")
        for value in (0, -1e-3, NAN, float("inf"), True, "0.1", None, [1e-3, 0], [True], [[1e-3]])
    },
    "no epsilon": ({"epsilon": []}, "epsilon must be .*; got an empty sequence"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(case):
    kwargs, sentence = BAD_VALUES[case]
    with pytest.raises(ValueError, match=sentence):
        sharpness(_objective(linear()[0]), **kwargs)


@pytest.mark.parametrize(("max_samples", "got"), [(0, "0"), (-3, "-3"), (1.5, "1.5"), (0.0, "0.0"), (True, "True")])
def test_bad_max_samples(max_samples, got):
    module, criterion, X, y = PROBLEMS["tanh"]()
    with pytest.raises(ValueError, match=f"max_samples must be None, an integer .*; got {got}"):
        sharpness((module, criterion), X, y, max_samples=max_samples)


def test_a_subspace_of_a_subspace():
    objective = _objective(linear()[0])
    restricted = objective.restrict(random_subspace(objective.theta0, 2, random_state=0))
    with pytest.raises(ValueError, match="subspace_dim must be None for an Objective that is restricted"):
        sharpness(restricted, subspace_dim=2)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_loss_that_is_not_finite(value):
    problem = landscape(lambda theta: theta.sum() * 0 + value, torch.zeros(2))
    with pytest.raises(ValueError, match=f"loss must be finite at the point measured; got {value}"):
        sharpness(_objective(problem))


def _constant(value):
    return _objective(landscape(lambda theta: theta.sum().square() + value, torch.ones(2)))


def test_a_negative_loss_is_told():
    """NLLLoss on probabilities is one: 1 + f0 then shrinks as the fit gets better."""
    with pytest.warns(UserWarning, match=r"loss is negative at the point measured \(-0.5\), .* log-probabilities"):
        assert sharpness(_constant(-4.5)).value > 0


@pytest.mark.parametrize("value", [-5.0, -6.0])
def test_a_loss_that_the_metric_cannot_divide_by(value):
    with pytest.raises(ValueError, match=f"loss must be above -1 at the point measured: .*; got {value + 4}"):
        sharpness(_constant(value))


def test_labels_never_seen(fitted):
    model, X, y = fitted
    with pytest.raises(ValueError, match="y must have the labels seen in fit"):
        sharpness(model, X, y + 7)


def test_unfitted():
    X, y = blobs()
    for estimator in (small(), make_pipeline(StandardScaler(), small()), GridSearchCV(small(), {"lr": [0.1]})):
        with pytest.raises(NotFittedError):
            sharpness(estimator, X, y)
    with pytest.raises(TypeError, match="estimator must be an LBGapClassifier"):
        sharpness(StandardScaler(), X, y)


def test_data_and_an_objective(fitted):
    model, X, y = fitted
    objective = _objective(linear()[0])
    with pytest.raises(TypeError, match="carries its own data"):
        sharpness(objective, X, y)
    with pytest.raises(TypeError, match="X and y must be given"):
        sharpness(model)


@pytest.mark.parametrize("kwargs", [{"batch_norm": "running"}, {"n_restart": 3}])
def test_an_argument_that_would_have_no_effect(kwargs):
    # An Objective has its policy already; a misspelt name must not vanish.
    with pytest.raises(TypeError, match=next(iter(kwargs))):
        sharpness(_objective(linear()[0]), **kwargs)


def test_a_misspelt_argument_beside_an_estimator(fitted):
    model, X, y = fitted
    with pytest.raises(TypeError, match="n_restart"):
        sharpness(model, X, y, n_restart=3)
