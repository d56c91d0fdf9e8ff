import numpy as np
import pytest
import torch

from sklgap.inspection import hessian_spectral_density
from tests.cases import FOUR_CHUNKS, ONE_CHUNK, PROBLEMS, PROBLEMS_AND_POLICIES, no_global_random_numbers
from tests.inspection.curvature import Quadratic, exact_hessian


def _smoothed(eigenvalues, grid, width):
    return _normal(grid[:, None], eigenvalues, width).mean(axis=1)


def _normal(x, mean, width):
    return np.exp(-(((x - mean) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))


CURVATURES = np.r_[4, 2.5, np.linspace(-0.5, 1, 38)]


@pytest.mark.parametrize(("name", "policy"), PROBLEMS_AND_POLICIES)
def test_as_many_steps_as_parameters_find_the_eigenvalues(name, policy):
    module, criterion, X, y = PROBLEMS[name]()
    chunk_size = FOUR_CHUNKS if policy == "batch" else ONE_CHUNK
    hessian = exact_hessian(name, policy, chunk_size)
    exact = torch.linalg.eigvalsh(hessian).numpy()
    density = hessian_spectral_density(
        (module, criterion), X, y, n_vectors=1, n_steps=999, random_state=0, batch_norm=policy, chunk_size=chunk_size
    )
    assert density.nodes.shape == density.weights.shape == (1, len(exact))
    assert (density.weights >= 0).all()
    assert density.weights.sum() == pytest.approx(1, rel=1e-12)
    # Of a multiple eigenvalue, such as 0 of these nets, a start vector sees one eigenvector.
    distance = np.abs(density.nodes[0][density.weights[0] > 1e-12][:, None] - exact)
    assert distance.min(axis=1).max() < 1e-9 * np.abs(exact).max()
    assert distance.min(axis=0).max() < 1e-6 * np.abs(exact).max()
    assert (density.batch_norm, density.n_samples, density.n_params) == (policy, 23, len(exact))


def test_nodes_are_distinct_eigenvalues_with_full_orthogonalisation():
    # Without it rounding makes copies of the largest one long before the end.
    density = hessian_spectral_density(Quadratic(CURVATURES), n_vectors=1, n_steps=40, random_state=0)
    np.testing.assert_allclose(density.nodes[0], np.sort(CURVATURES), atol=1e-10)
    assert density.n_products == 40


def test_moments_are_those_of_the_start_vectors():
    # The same vectors in m steps and in as many as there are parameters: Gauss quadrature is exact to degree 2 m - 1.
    few, all_ = (
        hessian_spectral_density(Quadratic(CURVATURES), n_vectors=3, n_steps=steps, random_state=0) for steps in (6, 40)
    )
    for degree in range(12):
        moments = [(d.weights * d.nodes**degree).sum(axis=1) for d in (few, all_)]
        np.testing.assert_allclose(*moments, rtol=1e-9)
    assert not np.allclose(*[(d.weights * d.nodes**12).sum(axis=1) for d in (few, all_)], rtol=1e-9)
    assert few.trace == pytest.approx(all_.trace, rel=1e-9)
    assert few.n_products == 18


def test_density_and_trace_are_unbiased():
    density = hessian_spectral_density(Quadratic(CURVATURES), n_vectors=300, n_steps=15, width=0.3, random_state=0)
    exact = _smoothed(CURVATURES, density.grid, 0.3)
    # Far from all eigenvalues both are zero. The largest of some 30 independent differences: 4 standard errors.
    where = exact > 1e-6
    assert (np.abs(density.density - exact) < 4 * density.standard_error)[where].all()
    assert (np.abs(density.density - exact) > density.standard_error)[where].any()
    traces = 40 * (density.weights * density.nodes).sum(axis=1)
    assert density.trace == pytest.approx(traces.mean(), rel=1e-12)
    assert abs(density.trace - CURVATURES.sum()) < 4 * traces.std() / np.sqrt(300)


def test_density_is_the_smoothed_quadrature():
    density = hessian_spectral_density(Quadratic(CURVATURES), n_vectors=4, n_steps=10, width=0.2, random_state=0)
    each = np.stack([
        (w * _normal(density.grid[:, None], t, 0.2)).sum(axis=1)
        for t, w in zip(density.nodes, density.weights, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(density.density, each.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(density.standard_error, each.std(axis=0, ddof=1) / 2, rtol=1e-10, atol=1e-15)
    assert np.trapezoid(density.density, density.grid) == pytest.approx(1, abs=1e-5)
    assert density.grid[[0, -1]] == pytest.approx([density.nodes.min() - 1.4, density.nodes.max() + 1.4])
    assert (density.width, len(density.grid)) == (0.2, 1000)
    again = hessian_spectral_density(Quadratic(CURVATURES), n_vectors=4, n_steps=10, n_points=9, random_state=0)
    for name, value in vars(again.smoothed(0.2)).items():
        np.testing.assert_array_equal(value, getattr(density, name))
    with pytest.raises(ValueError, match="width must be a number above 0; got None"):
        density.smoothed(None)


def test_defaults():
    density = hessian_spectral_density(Quadratic(CURVATURES), random_state=0, n_points=50)
    assert density.nodes.shape == (5, 40)  # 80 steps cut to the number of parameters
    assert density.width == pytest.approx(0.01 * 4.5)
    assert len(density.grid) == 50


def test_one_start_vector_has_no_standard_error():
    density = hessian_spectral_density(Quadratic(CURVATURES), n_vectors=1, n_steps=5, random_state=0)
    assert np.isnan(density.standard_error).all()
    assert np.isfinite(density.density).all()


@pytest.mark.parametrize(("value", "width"), [(3.0, 0.03), (0.0, 0.01)])
def test_an_early_end(value, width):
    # Every vector is an eigenvector: one step sees all.
    density = hessian_spectral_density(Quadratic(np.full(20, value)), n_vectors=2, n_steps=4, random_state=0)
    np.testing.assert_allclose(density.nodes, value, atol=1e-12)
    assert density.weights.tolist() == [[1, 0, 0, 0]] * 2
    assert density.width == pytest.approx(width)
    assert density.n_products == 2


def test_float32():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    exact, rough = (
        hessian_spectral_density((module, criterion), X, y, n_steps=8, random_state=0, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert rough.trace == pytest.approx(exact.trace, rel=1e-4)
    np.testing.assert_allclose(rough.nodes.max(axis=1), exact.nodes.max(axis=1), rtol=1e-3)


def test_repeatable():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    with no_global_random_numbers():
        first, again, other = (
            hessian_spectral_density((module, criterion), X, y, n_steps=5, max_samples=15, random_state=seed)
            for seed in (0, 0, 1)
        )
    np.testing.assert_array_equal(first.nodes, again.nodes)
    np.testing.assert_array_equal(first.density, again.density)
    assert not np.array_equal(first.nodes, other.nodes)
    assert first.n_samples == 15


def test_progress_on_request(capsys):
    objective = Quadratic(CURVATURES)
    hessian_spectral_density(objective, n_vectors=2, n_steps=3)
    assert capsys.readouterr() == ("", "")
    hessian_spectral_density(objective, n_vectors=2, n_steps=3, verbose=1)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_vectors": 0}, "n_vectors must be an integer of at least 1; got 0"),
        ({"n_steps": 1.5}, "n_steps must be an integer of at least 1; got 1.5"),
        ({"n_points": 1}, "n_points must be an integer of at least 2; got 1"),
        ({"width": 0}, "width must be None or a number above 0; got 0"),
        ({"width": float("nan")}, "width must be None or a number above 0; got nan"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        hessian_spectral_density(Quadratic(CURVATURES), **parameters)
