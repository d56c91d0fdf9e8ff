import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sklgap.inspection import hessian_trace
from sklgap.objective import Objective
from tests.cases import FOUR_CHUNKS, ONE_CHUNK, PROBLEMS, PROBLEMS_AND_POLICIES, no_global_random_numbers
from tests.inspection.curvature import Quadratic, exact_hessian
from tests.landscapes import landscape

# Standard errors that an estimate with 7 degrees of freedom may be off in a test with a fixed seed: 0.2 % are.
STANDARD_ERRORS = 5


@pytest.mark.parametrize(("name", "policy"), PROBLEMS_AND_POLICIES)
def test_against_the_dense_hessian(name, policy):
    module, criterion, X, y = PROBLEMS[name]()
    chunk_size = FOUR_CHUNKS if policy == "batch" else ONE_CHUNK
    hessian = exact_hessian(name, policy, chunk_size)
    options = {"random_state": 0, "batch_norm": policy, "chunk_size": chunk_size}
    record = hessian_trace((module, criterion), X, y, n_products=24, **options)
    assert abs(record.value - hessian.trace()) < STANDARD_ERRORS * record.standard_error
    assert (record.n_products, record.method) == (24, "hutch++")
    assert (record.batch_norm, record.n_samples) == (policy, 23)


def test_as_many_products_as_parameters_are_exact():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    hessian = exact_hessian("batch_norm")
    for method in ("hutch++", "hutchinson"):
        record = hessian_trace((module, criterion), X, y, n_products=len(hessian), method=method)
        assert record.value == pytest.approx(float(hessian.trace()), rel=1e-10)
        assert (record.standard_error, record.method, record.n_products) == (0, "exact", len(hessian))
        assert record.confidence_interval == (record.value, record.value)


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_the_standard_error_is_honest(method):
    # 250 estimates from 10 or 30 terms each; bounds of four standard errors of 250 draws.
    curvatures = np.r_[10, -5, 3, np.linspace(-1, 1.5, 57)]
    objective, n_seeds = Quadratic(curvatures), 250
    records = [hessian_trace(objective, n_products=30, method=method, random_state=seed) for seed in range(n_seeds)]
    errors = np.array([record.value for record in records]) - curvatures.sum()
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(n_seeds)  # unbiased
    z = errors / [record.standard_error for record in records]
    freedom = {"hutch++": 9, "hutchinson": 29}[method]
    variance = freedom / (freedom - 2)
    # The variance of the square of Student's t.
    spread = np.sqrt((3 * freedom**2 / ((freedom - 2) * (freedom - 4)) - variance**2) / n_seeds)
    assert abs((z**2).mean() - variance) < 4 * spread
    inside = np.mean([r.confidence_interval[0] < curvatures.sum() < r.confidence_interval[1] for r in records])
    assert abs(inside - 0.95) < 4 * np.sqrt(0.95 * 0.05 / n_seeds)


def test_the_standard_error_is_that_of_a_mean():
    # The sixth sample is the first that n_products=6 does not share with 5; sums of squares are updated by Welford.
    curvatures = np.linspace(-1, 2, 60)
    five, six = (
        hessian_trace(Quadratic(curvatures), n_products=n, method="hutchinson", random_state=0) for n in (5, 6)
    )
    sixth = 6 * six.value - 5 * five.value
    squares = five.standard_error**2 * 5 * 4 + (sixth - five.value) ** 2 * 5 / 6
    assert six.standard_error == pytest.approx(np.sqrt(squares / (6 * 5)), rel=1e-9)


def test_the_confidence_interval():
    record = hessian_trace(Quadratic(np.linspace(-1, 2, 60)), n_products=30, random_state=0)
    low, high = stats.t.interval(0.95, 9, record.value, record.standard_error)
    assert record.confidence_interval == pytest.approx((low, high), rel=1e-12)


def test_hutch_plus_plus_is_exact_where_the_sketch_holds_everything():
    objective = Quadratic(np.r_[5, 4, -3, np.zeros(57)])
    record = hessian_trace(objective, n_products=12, random_state=0)
    assert record.value == pytest.approx(6, rel=1e-10)
    assert record.standard_error < 1e-10
    assert hessian_trace(objective, n_products=12, method="hutchinson", random_state=0).standard_error > 0.1


def test_hutchinson_is_exact_for_a_diagonal_hessian():
    record = hessian_trace(
        Quadratic(np.linspace(-1, 2, 60), axes=torch.eye(60).double()), n_products=5, method="hutchinson"
    )
    assert record.value == pytest.approx(30, rel=1e-12)
    assert record.standard_error < 1e-12


def test_a_hessian_of_zero():
    record = hessian_trace(Quadratic(np.zeros(20)), n_products=6, random_state=0)
    assert (record.value, record.standard_error) == (0, 0)


def test_float32():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    exact, rough = (
        hessian_trace((module, criterion), X, y, n_products=20, random_state=0, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert rough.value == pytest.approx(exact.value, rel=1e-4)


def test_repeatable():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    with no_global_random_numbers():
        first, again, other = (
            hessian_trace((module, criterion), X, y, n_products=12, max_samples=15, random_state=seed)
            for seed in (0, 0, 1)
        )
    assert first == again != other
    assert first.n_samples == 15


def test_what_is_printed():
    record = hessian_trace(Quadratic(np.linspace(-1, 2, 60)), n_products=12, random_state=0)
    low, high = record.confidence_interval
    assert str(record).startswith(f"Hessian trace {record.value:.4g}, 95 % interval [{low:.4g}, {high:.4g}]")
    assert "hutch++, 12 products" in str(record)
    exact = str(hessian_trace(Quadratic(np.ones(6)), n_products=6))
    assert exact.startswith("Hessian trace 6, exact (6 products")


def test_progress_on_request(capsys):
    objective = Quadratic(np.ones(20))
    hessian_trace(objective, n_products=6)
    assert capsys.readouterr() == ("", "")
    hessian_trace(objective, n_products=6, verbose=1)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_products": 3}, "n_products must be an integer of at least 4; got 3"),
        ({"n_products": 8.0}, "n_products must be an integer of at least 4; got 8.0"),
        ({"method": "xtrace"}, r"method must be 'hutch\+\+' or 'hutchinson'; got 'xtrace'"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        hessian_trace(Quadratic(np.ones(20)), **parameters)


def test_a_hessian_that_is_not_finite():
    module, criterion, X, y = landscape(lambda theta: (theta * float("nan")).square().sum(), [1.0] * 9)
    with pytest.raises(ValueError, match="The Hessian must be finite at the measured point"):
        hessian_trace((module, criterion), X, y, n_products=5)


class _Tokens(nn.Module):
    """Of 40 words the data have three."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(40, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.words(x[:, 0]))


def _dead():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(net[0].bias, -1e3)
    return net, torch.randn(40, 8), torch.randint(0, 3, (40,))


def _unused_words():
    return _Tokens(), torch.randint(0, 3, (40, 1)), torch.randint(0, 2, (40,))


def _constant_features():
    X = torch.zeros(40, 30)
    X[:, :2] = torch.randn(40, 2)
    return nn.Linear(30, 3), X, torch.randint(0, 3, (40,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", [_dead, _unused_words, _constant_features])
def test_a_hessian_of_few_coordinates(problem, dtype):
    """Fewer directions than hutch++ asks for: rounding must not be taken for more of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, X, y = problem()
    f = Objective(net, nn.CrossEntropyLoss(), (X, y), dtype=dtype)
    exact = sum(float(f.hvp(e) @ e) for e in torch.eye(f.n_params, dtype=dtype))
    for seed in range(2):
        record = hessian_trace(f, n_products=60, random_state=seed)
        assert record.method == "hutch++"
        assert abs(record.value - exact) < STANDARD_ERRORS * record.standard_error + 1e-5 * exact
