import numpy as np
import pytest
import torch

from sklgap.inspection import _maximizers
from sklgap.inspection._best_of_starts import best_of_starts
from sklgap.inspection._maximizers import BudgetSpent, Points
from sklgap.objective import Objective
from tests.cases import BIT_FOR_BIT, DOUBLE, no_global_random_numbers
from tests.landscapes import (
    box,
    concave,
    coupled_convex,
    indefinite,
    landscape,
    linear,
    separable_convex,
    vector,
)


def _objective(problem):
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y))


def _start(bounds):
    return torch.zeros_like(bounds)


def _by_gradient(objective, bounds):
    return bounds * objective.gradient()[1].sign()


def _best_of_starts(objective, bounds, **options):
    return best_of_starts(
        objective, bounds, *objective.gradient(), generator=torch.Generator().manual_seed(0), **options
    )


SOLVERS = {
    "vertex ascent": lambda f, b: _maximizers.vertex_ascent(f, b, _by_gradient(f, b), 30),
    "lbfgsb": lambda f, b: _maximizers.lbfgsb(f, b, 50),
    "lbfgsb, scaled": lambda f, b: _maximizers.lbfgsb(f, b, 50, scale=0.1),
    "best of starts": _best_of_starts,
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("build", [linear, separable_convex])
@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_at_a_vertex(solver, build, seed):
    problem, start, maximum = build(seed=seed)
    bounds = box(start, 0.1)
    found = SOLVERS[solver](_objective(problem), bounds)
    assert found.f_max == pytest.approx(maximum(bounds), rel=1e-10)
    torch.testing.assert_close(found.argmax.abs(), bounds, **DOUBLE)
    assert found.converged


@pytest.mark.parametrize("solver", ["lbfgsb", "lbfgsb, scaled", "best of starts"])
@pytest.mark.parametrize("build", [concave, indefinite])
def test_a_maximum_inside_the_box(solver, build):
    problem, start, maximum = build()
    bounds = box(start, 0.1)
    found = SOLVERS[solver](_objective(problem), bounds)
    # SciPy stops at a projected gradient of 1e-5, here a distance of 1e-5 from the maximum and 1e-9 below it.
    assert found.f_max == pytest.approx(maximum(bounds), rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_exceeds_the_maximum_over_all_vertices(solver, seed):
    problem, start, maximum = coupled_convex(seed=seed, at_minimum=False)
    objective, bounds = _objective(problem), box(start, 0.1)
    found = SOLVERS[solver](objective, bounds)
    assert objective.value() < found.f_max <= maximum(bounds) * (1 + 1e-12)


def test_vertex_ascent_is_monotone_for_convex_functions():
    problem, start, _ = coupled_convex(at_minimum=False)
    objective, bounds = _objective(problem), box(start, 0.1)
    for seed in range(5):
        first = _maximizers.random_vertex(bounds, torch.Generator().manual_seed(seed))
        values = [_maximizers.vertex_ascent(objective, bounds, first, steps).f_max for steps in range(1, 12)]
        assert values == sorted(values)
        assert values[-1] > values[0]


def test_vertex_ascent_ends_at_a_fixed_point():
    problem, start, _ = linear()
    found = _maximizers.vertex_ascent(_objective(problem), box(start, 0.1), _start(start), 30)
    assert (found.status, found.converged, found.n_evaluations) == ("fixed point", True, 2)
    short = _maximizers.vertex_ascent(_objective(problem), box(start, 0.1), _start(start), 1)
    assert (short.converged, short.n_evaluations) == (False, 1)
    assert short.status == "stopped after 1 gradients"


def test_vertex_ascent_ends_where_a_step_does_not_raise_f():
    # Concave: from the centre the gradient's vertex lies beyond the maximum, and lower than it.
    problem = landscape(lambda theta: -((theta - 0.2) ** 2).sum(), torch.zeros(3, dtype=torch.float64))
    bounds = torch.ones(3, dtype=torch.float64)
    found = _maximizers.vertex_ascent(_objective(problem), bounds, _start(bounds), 30)
    assert found.f_max == pytest.approx(-3 * 0.2**2)
    assert (found.n_evaluations, found.converged) == (2, False)
    assert "did not increase f" in found.status


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_are_counted(solver, monkeypatch):
    problem, start, _ = indefinite()
    objective, bounds = _objective(problem), box(start, 0.1)
    calls = _count_gradients(monkeypatch)
    found = SOLVERS[solver](objective, bounds)
    assert found.n_evaluations == len(calls) - (0 if solver.startswith("lbfgsb") else 1)  # the start's gradient


def _count_gradients(monkeypatch):
    calls = []
    original = Objective.gradient
    monkeypatch.setattr(Objective, "gradient", lambda *args: calls.append(1) or original(*args))
    return calls


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_point_found_is_in_the_box_and_has_the_value_found(solver):
    problem, start, _ = indefinite()
    objective, bounds = _objective(problem), box(start, 0.3)
    found = SOLVERS[solver](objective, bounds)
    assert bool((found.argmax.abs() <= bounds).all())
    assert objective.value(objective.theta0 + found.argmax) == found.f_max


@pytest.mark.parametrize("solver", SOLVERS)
def test_values_that_are_not_finite_are_never_the_maximum(solver):
    # Overflows in one corner of the box; the gradient leads there.
    start = torch.tensor([1.0, 1.0], dtype=torch.float64)
    bounds = box(start, 0.1)
    wall = landscape(lambda theta: theta[1] + torch.where(theta[0] > 1.15, torch.inf, theta[0]), start)
    objective = _objective(wall)
    with np.errstate(all="ignore"):
        found = SOLVERS[solver](objective, bounds)
    assert found.f_max < np.inf
    assert bool((found.argmax.abs() <= bounds).all())
    if np.isfinite(found.f_max):
        assert objective.value(start + found.argmax) == found.f_max
    else:
        assert not found.converged


def test_lbfgsb_stops_at_the_start_of_a_flat_function_unless_scaled():
    # Its tolerance on the projected gradient is 1e-5, absolute.
    slope = 1e-6 * vector(4, 0)
    problem = landscape(lambda theta: slope @ theta, torch.zeros(4))
    objective, bounds = _objective(problem), box(torch.zeros(4, dtype=torch.float64), 0.1)
    stopped = _maximizers.lbfgsb(objective, bounds, 10)
    assert stopped.status.startswith("stopped at its start: ")
    assert not stopped.converged
    assert stopped.f_max == objective.value()
    scaled = _maximizers.lbfgsb(objective, bounds, 10, scale=1e6)
    assert scaled.f_max == pytest.approx(float(slope.abs() @ bounds), rel=1e-10)
    assert scaled.converged


def test_lbfgsb_is_scipys_with_its_defaults():
    from scipy.optimize import minimize

    problem, start, _ = indefinite()
    objective, bounds = _objective(problem), box(start, 0.3)

    def negative(offset):
        value, gradient = objective.gradient(objective.theta0 + torch.from_numpy(offset))
        return -value, -gradient.numpy()

    limits = [(-b, b) for b in bounds.tolist()]
    for max_iter in (1, 3, 10):
        result = minimize(
            negative, np.zeros(len(start)), jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": max_iter}
        )
        found = _maximizers.lbfgsb(objective, bounds, max_iter)
        assert found.f_max >= -result.fun - 1e-12
        assert (found.n_evaluations, found.status) == (result.nfev, result.message)


def test_random_vertices():
    bounds = box(vector(1000, 0), 0.1)
    with no_global_random_numbers():
        first, again, other = (
            _maximizers.random_vertex(bounds, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
        )
    torch.testing.assert_close(first.abs(), bounds, **BIT_FOR_BIT)
    torch.testing.assert_close(first, again, **BIT_FOR_BIT)
    assert not torch.equal(first, other)
    # 1,000 fair coins: five standard errors.
    assert abs((first > 0).double().mean() - 0.5) < 5 * 0.5 / 1000**0.5


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_remember_the_best_and_stop_at_the_budget():
    problem, start, _ = linear()
    objective, bounds = _objective(problem), box(start, 0.1)
    points = Points(objective, bounds, budget=3)
    up = _by_gradient(objective, bounds)
    values = [points.evaluate(share * up)[0] for share in (0.5, 1.0, -1.0)]
    assert values[2] < values[0] < values[1] == points.f_max
    torch.testing.assert_close(points.argmax, up, **BIT_FOR_BIT)
    with pytest.raises(BudgetSpent):
        points.evaluate(up)
    assert points.n_evaluations == 3
    assert not points.flat


def test_slopes_that_are_not_finite_lead_nowhere():
    start = torch.ones(3, dtype=torch.float64)
    cliff = landscape(lambda theta: theta[1] + torch.where(theta[0] > 1.5, torch.inf, 1.0) * theta[0], start)
    points = Points(_objective(cliff), torch.ones(3, dtype=torch.float64))
    value, slope = points.evaluate(torch.ones(3, dtype=torch.float64))
    assert value == -np.inf
    assert bool(slope.isfinite().all())
    assert points.f_max == -np.inf
    found = points.maximum("settled", True)
    assert not found.converged
    assert "not finite" in found.status
