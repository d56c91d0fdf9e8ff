"""The standard error of the gradient: predicted and measured."""

import numpy as np
import pytest

from sklgap.inspection import gradient_standard_error
from sklgap.objective import Objective, check_objective
from tests.cases import FOUR_CHUNKS, N_ROWS, PROBLEMS, WITH_BATCH_NORM
from tests.inspection.noisy_gradients import (
    CASES,
    EXACT,
    N_REPEATS,
    N_SIGMA,
    assert_honest,
    gradients_of,
    moments,
    regression,
    repeats,
)


def test_the_prediction_in_closed_form():
    problem, rows = regression()
    sizes = [1, 2, 10, 59, 60]
    found = gradient_standard_error(*problem, batch_sizes=sizes, n_batches=4, random_state=0)
    trace, square = moments(rows)
    expected = [np.sqrt(trace / b * (1 - b / 60)) for b in sizes]
    np.testing.assert_allclose(found.predicted, expected, rtol=EXACT, atol=1e-12)
    assert found.predicted[-1] == 0
    assert found.gradient_norm == pytest.approx(square**0.5, rel=EXACT)
    assert found.batch_sizes.tolist() == sizes


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_measured_as_predicted(name, policy):
    module, criterion, X, y = PROBLEMS[name]()
    found = gradient_standard_error(
        (module, criterion), X, y, batch_norm=policy, batch_sizes=[2, 8, 20, N_ROWS], n_batches=100, random_state=0
    )
    off = abs(found.measured - found.predicted)
    assert (off[:-1] < N_SIGMA * found.measured_standard_error[:-1]).all()
    assert (found.measured_standard_error[:-1] < 0.15 * found.measured[:-1]).all()
    # All rows: the gradient itself, in another order.
    assert found.measured[-1] < 1e-12
    assert found.predicted[-1] == 0


def test_its_own_standard_error_is_the_scatter_of_repeats():
    problem, _ = regression()
    objective = check_objective(*problem)
    found = repeats(
        N_REPEATS, lambda seed: gradient_standard_error(objective, batch_sizes=[6], n_batches=20, random_state=seed)
    )
    assert_honest([r.measured[0] for r in found], [r.measured_standard_error[0] for r in found])


@pytest.mark.parametrize("policy", ["batch", "population"])
@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_under_batch_statistics_it_is_measured_from_the_gradient_of_the_objective(name, policy, monkeypatch):
    module, criterion, X, y = PROBLEMS[name]()
    objective = Objective(module, criterion, (X, y), batch_norm=policy, chunk_size=FOUR_CHUNKS)
    batches = [np.random.default_rng(i).choice(N_ROWS, 5, replace=False) for i in range(8)]
    left = iter(batches)
    monkeypatch.setattr("sklgap.inspection._gradient_standard_error.draw", lambda n, size, rng: next(left))
    found = gradient_standard_error(objective, batch_sizes=[5], n_batches=8)
    squares = ((gradients_of(objective, batches) - objective.gradient()[1].numpy()) ** 2).sum(axis=1)
    assert found.measured[0] == pytest.approx(squares.mean() ** 0.5, rel=EXACT)
    assert (found.batch_norm, found.n_batches) == (policy, 8)


def test_default_sizes_and_the_table():
    problem, _ = regression(n=700)
    found = gradient_standard_error(*problem, n_batches=4, random_state=0)
    assert found.batch_sizes.tolist() == [4, 16, 64]
    lines = str(found).splitlines()
    assert len(lines) == 5
    assert "predicted" in lines[1]
    few = gradient_standard_error(problem[0], problem[1][:9], problem[2][:9], n_batches=4)
    assert few.batch_sizes.tolist() == [4]
