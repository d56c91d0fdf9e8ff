import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap.inspection import Sharpness, sharpness
from sklgap.inspection._sharpness import SOLVERS, usual_gradients
from sklgap.objective import Objective, random_subspace
from tests.cases import DOUBLE, PROBLEMS, WITH_BATCH_NORM, no_global_random_numbers
from tests.inspection.sharp_nets import objective_of, quiet_sharpness, random_net, trained_net
from tests.landscapes import box, concave, coupled_convex, indefinite, linear, separable_convex

# Several chunks: a value without a gradient adds them up in another order than one with it.
CHUNKED = 1e-12
# SciPy stops at a projected gradient of 1e-5: a maximum inside the box is found to about 1e-9.
LBFGSB = 1e-6


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("build", [linear, separable_convex])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_a_maximum_at_a_vertex(solver, build, epsilon):
    problem, start, maximum = build()
    objective = objective_of(problem)
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
    objective = objective_of(problem)
    f0, f_max = objective.value(), maximum(box(start, 0.1))
    found = sharpness(objective, epsilon=0.1, solver=solver, max_iter=50)
    assert found.value == pytest.approx(100 * (f_max - f0) / (1 + f0), rel=LBFGSB)
    assert found.fraction_at_bound == (0.0 if build is concave else 0.5)


@pytest.mark.parametrize("build", [concave, indefinite])
def test_auto_finds_a_maximum_inside_the_box(build):
    problem, start, maximum = build()
    objective = objective_of(problem)
    f0, f_max = objective.value(), maximum(box(start, 0.1))
    found = sharpness(objective, epsilon=0.1, random_state=0)
    assert found.f_max - f0 == pytest.approx(f_max - f0, rel=LBFGSB)


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
    found = sharpness(objective_of(problem), epsilon=0.1, n_restarts=25, random_state=0)
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
    objective = random_net(seed, batch_norm=batch_norm, dtype=dtype)
    found = quiet_sharpness(
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
    objective = objective_of(PROBLEMS["batch_norm"](), batch_norm=policy, chunk_size=7)
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
    low, high = usual_gradients(solver, dim)
    for epsilon in (1e-3, 0.1):
        found = sharpness((module, criterion), X, y, epsilon=epsilon, solver=solver, subspace_dim=dim, random_state=0)
        assert low <= found.n_evaluations <= high


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("epsilon", [0.01, [0.001, 0.01]])
def test_n_evaluations_is_the_number_of_evaluations(monkeypatch, solver, dim, epsilon):
    objective = objective_of(PROBLEMS["batch_norm"]())
    calls = []
    for name in ("gradient", "evaluate"):
        original = getattr(Objective, name)
        monkeypatch.setattr(Objective, name, lambda *args, f=original: calls.append(1) or f(*args))
    found = sharpness(objective, epsilon=epsilon, subspace_dim=dim, solver=solver, random_state=0)
    assert sum(record.n_evaluations for record in np.atleast_1d(found)) == len(calls)


def test_a_larger_budget_is_used():
    objective = trained_net(0)
    short, long = (sharpness(objective, max_iter=steps, random_state=0) for steps in (2, 40))
    assert long.value > short.value
    assert 1 + 20 <= long.n_evaluations <= 1 + 40
    assert short.n_evaluations == 1 + 2


def test_default_budgets():
    objective = trained_net(0)
    assert 1 + 20 <= sharpness(objective, random_state=0).n_evaluations <= 1 + 64 + 24
    assert 1 + 40 <= sharpness(objective, subspace_dim=3, random_state=0).n_evaluations <= 1 + 600
    assert sharpness(objective, n_restarts=2, max_iter=5, random_state=0).n_evaluations == 1 + 5
    assert sharpness(objective, subspace_dim=3, max_iter=30, random_state=0).n_evaluations == 1 + 30
    # The paper's 10 iterations, and the start.
    assert 1 < sharpness(trained_net(1), solver="lbfgsb").n_evaluations <= 1 + 2 * 10
    assert sharpness(trained_net(1), solver="lbfgsb", max_iter=1).n_evaluations <= 1 + 3


def test_the_spread_says_how_far_the_starts_agree():
    easy = sharpness(objective_of(linear()[0]), epsilon=0.1, random_state=0)
    assert easy.spread == pytest.approx(0, abs=1e-9)
    net = sharpness(trained_net(0), random_state=0)
    assert 0 <= net.spread <= 1
    assert f"{100 * net.spread:.2g} % apart" in net.status
    assert np.isnan(sharpness(trained_net(0), solver="power").spread)
    assert np.isnan(sharpness(trained_net(0), max_iter=5, random_state=0).spread)  # one start


@pytest.mark.parametrize("dead", ["bias", "weights", "saturated"])
@pytest.mark.parametrize("dim", [None, 3])
def test_a_dead_or_saturated_net_says_so(dead, dim):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False), nn.Sigmoid())
    with torch.no_grad():
        net[0].bias.fill_(-100 if dead != "saturated" else 100)
        if dead == "weights":
            net[0].weight.fill_(-1)
        if dead == "saturated":
            net[2].weight.fill_(100)  # sigmoid(40,000): its slope is 0 in float32
    X, y = torch.rand(5, 3), torch.zeros(5, 2)
    with pytest.warns(ConvergenceWarning, match=r"gradient is zero at all \d+ points tried .*dead or saturated"):
        found = sharpness((net, nn.MSELoss()), X, y, subspace_dim=dim, subspace="orthonormal", random_state=0)
    assert found.value == 0
    assert found.status.startswith("flat")
    assert not found.converged


def test_a_record_is_frozen_and_prints_without_its_argmax():
    found = sharpness(objective_of(linear()[0]), random_state=0)
    assert isinstance(found, Sharpness)
    assert "argmax" not in repr(found)
    assert "value=" in repr(found)
    rise = f"in the box, the loss rises from {found.f0:.4g} to at least {found.f_max:.4g} (full space"
    assert str(found).startswith(f"sharpness {found.value:.4g} % at epsilon 0.001: {rise}")
    with pytest.raises(AttributeError):
        found.value = 0


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
    objective = objective_of(PROBLEMS["batch_norm"]())
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
