"""The solvers of `sharpness` against each other."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap.inspection import sharpness
from sklgap.inspection._sharpness import SOLVERS
from tests.cases import PROBLEMS
from tests.inspection.sharp_nets import objective_of, quiet_sharpness, trained_net
from tests.landscapes import landscape, vector

# Two solvers at the same vertex differ by rounding, 1e-16 relative to a loss up to 1e5 times its rise.
TIES = 1e-9
# Local maxima differ in a coordinate or two: over 16 nets another solver's was better by at most 2e-5 of the value.
NEIGHBOURS = 1e-4


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epsilon", [5e-4, 1e-3])
def test_auto_is_at_least_as_good_as_every_other_solver(seed, epsilon):
    objective = trained_net(seed)
    values = {s: quiet_sharpness(objective, epsilon=epsilon, solver=s, random_state=0).value for s in SOLVERS}
    assert values["auto"] >= max(values.values()) * (1 - NEIGHBOURS) > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epsilon", [5e-4, 1e-3])
def test_auto_within_the_budget_of_the_paper(seed, epsilon):
    objective = trained_net(seed)
    paper = quiet_sharpness(objective, epsilon=epsilon, solver="lbfgsb")
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
    with pytest.warns(ConvergenceWarning, match="Use solver='auto'") as caught:
        sharpness((module, nn.MSELoss()), X, module(X).detach(), solver="lbfgsb-scaled")
    assert "lbfgsb-scaled" not in str(caught[0].message)


@pytest.mark.parametrize("solver", ["auto", "power"])
def test_a_slope_on_which_nothing_rises_is_no_measurement(solver):
    # The maximum lies so near the centre that all vertices of the box are below it.
    problem = landscape(lambda theta: 1 - ((theta - 1e-3) ** 2).sum(), torch.zeros(30))
    with pytest.warns(
        ConvergenceWarning, match=r"No point tried .* larger max_iter, or dtype=torch\.float64\.$"
    ) as caught:
        found = sharpness(objective_of(problem), epsilon=1.0, solver=solver, max_iter=3)
    assert found.value == 0
    assert found.notes == (str(caught[0].message),)
    assert sharpness(objective_of(problem), epsilon=1.0).value == pytest.approx(100 * 30 * 1e-6 / 2, rel=1e-3)


def test_power_at_a_zero_gradient_does_not_claim_to_have_converged():
    # The centre is a fixed point of the iteration, and a minimum of f: 0 would be no measurement.
    module, _, X, _ = PROBLEMS["tanh"]()
    found = quiet_sharpness((module, nn.MSELoss()), X, module(X).detach(), solver="power")
    assert found.value > 0 or not found.converged


def test_scaling_moves_lbfgsb_on_a_flat_function():
    slope = 1e-6 * vector(4, 0)
    problem = landscape(lambda theta: slope @ theta, torch.zeros(4))
    with pytest.warns(ConvergenceWarning):
        assert sharpness(objective_of(problem), epsilon=0.1, solver="lbfgsb").value == 0
    expected = 100 * 0.1 * float(slope.abs().sum())
    assert sharpness(objective_of(problem), epsilon=0.1, solver="lbfgsb-scaled").value == pytest.approx(expected)
