import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import adaptive_sharpness, sharpness
from sklgap.objective import Objective, random_subspace
from tests.cases import PROBLEMS, WITH_BATCH_NORM, seeded_module, vectors
from tests.landscapes import coupled_convex, linear, separable_convex

# The solver's path is the same in exact arithmetic; float64 rounding moves the end of it by this.
EQUIVARIANT = 1e-9


def _objective(problem):
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y))


@pytest.mark.parametrize("build", [linear, separable_convex, coupled_convex])
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_closed_forms(build, epsilon):
    problem, start, maximum = build()
    objective = _objective(problem)
    f0 = objective.value()
    found = adaptive_sharpness(objective, epsilon=epsilon, n_restarts=20, random_state=0)
    assert found.value == pytest.approx(100 * (maximum(epsilon * start.abs()) - f0) / (1 + f0), rel=1e-9)
    assert found.box_ratio == pytest.approx(1)
    assert objective.value(objective.theta0 + torch.from_numpy(found.argmax)) == found.f_max


def _relu_net(scale, seed=0):
    net = seeded_module(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), seed)
    with torch.no_grad():
        net[0].weight *= scale
        net[0].bias *= scale
        net[2].weight /= scale
    return net, nn.CrossEntropyLoss(), *vectors()


@pytest.mark.parametrize("solver", ["auto", "power"])
@pytest.mark.parametrize("scale", [0.25, 3.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_rescaled_layers_change_metric_21_and_not_this(solver, scale, seed):
    plain, rescaled = (_objective(_relu_net(s, seed)) for s in (1.0, scale))
    assert rescaled.value() == pytest.approx(plain.value(), rel=1e-12)
    options = {"epsilon": [0.01, 0.1], "solver": solver, "random_state": 0}
    for one, other in zip(adaptive_sharpness(plain, **options), adaptive_sharpness(rescaled, **options), strict=True):
        assert one.value > 0.01
        assert other.value == pytest.approx(one.value, rel=EQUIVARIANT)
    one, other = (sharpness(f, epsilon=0.01, solver=solver, random_state=0).value for f in (plain, rescaled))
    assert abs(other / one - 1) > 0.1


@pytest.mark.parametrize("name", PROBLEMS)
def test_smaller_than_metric_21_whose_box_contains_this_one(name):
    module, criterion, X, y = PROBLEMS[name]()
    small, large = (f((module, criterion), X, y, epsilon=0.01, random_state=0) for f in (adaptive_sharpness, sharpness))
    assert 0 < small.value < large.value
    assert small.box_ratio <= 1 + 1e-9
    assert str(small).startswith("adaptive sharpness ")
    assert str(large).startswith("sharpness ")


def test_weights_at_zero_do_not_move():
    module, criterion, X, y = PROBLEMS["tanh"]()
    with torch.no_grad():
        module[0].bias.zero_()
    found = adaptive_sharpness((module, criterion), X, y, epsilon=0.1)
    n_weights = module[0].weight.numel()
    np.testing.assert_array_equal(found.argmax[n_weights : n_weights + len(module[0].bias)], 0)
    assert np.isfinite(found.box_ratio)
    # Not counted among those at the bounds either.
    assert found.fraction_at_bound == 1


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_stays_and_values_repeat(name, dtype):
    module, criterion, X, y = PROBLEMS[name]()
    before = copy.deepcopy(module.state_dict())
    first, second = (
        adaptive_sharpness((module, criterion), X, y, chunk_size=7, dtype=dtype, n_restarts=1, random_state=3)
        for _ in range(2)
    )
    assert first.value == second.value > 0
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_bad_input():
    objective = _objective(PROBLEMS["tanh"]())
    for bad in ({"epsilon": 0}, {"solver": "newton"}, {"max_iter": 0}, {"n_restarts": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
            adaptive_sharpness(objective, **bad)
    with pytest.raises(ValueError, match="must not be an Objective that is restricted"):
        adaptive_sharpness(
            objective.restrict(random_subspace(objective.theta0, 3, "gaussian", np.random.RandomState(0)))
        )
    with pytest.raises(TypeError, match="subspace_dim"):
        adaptive_sharpness(objective, subspace_dim=3)
    net = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(net.weight)
    with pytest.raises(ValueError, match="must not all be zero"):
        adaptive_sharpness((net, nn.CrossEntropyLoss()), torch.eye(2), torch.tensor([0, 1]))
