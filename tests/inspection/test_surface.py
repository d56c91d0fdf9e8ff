import dataclasses

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap.inspection import LossSurface, loss_along_line, loss_on_plane
from sklgap.objective import Objective
from tests.cases import DOUBLE, FOUR_CHUNKS, POLICIES, PROBLEMS, no_global_random_numbers, seeded_module
from tests.inspection.planes import GRID, objective_of, objective_of_model, three_models, three_solutions
from tests.landscapes import Landscape, landscape, mean_output, vector
from tests.tiny import small


@pytest.fixture
def models():
    return three_models()


# -- through solutions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_through_three_solutions(seed):
    f, (one, *others), data, (o, s, t) = three_solutions(seed)
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
    objective = objective_of_model(three[0], X, y, **options)
    for model, (i, j) in zip(three, ((1, 1), (2, 1), (1, 0)), strict=True):
        # The buffers are those of the estimator.
        expected = objective.evaluate(objective_of_model(model, X, y, dtype=dtype).theta0)
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
    f, (one, second, _), data, (o, s, _) = three_solutions()
    surface = loss_on_plane(one, *data, towards=(second,), directions="gaussian", random_state=0, **GRID)
    assert surface.directions == ("towards", "gaussian")
    assert surface.positions.tolist() == [[0, 0], [1, 0]]
    assert surface.norms == pytest.approx(((s - o).norm().item(), o.norm().item()))
    np.testing.assert_allclose(surface.loss[:, 0], [f(o + a * (s - o)).item() for a in GRID["alphas"]], **DOUBLE)


def test_the_default_grid_holds_the_models():
    _, (one, *others), data, _ = three_solutions()
    through, around = loss_on_plane(one, *data, towards=others), loss_on_plane(one, *data, directions="gaussian")
    for surface, low, high in ((through, -0.5, 1.5), (around, -1, 1)):
        assert surface.loss.shape == (21, 21)
        for axis in (surface.alphas, surface.betas):
            assert (axis[0], axis[-1]) == (low, high)
            np.testing.assert_allclose(np.diff(axis), 0.1)
        assert all(a in surface.alphas and b in surface.betas for a, b in surface.positions)


def test_a_grid_is_taken_as_given():
    _, (one, *others), data, _ = three_solutions()
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
    loss_on_plane((net, nn.CrossEntropyLoss()), X, y, alphas=[0, 1], betas=[0, 1], random_state=0, check=False)
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
    objective = objective_of(name, chunk_size=FOUR_CHUNKS)
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
    expected = loss_on_plane(objective_of_model(sb, X, y), **options)
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


# -- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress(verbose, capsys):
    loss_on_plane(objective_of("tanh"), alphas=[0, 1], betas=[0, 1, 2], verbose=verbose)
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
    objective = Objective(module, criterion, (X, y), check=False)
    with pytest.raises(KeyboardInterrupt):
        loss_on_plane(objective, alphas=[0, 1], betas=[0, 1], verbose=1, random_state=0)
    assert "2/4" in capsys.readouterr().err
    # The objective can be used on.
    again = loss_on_plane(objective, alphas=[0, 1], betas=[0, 1], random_state=0)
    expected = loss_on_plane(objective_of("batch_norm"), alphas=[0, 1], betas=[0, 1], random_state=0)
    np.testing.assert_allclose(again.loss, expected.loss, **DOUBLE)


def test_evaluates_in_row_order_after_the_model():
    points = []

    def function(theta):
        points.append(tuple(theta.tolist()))
        return theta.sum()

    data = torch.zeros(3, 1), torch.zeros(3, 1)
    solutions = [(Landscape(function, theta), mean_output) for theta in ([0.0, 0], [1.0, 0], [0.0, 1])]
    loss_on_plane(solutions[0], *data, towards=solutions[1:], alphas=[-1, 0, 2], betas=[-1, 0], check=False)
    assert points == [(0, 0), (-1, -1), (-1, 0), (0, -1), (2, -1), (2, 0)]


def test_the_record():
    surface = loss_on_plane(objective_of("tanh"), alphas=[0, 1], betas=[-0.5, 0, 1], random_state=0)
    assert isinstance(surface, LossSurface)
    assert str(surface) == (
        f"loss from {surface.loss.min():.4g} to {surface.loss.max():.4g} at 2 x 3 points of a plane, "
        "alpha from 0 to 1 and beta from -0.5 to 1 (directions: filter, filter; 23 samples, batch norm: batch)"
    )
    assert "array" not in repr(surface)
    with pytest.raises(dataclasses.FrozenInstanceError):
        surface.loss = None
