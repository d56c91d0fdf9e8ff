"""What can go wrong on a plane."""

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import loss_on_plane
from sklgap.objective import Objective, random_subspace
from tests.inspection.planes import GRID, objective_of, objective_of_model, three_models, three_solutions
from tests.landscapes import Landscape, landscape, mean_output
from tests.tiny import small


@pytest.fixture
def models():
    return three_models()


def _infinite_outside(theta):
    return torch.where(theta.abs().max() > 1, torch.inf, theta.sum())


def test_losses_that_are_not_finite_are_kept_with_a_warning():
    solutions = [(Landscape(_infinite_outside, theta), mean_output) for theta in ([0.0, 0], [1.0, 0], [0.0, 1])]
    data = torch.zeros(3, 1), torch.zeros(3, 1)
    message = r"not finite at 3 of 4 points: \(alpha, beta\) = \(0, 2\), \(1.5, 0\), \(1.5, 2\)\.$"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        surface = loss_on_plane(solutions[0], *data, towards=solutions[1:], alphas=[0, 1.5], betas=[0, 2])
    assert surface.loss.tolist() == [[0, np.inf], [np.inf, np.inf]]
    assert caught[0].filename == __file__


def test_accuracy_is_nan_where_the_loss_is():
    objective = objective_of("tanh")
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="not finite at 1 of 2 points"):
        surface = loss_on_plane(_NotANumber(objective), alphas=[0, 1], betas=[0], random_state=0)
    assert np.isnan(surface.loss[:, 0]).tolist() == np.isnan(surface.accuracy[:, 0]).tolist() == [False, True]


class _NotANumber(Objective):
    """An objective whose loss is NaN everywhere but at the model."""

    def __init__(self, objective):
        self.__dict__ = objective.__dict__

    def evaluate(self, theta=None):
        at_model = torch.equal(theta, self.theta0)
        return super().evaluate(theta)._replace(**({} if at_model else {"loss": np.nan}))


@pytest.mark.parametrize(("broken", "point"), [(0, "(0, 0)"), (1, "(1, 0)"), (2, "(0, 1)")])
def test_a_model_whose_loss_is_not_finite(broken, point):
    _, solutions, data, _ = three_solutions()
    with torch.no_grad():
        solutions[broken][0].theta[0] = torch.nan
    with pytest.raises(ValueError) as caught:
        loss_on_plane(solutions[0], *data, towards=solutions[1:], **GRID)
    assert str(caught.value) == f"The loss must be finite at the models; it is nan at (alpha, beta) = {point}."


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", [0.3, -2.0, 1.0])
def test_three_solutions_on_one_line(where, dtype):
    _, (one, second, third), data, (o, s, _) = three_solutions()
    with torch.no_grad():
        third[0].theta.copy_(torch.lerp(o, s, where))
    with pytest.raises(ValueError, match="The directions of the plane must not be parallel; estimator and the solutio"):
        loss_on_plane(one, *data, towards=(second, third), dtype=dtype)


def test_almost_one_line_is_a_plane():
    _, (one, second, third), data, (o, s, t) = three_solutions()
    with torch.no_grad():
        third[0].theta.copy_(torch.lerp(o, s, 0.5) + 1e-3 * (t - o))
    surface = loss_on_plane(one, *data, towards=(second, third), **GRID)
    assert 0.99 < surface.cosine < 1


def test_directions_of_no_length():
    _, (one, second, _), data, _ = three_solutions()
    with pytest.raises(ValueError, match="must not be zero; their lengths are 0 and "):
        loss_on_plane(one, *data, towards=(one, second))
    # A landscape has one parameter of one dimension.
    with pytest.raises(ValueError, match=r"must not be zero; their lengths are 0 and 0 .*'filter' does not move"):
        loss_on_plane(one, *data)


def test_one_parameter_makes_no_plane():
    problem = landscape(torch.sum, [1.0])
    with pytest.raises(ValueError, match="estimator must have at least two parameters to define a plane; it has 1"):
        loss_on_plane(problem[:2], *problem[2:], directions="gaussian")


def test_another_architecture(models):
    sb, lb, _, X, y = models
    other = small(module__width=5).fit(X, y)
    with pytest.raises(ValueError, match="estimator and towards must have the same architecture"):
        loss_on_plane(sb, X, y, towards=(lb, other))


@pytest.mark.parametrize("towards", ["SB", (), (1, 2, 3), nn.Linear(1, 1)], ids=str)
def test_bad_towards(towards):
    with pytest.raises(TypeError, match="towards must be None or a tuple of one or two other solutions, such as"):
        loss_on_plane(objective_of("tanh"), towards=towards)


@pytest.mark.parametrize("directions", ["random", None])
def test_bad_directions(directions):
    with pytest.raises(ValueError, match=f"directions must be one of 'filter', 'gaussian'; got {directions!r}"):
        loss_on_plane(objective_of("tanh"), directions=directions)


@pytest.mark.parametrize("axis", ["alphas", "betas"])
@pytest.mark.parametrize("values", [[], 0.5, [np.nan], [[0, 1]]], ids=str)
def test_bad_grids(axis, values):
    with pytest.raises(ValueError, match=f"{axis} must be a sequence of finite numbers; got"):
        loss_on_plane(objective_of("tanh"), **{axis: values})


def test_an_objective_in_a_subspace():
    full = objective_of("tanh")
    restricted = full.restrict(random_subspace(full.theta0, 3))
    with pytest.raises(TypeError, match="estimator and towards must be in the full space"):
        loss_on_plane(restricted)


def test_data_are_needed(models):
    sb, lb, _, X, y = models
    with pytest.raises(TypeError, match="X and y must be given"):
        loss_on_plane(sb)
    with pytest.raises(TypeError, match="X and y must be given unless estimator and towards are all Objectives"):
        loss_on_plane(objective_of_model(sb, X, y), towards=(lb,))
