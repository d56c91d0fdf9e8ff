import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap.inspection import _eigensolver, hessian_eigenvalues
from sklgap.objective import Objective, Subspace
from tests.cases import (
    FOUR_CHUNKS,
    ONE_CHUNK,
    POLICIES,
    PROBLEMS,
    WITH_BATCH_NORM,
    no_global_random_numbers,
)
from tests.inspection.curvature import exact_hessian, quadratic_form
from tests.landscapes import landscape, linear, vector
from tests.pairs import product
from tests.tiny import blobs, small

# Eigenvalues are right to the square of the residuals, some 1e-8 relative at the default tolerance.
EIGENVALUES = 1e-6


def _pair(problem):
    module, criterion, X, y = problem
    return (module, criterion), X, y


CURVATURES = np.r_[3, 3, 3, 1, np.linspace(-0.1, 0.1, 30), -2, -2]


@pytest.mark.parametrize(
    ("which", "k", "expected"),
    [
        ("largest", 1, [3]),
        ("largest", 2, [3, 3]),
        ("largest", 4, [3, 3, 3, 1]),
        ("smallest", 1, [-2]),
        ("smallest", 3, [-0.1, -2, -2]),
        ("both", 2, [3, 3, -2, -2]),
        ("both", 3, [3, 3, 3, -0.1, -2, -2]),
    ],
)
def test_repeated_curvatures(which, k, expected):
    for seed in range(3):
        record = hessian_eigenvalues(*quadratic_form(CURVATURES), k=k, which=which, random_state=seed)
        np.testing.assert_allclose(record.eigenvalues, expected, rtol=EIGENVALUES)
        assert record.converged
        assert record.which == which


@pytest.mark.parametrize(("which", "k"), [("largest", 36), ("smallest", 36), ("both", 18), ("both", 36)])
def test_all_eigenvalues(which, k):
    record = hessian_eigenvalues(*quadratic_form(CURVATURES), k=k, which=which, random_state=0)
    np.testing.assert_allclose(record.eigenvalues, np.sort(CURVATURES)[::-1], atol=1e-12)
    assert record.n_products == 36


@pytest.mark.parametrize(("name", "policy", "chunk_size"), product(PROBLEMS, POLICIES, [ONE_CHUNK, FOUR_CHUNKS]))
def test_against_the_dense_hessian(name, policy, chunk_size, monkeypatch):
    problem = PROBLEMS[name]()
    hessian = exact_hessian(name, policy, chunk_size)
    exact = torch.linalg.eigvalsh(hessian).flip(0).numpy()
    monkeypatch.setattr(_eigensolver, "_MORE", _eigensolver._SPARE)  # else the subspace becomes the whole space
    record = hessian_eigenvalues(
        *_pair(problem),
        k=3,
        which="both",
        return_eigenvectors=True,
        random_state=0,
        batch_norm=policy,
        chunk_size=chunk_size,
    )
    np.testing.assert_allclose(record.eigenvalues, np.r_[exact[:3], exact[-3:]], atol=EIGENVALUES * exact[0])
    residuals = hessian.numpy() @ record.eigenvectors - record.eigenvectors * record.eigenvalues
    np.testing.assert_allclose(record.residuals, np.linalg.norm(residuals, axis=0), atol=1e-10)
    np.testing.assert_allclose(record.eigenvectors.T @ record.eigenvectors, np.eye(6), atol=1e-12)
    assert (record.batch_norm, record.n_samples, record.converged) == (policy, 23, True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["relu", *WITH_BATCH_NORM])
def test_float32(name, policy):
    exact, rough = (
        hessian_eigenvalues(*_pair(PROBLEMS[name]()), random_state=0, batch_norm=policy, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert rough.converged
    np.testing.assert_allclose(rough.eigenvalues, exact.eigenvalues, rtol=1e-4)


def test_an_independent_library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports deprecated names
        curvlinops = pytest.importorskip("curvlinops")
        from scipy.sparse.linalg import eigsh

        module, criterion, X, y = PROBLEMS["conv"]()
        operator = curvlinops.HessianLinearOperator(module, criterion, list(module.parameters()), [(X, y)])
        expected = eigsh(operator.to_scipy(dtype=np.float64), k=5, which="LA", tol=1e-10, return_eigenvectors=False)
    record = hessian_eigenvalues((module, criterion), X, y, random_state=0)
    np.testing.assert_allclose(record.eigenvalues, np.sort(expected)[::-1], rtol=EIGENVALUES)


def test_in_a_subspace():
    module, criterion, X, y = PROBLEMS["tanh"]()
    hessian = exact_hessian("tanh")
    objective = Objective(module, criterion, (X, y))
    basis = torch.stack([vector(objective.n_params, seed) for seed in range(8)])
    record = hessian_eigenvalues(objective.restrict(Subspace(objective.theta0, basis)), k=3, random_state=0)
    exact = torch.linalg.eigvalsh(basis @ hessian @ basis.T).flip(0)
    np.testing.assert_allclose(record.eigenvalues, exact[:3], rtol=EIGENVALUES)


def test_the_tolerance_bounds_the_residuals():
    curvatures = 1.0 / np.arange(1, 200)
    loose, tight = (
        hessian_eigenvalues(*quadratic_form(curvatures), tol=tol, return_eigenvectors=True, random_state=0)
        for tol in (1e-2, 1e-8)
    )
    for record, tol in ((loose, 1e-2), (tight, 1e-8)):
        assert (record.residuals <= tol * record.eigenvalues).all()
        assert np.abs(record.eigenvalues - curvatures[:5]).max() <= record.residuals.max()
    assert loose.residuals.max() > 1e-6


def test_products_that_do_not_suffice():
    problem = quadratic_form(np.linspace(0, 1, 200))
    with pytest.warns(
        ConvergenceWarning, match=r"of 5 eigenpairs converged before the budget of products ended \(max_iter=30\)"
    ):
        record = hessian_eigenvalues(*problem, max_iter=30, return_eigenvectors=True, random_state=0)
    assert (record.converged, record.n_products, len(record.eigenvalues)) == (False, 30, 5)
    product = Objective(*problem[0], problem[1:]).hessian_operator()
    images = torch.stack([product(v) for v in record.eigenvectors.T], dim=1).numpy()
    measured = np.linalg.norm(images - record.eigenvectors * record.eigenvalues, axis=0)
    np.testing.assert_allclose(record.residuals, measured, rtol=1e-8)
    assert record.residuals.max() > 1e-4


def test_a_hessian_of_zero():
    (module, criterion, X, y), *_ = linear()
    record = hessian_eigenvalues((module, criterion), X, y, k=2, which="both", random_state=0)
    assert record.eigenvalues.tolist() == record.residuals.tolist() == [0.0] * 4
    assert record.converged


def test_estimators_rows_and_repeatability():
    X, y = blobs(60)
    model = small().fit(X, y)
    state = {name: tensor.clone() for name, tensor in model.module_.state_dict().items()}
    kwargs = {"max_samples": 40, "k": 2, "batch_norm": "running"}
    with no_global_random_numbers():
        first, again, other = (hessian_eigenvalues(model, X, y, random_state=s, **kwargs) for s in (0, 0, 1))
    assert first.n_samples == 40
    np.testing.assert_array_equal(first.eigenvalues, again.eigenvalues)
    assert first.eigenvalues[0] != other.eigenvalues[0]
    pair = hessian_eigenvalues((model.module_, nn.CrossEntropyLoss()), X, y, random_state=0, **kwargs)
    np.testing.assert_array_equal(first.eigenvalues, pair.eigenvalues)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.module_.state_dict().items())


def test_the_record_prints_and_hides_vectors():
    record = hessian_eigenvalues(*quadratic_form(CURVATURES), k=2, random_state=0)
    assert record.eigenvectors is None
    text = str(record)
    assert text.startswith("Hessian eigenvalues (largest) 3, 3 (residuals up to ")
    assert f"{record.n_products} products, 3 samples, batch norm: batch; all eigenpairs converged" in text


def test_progress_on_request(capsys):
    problem = quadratic_form(CURVATURES)
    hessian_eigenvalues(*problem, k=1, random_state=0)
    assert capsys.readouterr() == ("", "")
    record = hessian_eigenvalues(*problem, k=1, random_state=0, verbose=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{record.n_products}product" in err


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1; got 0"),
        ({"k": 2.0}, "k must be an integer of at least 1; got 2.0"),
        ({"k": 37}, "k must be at most 36, the number of parameters; got 37"),
        ({"which": "LM"}, "which must be 'largest', 'smallest' or 'both'; got 'LM'"),
        ({"tol": 0}, "tol must be a number between 0 and 1; got 0"),
        ({"tol": "small"}, "tol must be a number between 0 and 1; got 'small'"),
        ({"max_iter": 0}, "max_iter must be None or an integer of at least 1; got 0"),
        ({"max_iter": 9, "which": "both"}, "max_iter must be at least 10, the number of eigenvalues asked for; got 9"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(*quadratic_form(CURVATURES), **parameters)


def test_a_hessian_that_is_not_finite():
    problem = landscape(lambda theta: (theta * float("nan")).square().sum(), [1.0, 2.0])
    with pytest.raises(ValueError, match="The Hessian must be finite at the measured point"):
        hessian_eigenvalues(*_pair(problem), k=1)


# -- a start, and a preconditioner -------------------------------------------------------------------------------------


def moving(n_records=8):
    """Yield a small net along gradient descent, where its Hessian moves a little from record to record."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    X, y = blobs(60)
    X, y = torch.from_numpy(X).double(), torch.from_numpy(y)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(n_records):
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X), y).backward()
            optimizer.step()
        yield (module, nn.CrossEntropyLoss()), X, y


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_start_costs_fewer_products_and_finds_the_same(k):
    start, cold, warm = None, [], []
    for problem in moving():
        options = {"k": k, "random_state": 0, "return_eigenvectors": True}
        cold.append(hessian_eigenvalues(*problem, **options))
        warm.append(hessian_eigenvalues(*problem, start=start, **options))
        start = warm[-1].eigenvectors
        np.testing.assert_allclose(warm[-1].eigenvalues, cold[-1].eigenvalues, rtol=EIGENVALUES)
        assert warm[-1].converged
    assert sum(record.n_products for record in warm) < 0.9 * sum(record.n_products for record in cold)


@pytest.mark.parametrize("wrong", [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
def test_a_start_at_other_eigenvectors_misses_nothing(wrong):
    """Curvatures 3, 2 and 1 in the coordinates themselves, and 20 small ones: the start has none of the largest."""
    curvatures = torch.tensor([3.0, 2.0, 1.0, *[0.1] * 20]).double()
    problem = landscape(lambda theta: curvatures @ theta**2 / 2, vector(23, 1))
    start = np.zeros(23)
    start[:3] = wrong
    for seed in range(3):
        record = hessian_eigenvalues(*_pair(problem), k=1, start=start, random_state=seed)
        np.testing.assert_allclose(record.eigenvalues, [3], rtol=EIGENVALUES)


def test_more_starts_than_dimensions():
    start = np.random.default_rng(0).standard_normal((36, 50))
    record = hessian_eigenvalues(*quadratic_form(CURVATURES), k=2, start=start, random_state=0)
    np.testing.assert_allclose(record.eigenvalues, [3, 3], rtol=EIGENVALUES)


@pytest.mark.parametrize("name", ["mlp", "cnn"] if {"mlp", "cnn"} <= PROBLEMS.keys() else list(PROBLEMS)[:2])
@pytest.mark.parametrize(("which", "k"), [("largest", 1), ("largest", 3), ("both", 2)])
def test_a_preconditioner_against_the_dense_one(name, which, k):
    problem = PROBLEMS[name]()
    hessian = exact_hessian(name).numpy()
    P = np.random.default_rng(0).uniform(0.1, 4, len(hessian))
    exact = np.linalg.eigvalsh(hessian / np.sqrt(P)[:, None] / np.sqrt(P))[::-1]
    options = {"preconditioner": P, "return_eigenvectors": True, "chunk_size": ONE_CHUNK}
    record = hessian_eigenvalues(*_pair(problem), k=k, which=which, random_state=0, **options)
    expected = exact[:k] if which == "largest" else np.r_[exact[:k], exact[-k:]]
    np.testing.assert_allclose(record.eigenvalues, expected, atol=EIGENVALUES * exact[0])
    assert record.preconditioned
    assert str(record).startswith("Preconditioned")
    # Eigenvectors of P^-1 H: the same eigenvalues, in the coordinates of the weights.
    directions = record.eigenvectors / np.sqrt(P)[:, None]
    images = hessian @ directions / P[:, None]
    np.testing.assert_allclose(images, directions * record.eigenvalues, atol=1e-3 * exact[0])


def test_the_neutral_preconditioner_and_parameters_that_are_fixed():
    problem = quadratic_form(CURVATURES)
    plain = hessian_eigenvalues(*problem, k=2, random_state=0)
    ones = hessian_eigenvalues(*problem, k=2, random_state=0, preconditioner=np.ones(36))
    np.testing.assert_array_equal(plain.eigenvalues, ones.eigenvalues)
    assert plain.n_products == ones.n_products
    curvatures = torch.tensor([5.0, 2.0, 1.0]).double()
    fixed = landscape(lambda theta: curvatures @ theta**2 / 2, vector(3, 1))
    record = hessian_eigenvalues(*_pair(fixed), k=1, random_state=0, preconditioner=[np.inf, 1.0, 1.0])
    np.testing.assert_allclose(record.eigenvalues, [2])


@pytest.mark.parametrize("curvatures", [[5.0, 2.0, 1.0, 0.5], [-5.0, -2.0, -1.0, -0.5], [5.0, -2.0, -1.0, 3.0]])
@pytest.mark.parametrize("fixed", [[0], [3], [1, 2]])
@pytest.mark.parametrize("start", [None, [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_a_fixed_parameter_has_no_eigenvalue_of_zero(curvatures, fixed, start):
    """It is none of the landscape in the others: it would be the largest of negative ones, or the smallest."""
    curvatures = torch.tensor(curvatures, dtype=torch.float64)
    problem = _pair(landscape(lambda theta: curvatures @ theta**2 / 2, vector(4, 1)))
    P = np.array([1.0, 2.0, 3.0, 4.0])
    P[fixed] = np.inf
    free = np.flatnonzero(np.isfinite(P))
    expected = np.sort((curvatures.numpy() / P)[free])
    options = {"random_state": 0, "preconditioner": P, "start": start, "return_eigenvectors": True}
    for which, values in (("largest", expected[::-1][:1]), ("smallest", expected[:1])):
        record = hessian_eigenvalues(*problem, k=1, which=which, **options)
        np.testing.assert_allclose(record.eigenvalues, values, rtol=1e-9)
        assert record.eigenvectors.shape == (4, 1)
        assert not record.eigenvectors[fixed].any()
    everything = hessian_eigenvalues(*problem, k=len(free), **options)
    np.testing.assert_allclose(everything.eigenvalues, expected[::-1], rtol=1e-9)
    n = len(free)
    with pytest.raises(ValueError, match=f"^k must be at most {n}, the number of parameters with a finite precond"):
        hessian_eigenvalues(*problem, k=len(free) + 1, **options)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"start": np.ones(3)}, "^start .*36"),
        ({"start": np.zeros(36)}, "^start .*zeros"),
        ({"start": np.full(36, np.nan)}, "^start .*finite"),
        ({"start": np.ones((36, 0))}, "^start"),
        ({"start": "last"}, "^start"),
        ({"start": np.c_[np.ones(36), -np.ones(36)]}, "^start .*sum"),
        ({"preconditioner": np.ones(3)}, "^preconditioner .*36"),
        ({"preconditioner": np.zeros(36)}, "^preconditioner .*above 0"),
        ({"preconditioner": np.full(36, -1.0)}, "^preconditioner"),
        ({"preconditioner": np.full(36, np.nan)}, "^preconditioner"),
        ({"preconditioner": np.full(36, np.inf)}, "^preconditioner must be finite"),
        ({"preconditioner": np.ones(36) * 1j}, "^preconditioner .*real"),
    ],
)
def test_wrong_starts_and_preconditioners(given, match):
    with pytest.raises((ValueError, TypeError), match=match):
        hessian_eigenvalues(*quadratic_form(CURVATURES), k=1, **given)


def test_a_preconditioner_in_a_subspace_is_refused():
    pair, X, y = quadratic_form(CURVATURES)
    restricted = Objective(*pair, (X, y)).restrict(Subspace(torch.eye(36, 4).double(), torch.zeros(36).double()))
    with pytest.raises(ValueError, match=r"preconditioner .*subspace"):
        hessian_eigenvalues(restricted, k=1, preconditioner=np.ones(4))
