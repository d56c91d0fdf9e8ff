import math

import numpy as np
import pytest
import torch

from sklgap.inspection._ball import Point, Points, climb, maximize_in_ball, maximize_quadratic
from sklgap.objective import Objective
from tests.landscapes import landscape, vector


def symmetric(n, seed, kind="indefinite"):
    rng = np.random.default_rng(seed)
    values = {
        "convex": rng.uniform(0.1, 3, n),
        "rank one": np.r_[np.zeros(n - 1), 2.0],
        "indefinite": rng.uniform(-2, 2, n),
        "concave": rng.uniform(-9, -4, n),
        "double": np.r_[rng.uniform(-2, 1, n - 2), 2.0, 2.0],
    }[kind]
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return basis @ np.diag(values) @ basis.T


def is_maximiser(z, gradient, hessian):
    """The conditions of More and Sorensen, which hold at a global maximiser in the unit ball and nowhere else."""
    slope = gradient + hessian @ z
    mu = float(z @ slope)
    scale = np.linalg.norm(gradient) + np.abs(np.linalg.eigvalsh(hessian)).max()
    assert np.linalg.norm(z) <= 1 + 1e-9
    assert np.linalg.norm(slope - mu * z) <= 1e-6 * scale or (np.linalg.norm(slope) <= 1e-6 * scale)
    at_edge = abs(np.linalg.norm(z) - 1) < 1e-9
    assert np.linalg.eigvalsh(hessian)[-1] <= (mu if at_edge else 0) + 1e-6 * scale
    return mu >= -1e-9 * scale


@pytest.mark.parametrize("kind", ["convex", "rank one", "indefinite", "concave", "double"])
@pytest.mark.parametrize("size", [0.0, 1e-9, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_maximum_of_a_quadratic(kind, size, seed):
    hessian = symmetric(7, seed, kind)
    gradient = size * np.random.default_rng(seed + 10).standard_normal(7)
    for z in maximize_quadratic(gradient, hessian):
        assert is_maximiser(z, gradient, hessian)


@pytest.mark.parametrize("inner", [0.2, 0.9])
def test_the_hard_case_has_two_maximisers(inner):
    hessian, gradient = np.diag([-1.0, 0.5, 2.0]), np.array([3.0 * inner, 0.0, 0.0])
    found = maximize_quadratic(gradient, hessian)
    assert len(found) == 2
    for z in found:
        assert np.allclose(np.abs(z), [inner, 0, math.sqrt(1 - inner**2)])
    assert found[0][2] == -found[1][2]


def test_nothing_to_maximise():
    assert not np.any(maximize_quadratic(np.zeros(3), np.zeros((3, 3)))[0])


def quadratic(n, seed, kind, slope):
    """Return an objective, and its largest rise for given radii, by the certificate above."""
    hessian = torch.from_numpy(symmetric(n, seed, kind))
    start, gradient = vector(n, seed, -2, 2), slope * vector(n, seed + 1)
    problem = landscape(lambda t: 3 + gradient @ (t - start) + (t - start) @ hessian @ (t - start) / 2, start)

    def rise(radii):
        g, h = (radii * gradient).numpy(), (radii[:, None] * hessian * radii).numpy()
        z = maximize_quadratic(g, h)[0]
        assert is_maximiser(z, g, h)
        return g @ z + z @ h @ z / 2

    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y)), rise


def maximum(objective, radii, max_iter=20, n_products=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return maximize_in_ball(objective, radii, max_iter=max_iter, n_products=n_products, generator=generator)


@pytest.mark.parametrize("kind", ["convex", "rank one", "indefinite", "concave", "double"])
@pytest.mark.parametrize("slope", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_exact_on_quadratics(kind, slope, rho):
    objective, rise = quadratic(12, 3, kind, slope)
    for radii in (torch.full((12,), rho, dtype=torch.float64), rho * objective.theta0.abs()):
        found = maximum(objective, radii)
        assert found.f_max - found.f0 == pytest.approx(rise(radii), rel=1e-9, abs=1e-12)
        assert objective.value(objective.theta0 + found.step) == found.f_max
        assert (found.step / radii).norm() <= 1 + 1e-9


@pytest.mark.parametrize("kind", ["convex", "indefinite", "double"])
def test_more_parameters_than_products(kind):
    objective, rise = quadratic(150, 5, kind, 0.1)
    radii = torch.full((150,), 0.5, dtype=torch.float64)
    found = maximum(objective, radii, n_products=30)
    assert 0.99 * rise(radii) <= found.f_max - found.f0 <= rise(radii) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_without_products_a_convex_function_is_climbed(seed):
    objective, rise = quadratic(12, seed, "convex", 2.0)
    radii = torch.full((12,), 0.5, dtype=torch.float64)
    found = maximum(objective, radii, max_iter=100, n_products=0)
    assert found.f_max - found.f0 == pytest.approx(rise(radii), rel=1e-3)
    assert "without products" in found.status


def test_a_parameter_without_radius_does_not_move():
    objective, rise = quadratic(12, 3, "convex", 0.3)
    radii = torch.full((12,), 0.5, dtype=torch.float64)
    radii[:4] = 0
    found = maximum(objective, radii)
    assert not found.step[:4].any()
    assert found.f_max - found.f0 == pytest.approx(rise(radii), rel=1e-9)


def test_a_maximum_inside_the_ball():
    start = torch.zeros(3, dtype=torch.float64)
    goal = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    module, criterion, X, y = landscape(lambda t: torch.exp(-8 * ((t - goal) ** 2).sum()), start)
    found = maximum(Objective(module, criterion, (X, y)), torch.ones(3, dtype=torch.float64))
    assert found.f_max == pytest.approx(1, abs=1e-3)
    assert found.length < 0.6


@pytest.mark.parametrize("n_products", [0, 20])
def test_a_constant_function_says_that_nothing_rises(n_products):
    start = vector(5, 0)
    module, criterion, X, y = landscape(lambda t: 2 + 0 * t.sum(), start)
    found = maximum(Objective(module, criterion, (X, y)), torch.ones(5, dtype=torch.float64), n_products=n_products)
    assert found.f_max == found.f0 == 2
    assert [note.split(" ")[:2] for note in found.notes] == [["The", "gradient"], ["The", "loss"]]


def test_points_that_are_not_finite_are_counted():
    start = torch.full((2,), 0.5, dtype=torch.float64)
    module, criterion, X, y = landscape(lambda t: -torch.log(t[0]) + t[1], start)
    found = maximum(Objective(module, criterion, (X, y)), torch.ones(2, dtype=torch.float64))
    assert math.isfinite(found.f_max)
    assert any("not finite" in note for note in found.notes)


def test_rounding_of_the_step_is_said():
    start = torch.full((4,), 1.5)
    module, criterion, X, y = landscape(lambda t: (t - start).sum(), start)
    objective = Objective(module, criterion, (X, y), dtype=torch.float32)
    found = maximum(objective, torch.full((4,), 4e-7))
    assert any("After rounding to the precision" in note for note in found.notes)


def test_a_climb_never_falls_and_ends_in_the_ball():
    hessian, slope = torch.from_numpy(symmetric(9, 2)), vector(9, 4)
    seen = []

    def f(u):
        seen.append(u)
        return float(slope @ u + u @ hessian @ u / 2), slope + hessian @ u

    points = Points(f)
    start = points(0.3 * vector(9, 5))
    end = climb(points, start, 0.0, 30)
    assert isinstance(end, Point)
    assert end.value >= start.value
    assert max(u.norm() for u in seen) <= 1 + 1e-12
    assert points.n_gradients <= 31
