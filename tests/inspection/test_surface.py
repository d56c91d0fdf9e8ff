import dataclasses

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap.inspection import LossSurface, loss_along_line, loss_on_plane
from sklgap.objective import Objective, random_subspace
from tests.cases import (
    DOUBLE,
    FOUR_CHUNKS,
    POLICIES,
    PROBLEMS,
    no_global_random_numbers,
    seeded_module,
)
from tests.landscapes import Landscape, landscape, mean_output, separable_convex, vector
from tests.tiny import blobs, small

GRID = {"alphas": [-1.0, 0.0, 0.5, 1.0], "betas": [0.0, 1.0, 2.0]}


@pytest.fixture(scope="module")
def models():
    X, y = blobs(60)
    settings = ({"batch_regime": 10}, {"batch_regime": 60}, {"batch_regime": 10, "random_state": 1})
    return *(small(**kwargs).fit(X, y) for kwargs in settings), X, y


def _objective(model, X, y, **kwargs):
    return Objective(model.module_, nn.CrossEntropyLoss(), (X, torch.from_numpy(y)), **kwargs)


def _problem(name, **kwargs):
    module, criterion, X, y = PROBLEMS[name]()
    return Objective(module, criterion, (X, y), **kwargs)


def _three(seed=0, n=6):
    """A quadratic, and three solutions on it as pairs, data and parameters."""
    (module, criterion, X, y), *_ = separable_convex(n, seed)
    thetas = [vector(n, 10 * seed + i, -2, 2) for i in range(3)]
    return module.function, [(landscape(module.function, theta)[0], criterion) for theta in thetas], (X, y), thetas


# -- through solutions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_through_three_solutions(seed):
    f, (one, *others), data, (o, s, t) = _three(seed)
    surface = loss_on_plane(one, *data, towards=tuple(others), **GRID)
    expected = [[f(o + a * (s - o) + b * (t - o)).item() for b in GRID["betas"]] for a in GRID["alphas"]]
    np.testing.assert_allclose(surface.loss, expected, **DOUBLE)
    assert surface.loss.shape == surface.accuracy.shape == (4, 3)
    assert np.isnan(surface.accuracy).all()  # not a classification
    assert surface.directions == ("towards", "towards")
    assert surface.positions.tolist() == [[0, 0], [1, 0], [0, 1]]
    u, v = s - o, t - o
    assert surface.norms == pytest.approx((u.norm().item(), v.norm().item()))
    assert surface.cosine == pytest.approx((u @ v / u.norm() / v.norm()).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_models_are_on_the_plane_bit_for_bit(models, policy, dtype):
    *three, X, y = models
    options = {"batch_norm": policy, "chunk_size": 25, "dtype": dtype}
    surface = loss_on_plane(three[0], X, y, towards=three[1:], alphas=[-0.5, 0, 1], betas=[1, 0], **options)
    objective = _objective(three[0], X, y, **options)
    for model, (i, j) in zip(three, ((1, 1), (2, 1), (1, 0)), strict=True):
        # The buffers are those of the estimator.
        expected = objective.evaluate(_objective(model, X, y, dtype=dtype).theta0)
        assert (surface.loss[i, j], surface.accuracy[i, j]) == expected
    assert (surface.batch_norm, surface.n_samples) == (policy, 60)
    assert len(np.unique(surface.loss)) == 6


def test_an_edge_is_the_line_between_two_solutions(models):
    *three, X, y = models
    alphas = np.linspace(-1, 2, 5)
    options = {"dtype": torch.float64, "batch_norm": "population"}
    surface = loss_on_plane(three[0], X, y, towards=three[1:], alphas=alphas, betas=[0], **options)
    line = loss_along_line(three[0], three[1], X, y, alphas=alphas, **options)
    np.testing.assert_allclose(surface.loss[:, 0], line.loss, rtol=1e-9)
    np.testing.assert_array_equal(surface.accuracy[:, 0], line.accuracy)
    surface = loss_on_plane(three[0], X, y, towards=three[:0:-1], alphas=[0], betas=alphas, **options)
    np.testing.assert_allclose(surface.loss[0], line.loss, rtol=1e-9)


def test_towards_one_solution_the_other_direction_is_random():
    f, (one, second, _), data, (o, s, _) = _three()
    surface = loss_on_plane(one, *data, towards=(second,), directions="gaussian", random_state=0, **GRID)
    assert surface.directions == ("towards", "gaussian")
    assert surface.positions.tolist() == [[0, 0], [1, 0]]
    assert surface.norms == pytest.approx(((s - o).norm().item(), o.norm().item()))
    np.testing.assert_allclose(surface.loss[:, 0], [f(o + a * (s - o)).item() for a in GRID["alphas"]], **DOUBLE)


def test_the_default_grid_holds_the_models():
    _, (one, *others), data, _ = _three()
    through, around = loss_on_plane(one, *data, towards=others), loss_on_plane(one, *data, directions="gaussian")
    for surface, low, high in ((through, -0.5, 1.5), (around, -1, 1)):
        assert surface.loss.shape == (21, 21)
        for axis in (surface.alphas, surface.betas):
            assert (axis[0], axis[-1]) == (low, high)
            np.testing.assert_allclose(np.diff(axis), 0.1)
        assert all(a in surface.alphas and b in surface.betas for a, b in surface.positions)


def test_a_grid_is_taken_as_given():
    _, (one, *others), data, _ = _three()
    surface = loss_on_plane(one, *data, towards=others, alphas=(3, -1, 3), betas=np.float32([0.25]))
    assert surface.alphas.tolist() == [3, -1, 3]
    assert surface.betas.tolist() == [0.25]
    assert surface.loss[0] == surface.loss[2] != surface.loss[1]


# -- random directions ------------------------------------------------------------------------------------------------


class _Recorder(nn.Module):
    """A net that keeps the parameters of each of its forward passes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.batch_norm = nn.BatchNorm2d(3)
        self.dense = nn.Linear(3, 4)
        self.seen = []

    def forward(self, X):
        self.seen.append({name: p.detach().clone() for name, p in self.named_parameters()})
        return self.dense(self.batch_norm(self.conv(X)).mean(dim=(2, 3)))

    def __deepcopy__(self, memo):
        copy = _Recorder().to(self.dense.weight.dtype)
        copy.load_state_dict(self.state_dict())
        copy.seen = self.seen
        return copy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filter_directions_have_the_models_norms_filter_by_filter(dtype):
    net = seeded_module(_Recorder).to(dtype)
    X, y = torch.randn(9, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype), torch.arange(9) % 4
    loss_on_plane((net, nn.CrossEntropyLoss()), X, y, alphas=[0, 1], betas=[0, 1], random_state=0)
    centre, v, u, both = net.seen
    own = dict(net.named_parameters())
    for name, w in own.items():
        assert torch.equal(centre[name], w)
        du, dv = u[name] - w, v[name] - w
        if w.ndim == 1:
            assert torch.equal(u[name], w)
            assert torch.equal(v[name], w)
            continue
        for d in (du, dv):
            norms, expected = d.flatten(1).norm(dim=1), w.detach().flatten(1).norm(dim=1)
            torch.testing.assert_close(norms, expected, rtol=1e-5, atol=0)
            assert d.unique().numel() == d.numel()
        torch.testing.assert_close(both[name], w + du + dv, rtol=1e-5, atol=1e-6)
    flat = [torch.cat([(z[name] - w).flatten() for name, w in own.items()]) for z in (u, v)]
    cosine = (flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    # Independent directions in the 36 numbers of the two weights: a standard deviation of about 1 / 6.
    assert abs(cosine) < 0.5


def test_gaussian_directions_have_the_norm_of_the_whole_vector():
    start = vector(2000, 0)
    problem = landscape(lambda theta: (theta - start) @ (theta - start), start)
    surface = loss_on_plane(problem[:2], *problem[2:], directions="gaussian", alphas=[-1, 0, 1], betas=[-1, 0, 1])
    squared = start.norm().item() ** 2
    assert surface.norms == pytest.approx((squared**0.5, squared**0.5))
    # On this landscape f is the squared length of alpha u + beta v.
    cross = 2 * surface.cosine
    expected = squared * np.array([[a * a + b * b + a * b * cross for b in (-1, 0, 1)] for a in (-1, 0, 1)])
    np.testing.assert_allclose(surface.loss, expected, rtol=1e-6, atol=1e-9)
    assert abs(surface.cosine) < 5 / 2000**0.5  # five standard errors
    assert surface.loss[1, 1] == 0
    assert (surface.directions, surface.positions.tolist()) == (("gaussian", "gaussian"), [[0, 0]])


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("directions", ["filter", "gaussian"])
def test_the_centre_is_the_model_on_every_problem(name, directions):
    objective = _problem(name, chunk_size=FOUR_CHUNKS)
    surface = loss_on_plane(objective, directions=directions, alphas=[0, 1], betas=[-1, 0], random_state=0)
    assert (surface.loss[0, 1], surface.accuracy[0, 1]) == objective.evaluate()
    assert surface.directions == (directions, directions)
    assert len(np.unique(surface.loss)) == 4


def test_directions_do_not_depend_on_the_rows_and_repeat(models):
    sb, *_, X, y = models
    options = {"alphas": [0, 0.5], "betas": [0, 0.5], "dtype": torch.float64}
    with no_global_random_numbers():
        whole = loss_on_plane(sb, X, y, random_state=3, **options)
        part = loss_on_plane(sb, X, y, max_samples=20, random_state=3, **options)
        again = loss_on_plane(sb, X, y, max_samples=20, random_state=3, **options)
        other = loss_on_plane(sb, X, y, max_samples=20, random_state=4, **options)
    assert (part.n_samples, whole.n_samples) == (20, 60)
    np.testing.assert_array_equal(again.loss, part.loss)
    assert part.cosine == whole.cosine != other.cosine
    # The rows are those that every function of this package draws from the seed.
    line = loss_along_line(sb, sb, X, y, alphas=[0], max_samples=20, random_state=3, dtype=torch.float64)
    assert part.loss[0, 0] == line.loss[0]


def test_a_random_state_object_goes_on_and_none_is_never_the_same(models):
    sb, *_, X, y = models
    rng = np.random.RandomState(0)
    cosines = {loss_on_plane(sb, X, y, alphas=[0], betas=[0], random_state=state).cosine for state in (rng, rng, None)}
    assert len(cosines) == 3
    again = loss_on_plane(sb, X, y, alphas=[0], betas=[0], random_state=np.random.RandomState(0))
    assert again.cosine in cosines


def test_single_and_double_precision_agree(models):
    sb, *_, X, y = models
    single, double = (
        loss_on_plane(sb, X, y, alphas=[-0.5, 0], betas=[0, 0.5], dtype=dtype, random_state=0)
        for dtype in (torch.float32, torch.float64)
    )
    np.testing.assert_allclose(single.loss, double.loss, rtol=1e-4)


def test_estimators_and_pipelines(models):
    sb, *_, X, y = models
    options = {"alphas": [-0.5, 0], "betas": [0, 0.5], "random_state": 0}
    expected = loss_on_plane(_objective(sb, X, y), **options)
    np.testing.assert_array_equal(loss_on_plane(sb, X, y, **options).loss, expected.loss)
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, y)
    expected = loss_on_plane(pipeline[-1], pipeline[0].transform(X), y, **options)
    np.testing.assert_array_equal(loss_on_plane(pipeline, X, y, **options).loss, expected.loss)


def test_the_models_are_left_as_they_were(models):
    *three, X, y = models
    before = [{k: v.clone() for k, v in model.module_.state_dict().items()} for model in three]
    training = [model.module_.training for model in three]
    loss_on_plane(three[0], X, y, towards=three[1:], batch_norm="population", alphas=[0.5], betas=[0.5])
    for model, state in zip(three, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.module_.state_dict().items())
    assert [model.module_.training for model in three] == training


# -- what can go wrong ------------------------------------------------------------------------------------------------


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
    objective = _problem("tanh")
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
    _, solutions, data, _ = _three()
    with torch.no_grad():
        solutions[broken][0].theta[0] = torch.nan
    with pytest.raises(ValueError) as caught:
        loss_on_plane(solutions[0], *data, towards=solutions[1:], **GRID)
    assert str(caught.value) == f"The loss must be finite at the models; it is nan at (alpha, beta) = {point}."


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", [0.3, -2.0, 1.0])
def test_three_solutions_on_one_line(where, dtype):
    _, (one, second, third), data, (o, s, _) = _three()
    with torch.no_grad():
        third[0].theta.copy_(torch.lerp(o, s, where))
    with pytest.raises(ValueError, match="The directions of the plane must not be parallel; estimator and the solutio"):
        loss_on_plane(one, *data, towards=(second, third), dtype=dtype)


def test_almost_one_line_is_a_plane():
    _, (one, second, third), data, (o, s, t) = _three()
    with torch.no_grad():
        third[0].theta.copy_(torch.lerp(o, s, 0.5) + 1e-3 * (t - o))
    surface = loss_on_plane(one, *data, towards=(second, third), **GRID)
    assert 0.99 < surface.cosine < 1


def test_directions_of_no_length():
    _, (one, second, _), data, _ = _three()
    with pytest.raises(ValueError, match="must not be zero; their lengths are 0 and "):
        loss_on_plane(one, *data, towards=(one, second))
    # A landscape has one parameter of one dimension.
    with pytest.raises(ValueError, match=r"must not be zero; their lengths are 0 and 0 .*'filter' does not move"):
        loss_on_plane(one, *data)


def test_one_parameter_makes_no_plane():
    problem = landscape(torch.sum, [1.0])
    with pytest.raises(ValueError, match="estimator must have at least two parameters to lie on a plane; it has 1"):
        loss_on_plane(problem[:2], *problem[2:], directions="gaussian")


def test_another_architecture(models):
    sb, lb, _, X, y = models
    other = small(module__width=5).fit(X, y)
    with pytest.raises(ValueError, match="estimator and towards must have the same architecture"):
        loss_on_plane(sb, X, y, towards=(lb, other))


@pytest.mark.parametrize("towards", ["SB", (), (1, 2, 3), nn.Linear(1, 1)], ids=str)
def test_bad_towards(towards):
    with pytest.raises(TypeError, match="towards must be None or a tuple of one or two other solutions, such as"):
        loss_on_plane(_problem("tanh"), towards=towards)


@pytest.mark.parametrize("directions", ["random", None])
def test_bad_directions(directions):
    with pytest.raises(ValueError, match=f"directions must be one of 'filter', 'gaussian'; got {directions!r}"):
        loss_on_plane(_problem("tanh"), directions=directions)


@pytest.mark.parametrize("axis", ["alphas", "betas"])
@pytest.mark.parametrize("values", [[], 0.5, [np.nan], [[0, 1]]], ids=str)
def test_bad_grids(axis, values):
    with pytest.raises(ValueError, match=f"{axis} must be a sequence of finite numbers; got"):
        loss_on_plane(_problem("tanh"), **{axis: values})


def test_an_objective_in_a_subspace():
    full = _problem("tanh")
    restricted = full.restrict(random_subspace(full.theta0, 3))
    with pytest.raises(TypeError, match="estimator and towards must be in the full space"):
        loss_on_plane(restricted)


def test_data_are_needed(models):
    sb, lb, _, X, y = models
    with pytest.raises(TypeError, match="X and y must be given"):
        loss_on_plane(sb)
    with pytest.raises(TypeError, match="X and y must be given unless estimator and towards are all Objectives"):
        loss_on_plane(_objective(sb, X, y), towards=(lb,))


# -- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress(verbose, capsys):
    loss_on_plane(_problem("tanh"), alphas=[0, 1], betas=[0, 1, 2], verbose=verbose)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("6/6" in err) == bool(verbose)


def test_interrupted(capsys):
    calls = []

    def criterion(y_pred, y):
        calls.append(len(y))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(y_pred, y)

    module, _, X, y = PROBLEMS["batch_norm"]()
    objective = Objective(module, criterion, (X, y))
    with pytest.raises(KeyboardInterrupt):
        loss_on_plane(objective, alphas=[0, 1], betas=[0, 1], verbose=1, random_state=0)
    assert "2/4" in capsys.readouterr().err
    # The objective can be used on.
    again = loss_on_plane(objective, alphas=[0, 1], betas=[0, 1], random_state=0)
    expected = loss_on_plane(_problem("batch_norm"), alphas=[0, 1], betas=[0, 1], random_state=0)
    np.testing.assert_allclose(again.loss, expected.loss, **DOUBLE)


def test_evaluates_in_row_order_after_the_model():
    points = []

    def function(theta):
        points.append(tuple(theta.tolist()))
        return theta.sum()

    data = torch.zeros(3, 1), torch.zeros(3, 1)
    solutions = [(Landscape(function, theta), mean_output) for theta in ([0.0, 0], [1.0, 0], [0.0, 1])]
    loss_on_plane(solutions[0], *data, towards=solutions[1:], alphas=[-1, 0, 2], betas=[-1, 0])
    assert points == [(0, 0), (-1, -1), (-1, 0), (0, -1), (2, -1), (2, 0)]


def test_the_record():
    surface = loss_on_plane(_problem("tanh"), alphas=[0, 1], betas=[-0.5, 0, 1], random_state=0)
    assert isinstance(surface, LossSurface)
    assert str(surface) == (
        "loss at 2 x 3 points, alpha from 0 to 1 and beta from -0.5 to 1 (directions: filter, filter): "
        f"{surface.loss.min():.4g} to {surface.loss.max():.4g} (23 rows, batch norm: batch)"
    )
    assert "array" not in repr(surface)
    with pytest.raises(dataclasses.FrozenInstanceError):
        surface.loss = None
