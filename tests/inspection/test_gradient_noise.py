import copy
import itertools
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap.inspection import gradient_noise_scale, gradient_standard_error
from sklgap.objective import Objective, check_objective, random_subspace
from tests.cases import (
    FOUR_CHUNKS,
    N_ROWS,
    ONE_CHUNK,
    PLAIN,
    POLICIES,
    PROBLEMS,
    WITH_BATCH_NORM,
    no_global_random_numbers,
    seeded_module,
)
from tests.inspection.noisy_gradients import (
    CASES,
    EXACT,
    N_REPEATS,
    N_SIGMA,
    assert_honest,
    gradients_of,
    half_squared_error,
    moments,
    regression,
    repeats,
)
from tests.references import gradient, loss_of_flat
from tests.tiny import blobs, small

# Gradients in float32, some digits lost where the trace is a difference.
SINGLE = 1e-4


# -- single rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
def test_linear_regression_in_closed_form(chunk_size):
    problem, rows = regression()
    trace, square = moments(rows)
    found = gradient_noise_scale(*problem, chunk_size=chunk_size)
    assert found.trace == pytest.approx(trace, rel=EXACT)
    assert found.squared_gradient_norm == pytest.approx(square, rel=EXACT)
    assert found.gradient_norm == pytest.approx(square**0.5, rel=EXACT)
    assert found.noise_scale == pytest.approx(trace / square, rel=EXACT)
    assert found.low == found.high == found.noise_scale
    assert found.trace_standard_error == found.squared_gradient_norm_standard_error == 0
    assert (found.method, found.batch_size, found.n_batches, found.n_samples) == ("per_sample", 1, 60, 60)
    assert "exact for these samples" in str(found)


@cache
def _rows_one_by_one(name):
    module, criterion, X, y = PROBLEMS[name]()
    theta = Objective(module, criterion, (X, y), batch_norm="running").theta0
    each = [loss_of_flat(module, criterion, X[[i]], y[[i]], "running") for i in range(len(X))]
    return np.array([gradient(f, theta).numpy() for f in each])


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, EXACT), (torch.float32, SINGLE)])
@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
@pytest.mark.parametrize(("name", "policy"), CASES)
def test_row_by_row(name, policy, chunk_size, dtype, rel):
    module, criterion, X, y = PROBLEMS[name]()
    options = {"batch_norm": policy, "chunk_size": chunk_size, "dtype": dtype}
    found = gradient_noise_scale((module, criterion), X, y, **options)
    trace, square = moments(_rows_one_by_one(name))
    assert (found.method, found.batch_norm) == ("per_sample", policy)
    assert found.trace == pytest.approx(trace, rel=rel)
    assert found.squared_gradient_norm == pytest.approx(square, rel=rel)
    assert found.noise_scale == pytest.approx(trace / square, rel=rel)


def test_equal_rows_have_no_noise():
    (pair, X, y), _ = regression()
    found = gradient_noise_scale(pair, X[:1].repeat(5, 1), y[:1].repeat(5, 1))
    assert found.noise_scale == found.low == found.high == pytest.approx(0, abs=1e-12)
    assert found.gradient_norm > 0


def test_at_a_minimum_the_noise_scale_is_infinite():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    X, y = torch.ones(4, 1), torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])
    found = gradient_noise_scale((net, half_squared_error), X, y)
    assert (found.noise_scale, found.low, found.high) == (np.inf, np.inf, np.inf)
    assert (found.gradient_norm, found.trace) == (0, pytest.approx(10 / 3))


def test_two_rows():
    problem, rows = regression()
    found = gradient_noise_scale(problem[0], problem[1][:2], problem[2][:2])
    assert found.trace == pytest.approx(moments(rows[:2])[0], rel=EXACT)
    # Two of many: there is an estimate, and nothing to judge it by.
    found = gradient_noise_scale(*problem, max_samples=2, random_state=0)
    assert (found.low, found.high, found.trace_standard_error) == (0, np.inf, np.inf)


# -- a part of the rows --------------------------------------------------------------------------------------------


def _assert_unbiased(values, expected):
    values = np.array(values)
    assert abs(values.mean() - expected) < N_SIGMA * values.std(ddof=1) / len(values) ** 0.5


@pytest.mark.parametrize("at_minimum", [False, True])
def test_a_sample_of_rows_is_corrected_for_what_it_leaves_out(at_minimum):
    problem, rows = regression(n=200, d=5, at_minimum=at_minimum)
    trace, square = moments(rows)
    found = repeats(N_REPEATS, lambda seed: gradient_noise_scale(*problem, max_samples=120, random_state=seed))
    assert {record.n_samples for record in found} == {120}
    _assert_unbiased([record.trace for record in found], trace)
    _assert_unbiased([record.squared_gradient_norm for record in found], square)
    assert_honest([record.trace for record in found], [record.trace_standard_error for record in found])
    if at_minimum:  # the estimate must be able to fall below zero, and then says so
        below = [record for record in found if record.squared_gradient_norm < 0]
        assert 0.1 * N_REPEATS < len(below) < 0.9 * N_REPEATS
        assert {(record.gradient_norm, record.noise_scale, record.high) for record in below} == {(0, np.inf, np.inf)}
        assert all(record.low > 0 for record in below)
    else:
        errors = [record.squared_gradient_norm_standard_error for record in found]
        assert_honest([record.squared_gradient_norm for record in found], errors)
    covered = np.mean([record.low <= (np.inf if at_minimum else trace / square) <= record.high for record in found])
    assert covered > 0.9


# -- mini-batches --------------------------------------------------------------------------------------------------


def test_mini_batches_against_the_exact_values():
    problem, rows = regression(n=60, d=5)
    trace, square = moments(rows)
    objective = check_objective(*problem)
    options = {"method": "batches", "batch_size": 6, "n_batches": 40}
    found = repeats(N_REPEATS, lambda seed: gradient_noise_scale(objective, random_state=seed, **options))
    _assert_unbiased([record.trace for record in found], trace)
    _assert_unbiased([record.squared_gradient_norm for record in found], square)
    assert_honest([record.trace for record in found], [record.trace_standard_error for record in found])
    errors = [record.squared_gradient_norm_standard_error for record in found]
    assert_honest([record.squared_gradient_norm for record in found], errors)
    assert np.mean([record.low <= trace / square <= record.high for record in found]) > 0.9
    assert (found[0].method, found[0].batch_size, found[0].n_batches) == ("batches", 6, 40)


def test_mini_batches_of_a_sample_are_corrected_likewise():
    problem, rows = regression(n=60, d=5, at_minimum=True)
    options = {"method": "batches", "batch_size": 5, "n_batches": 40, "max_samples": 20}
    found = repeats(N_REPEATS, lambda seed: gradient_noise_scale(*problem, random_state=seed, **options))
    trace, square = moments(rows)
    _assert_unbiased([record.trace for record in found], trace)
    _assert_unbiased([record.squared_gradient_norm for record in found], square)


@pytest.mark.parametrize("name", PLAIN)
def test_both_methods_agree(name):
    module, criterion, X, y = PROBLEMS[name]()
    exact = gradient_noise_scale((module, criterion), X, y)
    found = gradient_noise_scale(
        (module, criterion), X, y, method="batches", batch_size=4, n_batches=200, random_state=0
    )
    assert abs(found.trace - exact.trace) < N_SIGMA * found.trace_standard_error
    difference = abs(found.squared_gradient_norm - exact.squared_gradient_norm)
    assert difference < N_SIGMA * found.squared_gradient_norm_standard_error
    assert found.trace_standard_error < 0.2 * exact.trace  # else the comparison would say nothing
    assert found.low <= exact.noise_scale <= found.high


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["tanh", *WITH_BATCH_NORM])
def test_the_estimator_is_that_of_mccandlish_for_data_parallel_training(name, policy, monkeypatch):
    module, criterion, X, y = PROBLEMS[name]()
    objective = Objective(module, criterion, (X, y), batch_norm=policy)
    batches = [np.random.default_rng(i).choice(N_ROWS, 5, replace=False) for i in range(12)]
    left = iter(batches)
    monkeypatch.setattr("sklgap.inspection._gradient_noise.draw", lambda n, size, rng: next(left))
    found = gradient_noise_scale(objective, method="batches", batch_size=5, n_batches=12)
    gradients = gradients_of(objective, batches)
    # Equations (A.2): the mean of the small batches' gradients is the big batch's.
    small, big = (gradients**2).sum(axis=1).mean(), (gradients.mean(axis=0) ** 2).sum()
    b_small, b_big = 5, 5 * 12
    square = (b_big * big - b_small * small) / (b_big - b_small)
    trace = (small - big) / (1 / b_small - 1 / b_big)
    assert found.squared_gradient_norm == pytest.approx(square, rel=EXACT)
    # Their batches are drawn from infinitely many rows, these without replacement from n.
    assert found.trace * (1 - 5 / N_ROWS) == pytest.approx(trace, rel=EXACT)


def test_the_interval_is_fiellers(monkeypatch):
    """The inverse noise scales it holds are those that a t test does not reject."""
    problem, _ = regression(at_minimum=False)
    found = gradient_noise_scale(*problem, method="batches", batch_size=20, n_batches=40, random_state=0)
    objective, rng, groups = check_objective(*problem), np.random.RandomState(0), [[] for _ in range(10)]
    for i in range(40):
        groups[i % 10].append(objective.batch_gradient(rng.permutation(60)[:20])[1].numpy())

    def estimate(parts):
        rows = np.concatenate(parts)
        variance = rows.var(axis=0, ddof=1).sum()
        return np.array([variance / (1 / 20 - 1 / 60), (rows.mean(axis=0) ** 2).sum() - variance / len(rows)])

    whole = estimate(groups)
    left_out = np.array([estimate(groups[:k] + groups[k + 1 :]) for k in range(10)])
    deviations = left_out - left_out.mean(axis=0)
    covariance = 9 / 10 * deviations.T @ deviations
    np.testing.assert_allclose([found.trace, found.squared_gradient_norm], whole, rtol=1e-8)
    errors = [found.trace_standard_error, found.squared_gradient_norm_standard_error]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert 0 < found.low < found.noise_scale < found.high < np.inf
    for end in (found.low, found.high):
        contrast = np.array([-1 / end, 1])
        t = contrast @ whole / np.sqrt(contrast @ covariance @ contrast)
        assert abs(t) == pytest.approx(stats.t.ppf(0.975, 9), rel=1e-6)


def test_a_gradient_lost_in_noise_leaves_the_interval_open():
    problem, _ = regression(n=200, d=20, at_minimum=True)
    found = gradient_noise_scale(*problem, method="batches", batch_size=5, n_batches=20, random_state=0)
    assert found.high == np.inf
    assert found.low > 0
    assert "inf]" in str(found)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_statistics_need_mini_batches(name):
    module, criterion, X, y = PROBLEMS[name]()
    options = {"batch_size": 6, "n_batches": 10, "random_state": 0}
    batch, population, running = (
        gradient_noise_scale((module, criterion), X, y, batch_norm=policy, **options) for policy in POLICIES
    )
    assert (batch.method, population.method, running.method) == ("batches", "batches", "per_sample")
    # A mini-batch knows its own rows only.
    assert population.trace == pytest.approx(batch.trace, rel=EXACT)
    assert (batch.batch_norm, population.batch_norm) == ("batch", "population")


def _weighted_gradients(module, X, y, weights):
    """The gradient of every row's loss times its weight relative to the mean weight, one a row."""
    rows = []
    for x, target, w in zip(X, y, weights / weights.mean(), strict=True):
        loss = w * nn.functional.cross_entropy(module(x[None]), target[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]))
    return torch.stack(rows)


KINDS_OF_WEIGHTS = ["classes", "samples", "ignored", "classes and samples"]


def _weighted_problem(kind):
    """Return module, loss, data and options of a problem with weights, and its single-row gradients."""
    module, _, X, y = PROBLEMS["tanh"]()
    classes = torch.tensor([1.0, 5.0, 0.2]).double()
    samples = torch.arange(len(X)).double() % 3
    loss, weights, options = nn.CrossEntropyLoss(), torch.ones(len(X)).double(), {}
    if "classes" in kind:
        loss, weights = nn.CrossEntropyLoss(weight=classes), classes[y]
    if "samples" in kind:
        options, weights = {"sample_weight": samples}, weights * samples
    if kind == "ignored":
        loss, weights = nn.CrossEntropyLoss(ignore_index=1), (y != 1).double()
    return ((module, loss), X, y), options, _weighted_gradients(module, X, y, weights)


@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
@pytest.mark.parametrize("policy", ["batch", "running"])
def test_weights_of_rows_are_part_of_their_gradients(kind, policy):
    problem, options, rows = _weighted_problem(kind)
    for seed in range(3):
        found = gradient_noise_scale(*problem, random_state=seed, batch_norm=policy, **options)
        assert found.method == "per_sample"
        assert found.trace == pytest.approx(float(rows.var(0).sum()), rel=EXACT)
        assert found.gradient_norm == pytest.approx(float(rows.mean(0).norm()), rel=EXACT)


@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
def test_weights_of_rows_are_part_of_the_gradients_of_mini_batches(kind, monkeypatch):
    problem, options, rows = _weighted_problem(kind)
    # Every batch of 2 of the 23 rows once: the variance over them is that of all rows, without a sampling error.
    batches = [np.array(pair) for pair in itertools.combinations(range(N_ROWS), 2)]
    left = iter(batches)
    monkeypatch.setattr("sklgap.inspection._gradient_noise.draw", lambda n, size, rng: next(left))
    found = gradient_noise_scale(*problem, method="batches", batch_size=2, n_batches=len(batches), **options)
    of_batches = torch.stack([rows[pair].mean(0) for pair in batches])
    assert found.trace * (1 / 2 - 1 / N_ROWS) == pytest.approx(float(of_batches.var(0).sum()), rel=EXACT)
    unbiased = (len(batches) - 1) / len(batches)
    assert found.trace * unbiased == pytest.approx(float(rows.var(0).sum()), rel=EXACT)


class Squeezing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, X):
        return self.layer(X.unsqueeze(1)).squeeze()


class Doubled(torch.autograd.Function):
    """Old-style: torch.func cannot batch it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class WithFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, X):
        return Doubled.apply(self.layer(X))


class WithSlope(nn.Module):
    """Takes a derivative in its forward pass."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, X):
        with torch.enable_grad():
            X = X.detach().requires_grad_()
            (slope,) = torch.autograd.grad(torch.tanh(self.layer(X)).sum(), X, create_graph=True)
        return self.out(slope)


@pytest.mark.parametrize(
    ("kind", "method"), [(Squeezing, "batches"), (WithFunction, "per_sample"), (WithSlope, "per_sample")]
)
def test_modules_that_rows_cannot_be_batched_for(kind, method):
    module = seeded_module(kind).double()
    _, _, X, y = PROBLEMS["tanh"]()
    found = gradient_noise_scale((module, nn.CrossEntropyLoss()), X, y, random_state=0, batch_size=6, n_batches=50)
    assert found.method == method
    outputs = [module(X)] if kind is Squeezing else [module(x[None]) for x in X]
    losses = nn.functional.cross_entropy(torch.cat(outputs), y, reduction="none")
    rows = [torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) for loss in losses]
    trace = float(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).var(0).sum())
    if method == "per_sample":
        assert found.trace == pytest.approx(trace, rel=EXACT)
    else:
        assert abs(found.trace - trace) < 4 * found.trace_standard_error


# -- every measurement ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [gradient_noise_scale, gradient_standard_error])
def test_repeatable_and_without_traces(measure):
    X, y = blobs(60)
    model = small().fit(X, y)
    before = copy.deepcopy(model.module_.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in model.module_.parameters()]
    model.module_.train()
    with no_global_random_numbers():
        first, again, other = (
            measure(model, X, y, n_batches=6, max_samples=40, random_state=seed) for seed in (0, 0, 1)
        )
    assert str(first) == str(again) != str(other)
    assert first.n_samples == 40
    assert all(torch.equal(value, before[name]) for name, value in model.module_.state_dict().items())
    assert all(m.training for m in model.module_.modules())
    for p, grad in zip(model.module_.parameters(), grads, strict=True):
        assert (p.grad is None) == (grad is None)
        assert grad is None or torch.equal(p.grad, grad)


def test_estimators_labels_and_pipelines():
    X, y = blobs(60)
    names = np.array(["a", "b", "c"])[y]
    model = small().fit(X, names)
    objective = Objective(model.module_, nn.CrossEntropyLoss(), (X, y), batch_norm="running")
    expected = gradient_noise_scale(objective)
    found = gradient_noise_scale(model, X, names, batch_norm="running")
    assert found.noise_scale == pytest.approx(expected.noise_scale, rel=SINGLE)
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, names)
    scaled = gradient_noise_scale(pipeline[-1], pipeline[0].transform(X), names, batch_norm="running")
    assert gradient_noise_scale(pipeline, X, names, batch_norm="running") == scaled


def test_progress_goes_to_stderr(capsys):
    problem, _ = regression()
    gradient_noise_scale(*problem)
    gradient_noise_scale(*problem, method="batches", n_batches=4)
    gradient_standard_error(*problem, n_batches=4)
    assert capsys.readouterr() == ("", "")
    for method in ("per_sample", "batches"):
        gradient_noise_scale(*problem, method=method, n_batches=4, verbose=1)
        gradient_standard_error(*problem, method=method, n_batches=4, verbose=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [gradient_noise_scale, gradient_standard_error])
def test_bad_method(measure):
    problem, _ = regression()
    with pytest.raises(ValueError, match="method must be one of 'auto', 'per_sample', 'batches'; got 'rows'"):
        measure(*problem, method="rows")


@pytest.mark.parametrize("size", [0, 60, 100, 2.0, True, "6"])
def test_bad_batch_size(size):
    problem, _ = regression()
    for method in ("auto", "batches"):
        with pytest.raises(ValueError, match="batch_size must be an integer from 1 to 59; got"):
            gradient_noise_scale(*problem, method=method, batch_size=size)


def test_one_row_and_batch_norm():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    with pytest.raises(
        ValueError, match=r"batch_size must be an integer from 2 \(batch statistics need two samples\) to 22"
    ):
        gradient_noise_scale((module, criterion), X, y, batch_size=1)
    with pytest.raises(
        ValueError, match=r"batch_sizes must be an integer from 2 \(batch statistics need two samples\) to 23"
    ):
        gradient_standard_error((module, criterion), X, y, batch_sizes=[4, 1])


@pytest.mark.parametrize("sizes", [[], 8, [[4]], [61], [0], [2.5]], ids=str)
def test_bad_batch_sizes(sizes):
    problem, _ = regression()
    with pytest.raises(ValueError, match="batch_sizes must be"):
        gradient_standard_error(*problem, batch_sizes=sizes)


@pytest.mark.parametrize("n_batches", [3, 0, 4.0, True, None])
def test_bad_n_batches(n_batches):
    problem, _ = regression()
    with pytest.raises(ValueError, match="n_batches must be an integer of at least 4; got"):
        gradient_noise_scale(*problem, n_batches=n_batches)
    with pytest.raises(ValueError, match="n_batches must be an integer of at least 4; got"):
        gradient_standard_error(*problem, n_batches=n_batches)


def test_per_sample_with_batch_statistics():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    with pytest.raises(ValueError, match=r"method='per_sample' needs a loss that is a mean over independent samples"):
        gradient_noise_scale((module, criterion), X, y, method="per_sample")


def test_two_rows_and_batch_statistics():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    with pytest.raises(ValueError, match=r"batch_size must be an integer from 2 .* to 1; got 2"):
        gradient_noise_scale((module, criterion), X[:2], y[:2])


def test_one_row():
    problem, _ = regression()
    with pytest.raises(ValueError, match=r"X must have at least 2 samples, because .*; got 1"):
        gradient_noise_scale(problem[0], problem[1][:1], problem[2][:1])


def test_a_subspace_has_no_rows():
    objective = check_objective(*regression()[0])
    restricted = objective.restrict(random_subspace(objective.theta0, 2, random_state=0))
    with pytest.raises(TypeError, match="estimator must be in the full space"):
        gradient_noise_scale(restricted)


def test_a_gradient_that_is_not_finite():
    (pair, X, y), _ = regression()
    with pytest.raises(ValueError, match="The gradient must be finite at the measured point; it is not"):
        gradient_noise_scale(pair, X.clone().index_fill_(0, torch.tensor([3]), np.inf), y)
