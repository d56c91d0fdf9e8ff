from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection._ascent import VertexAscent, annealed_vertex, flip_coordinates, flip_weakest
from sklgap.inspection._maximizers import Points
from sklgap.objective import Objective
from tests.cases import DOUBLE
from tests.landscapes import box, coupled_convex, landscape, linear, vector


def quadratic(n, seed, kind="convex"):
    """Points of f(y) = y H y / 2 + g y over the box [-1, 1]^n; with H and g."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n))
    matrix = {"convex": root @ root.T / n, "indefinite": (root + root.T) / 2, "rank one": np.outer(root[0], root[0])}
    H, g = (torch.from_numpy(a) for a in (matrix[kind], rng.standard_normal(n)))
    problem = landscape(lambda theta: theta @ H @ theta / 2 + g @ theta, torch.zeros(n, dtype=torch.float64))
    module, criterion, X, y = problem
    return Points(Objective(module, criterion, (X, y)), torch.ones(n, dtype=torch.float64)), H, g


def value(H, g, y):
    return float(y @ H @ y / 2 + g @ y)


@pytest.mark.parametrize("kind", ["convex", "indefinite"])
@pytest.mark.parametrize("seed", range(3))
def test_an_ascent_is_its_formula(kind, seed):
    points, H, g = quadratic(30, seed, kind)
    y = vector(30, seed).sign()
    ascent = VertexAscent(points, y)
    momentum, best = torch.zeros(30, dtype=torch.float64), -np.inf
    for _ in range(7):
        ascent.climb(1)
        best = max(best, value(H, g, y))
        momentum = momentum / 2 + H @ y + g
        torch.testing.assert_close(ascent.momentum, momentum, **DOUBLE)
        if torch.equal(momentum.sign(), y):
            assert ascent.ended
            break
        y = momentum.sign()
        torch.testing.assert_close(ascent.offset, y, **DOUBLE)
    assert ascent.f_max == pytest.approx(best, rel=1e-12)
    torch.testing.assert_close(ascent.slope, H @ ascent.argmax + g, **DOUBLE)


def test_an_ascent_goes_on_where_it_stopped():
    points, *_ = quadratic(30, 0, "indefinite")
    start = vector(30, 1).sign()
    whole, parts = VertexAscent(points, start), VertexAscent(points, start)
    whole.climb(9)
    for steps in (2, 0, 4, 3):
        parts.climb(steps)
    assert whole.f_max == parts.f_max
    torch.testing.assert_close(whole.offset, parts.offset, **DOUBLE)


def test_an_ascent_ends_at_a_vertex_that_points_to_itself():
    module, criterion, X, y = linear()[0]
    objective = Objective(module, criterion, (X, y))
    points = Points(objective, box(objective.theta0, 0.1))
    ascent = VertexAscent(points, torch.zeros_like(points.bounds))
    ascent.climb(50)
    assert ascent.ended
    assert points.n_evaluations == 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("without", [False, True])
def test_annealing_is_its_formula(seed, without):
    n, steps = 20, 9
    points, H, g = quadratic(n, seed)
    found = annealed_vertex(
        points, steps, torch.Generator().manual_seed(seed), **({"without": g.clone()} if without else {})
    )
    noise = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    soft = 0.02 * noise
    for k in range(steps):
        force = H @ soft + (0 if without else g)
        beta = 0.3 * (10 / 0.3) ** (k / (steps - 1))
        soft = 0.3 * soft + 0.7 * torch.tanh(beta * force / (force**2).mean().sqrt())
    torch.testing.assert_close(found, soft.sign(), **DOUBLE)
    assert points.n_evaluations == steps


@pytest.mark.parametrize("seed", range(5))
def test_annealing_finds_the_maximum_of_a_quadratic_of_rank_one(seed):
    v = vector(40, seed)
    H, g = torch.outer(v, v), torch.zeros(40, dtype=torch.float64)
    module, criterion, X, y = landscape(lambda theta: theta @ H @ theta / 2, g)
    points = Points(Objective(module, criterion, (X, y)), torch.ones(40, dtype=torch.float64))
    vertex = annealed_vertex(points, 8, torch.Generator().manual_seed(0))
    # H = v v': the vertex of the signs of v, and its opposite.
    assert value(H, g, vertex) == pytest.approx(float(v.abs().sum() ** 2 / 2), rel=1e-12)


def test_annealing_beats_the_gradients_vertex_on_many_small_blocks():
    """80 blocks of 12 dimensions: an ascent ends in a local maximum of most blocks."""
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((80, 12, 12))
    H, g = torch.from_numpy(roots @ roots.transpose(0, 2, 1) / 12), torch.from_numpy(rng.standard_normal((80, 12)))

    def function(theta):
        y = theta.view(80, 12)
        return (torch.einsum("ki,kij,kj->", y, H, y) / 2 + (g * y).sum())[None]

    signs = torch.tensor(list(product((-1.0, 1.0), repeat=12)), dtype=torch.float64)
    best = float(
        sum((torch.einsum("vi,ij,vj->v", signs, h, signs) / 2 + signs @ q).max() for h, q in zip(H, g, strict=True))
    )
    module, criterion, X, y = landscape(function, torch.zeros(960, dtype=torch.float64))
    points = Points(Objective(module, criterion, (X, y)), torch.ones(960, dtype=torch.float64))
    plain = VertexAscent(points, g.flatten().sign())
    plain.climb(30)
    annealed = VertexAscent(points, annealed_vertex(points, 20, torch.Generator().manual_seed(0)))
    annealed.climb(6)
    assert plain.f_max < 0.88 * best
    assert annealed.f_max > 0.96 * best


# -- flips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_flipped", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_no_flip_is_left_that_raises_f(n_flipped, seed):
    points, H, g = quadratic(8, seed, "indefinite")
    ascent = VertexAscent(points, vector(8, seed).sign())
    ascent.climb(1)
    before = ascent.f_max
    flip_coordinates(ascent, n_flipped)
    assert ascent.f_max >= before
    for chosen in combinations(range(8), n_flipped):
        other = ascent.argmax.clone()
        other[list(chosen)] *= -1
        assert value(H, g, other) <= ascent.f_max + 1e-12


def test_flips_say_whether_one_helped():
    points, _, g = quadratic(6, 0)
    ascent = VertexAscent(points, -g.sign())
    ascent.climb(1)
    assert flip_coordinates(ascent, 1)
    assert not flip_coordinates(ascent, 1)


def test_coordinates_that_cannot_move_are_not_flipped():
    points, *_ = quadratic(6, 0)
    points.bounds[2:] = 0
    ascent = VertexAscent(points, points.bounds.clone())
    ascent.climb(1)
    n_before = points.n_evaluations
    flip_coordinates(ascent, 1)
    assert not ascent.argmax[2:].any()
    assert points.n_evaluations - n_before <= 3 * 2


def test_the_weakest_coordinates_are_flipped(monkeypatch):
    problem, start, _ = coupled_convex()
    module, criterion, X, y = problem
    points = Points(Objective(module, criterion, (X, y)), box(start, 0.1))
    ascent = VertexAscent(points, points.bounds * vector(8, 3).sign())
    ascent.climb(1)
    gain = ascent.argmax * ascent.slope
    asked = []
    monkeypatch.setattr(points, "evaluate", lambda offset: asked.append(offset) or (-1.0, ascent.slope))
    flip_weakest(ascent, 0.25, 1)
    flipped = (asked[0] != ascent.argmax).nonzero().flatten().tolist()
    assert sorted(flipped) == sorted(gain.argsort()[:2].tolist())


# -- limited losses ----------------------------------------------------------------------------------------------------


def _classifier(weight=None, sample_weight=None):
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    criterion = nn.CrossEntropyLoss(weight=weight)
    return net, Objective(net, criterion, (X, y), sample_weight=sample_weight, chunk_size=7), X, y


@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("weighted", [False, True])
def test_limited_losses_against_autograd(class_weight, weighted):
    weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
    sample_weight = torch.rand(20, dtype=torch.float64) + 0.5 if weighted else None
    net, objective, X, y = _classifier(weight, sample_weight)
    plain = objective.gradient()
    with objective.using_loss(objective.loss.saturating(0.7)):
        found, gradient = objective.gradient()
    again = objective.gradient()
    counts = torch.ones(20, dtype=torch.float64) if weight is None else weight[y]
    counts = counts if sample_weight is None else counts * sample_weight
    losses = nn.functional.cross_entropy(net(X), y, reduction="none")
    expected = (counts * losses / (1 + losses / 0.7)).sum() / counts.sum()
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(expected, list(net.parameters()))])
    assert found == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, slope, **DOUBLE)
    assert again[0] == plain[0]
    torch.testing.assert_close(again[1], plain[1], rtol=0, atol=0)


def test_negative_losses_count_as_they_are():
    from sklgap.objective._row_loss import row_loss

    loss = row_loss(nn.L1Loss()).saturating(2.0)
    limited = loss.of_outputs(lambda y_pred: y_pred)
    assert float(limited.terms(torch.tensor([[6.0]]), torch.tensor([[0.0]]))[0]) == 6 / (1 + 6 / 2)
    signed = row_loss(nn.NLLLoss(reduction="mean")).saturating(2.0)
    assert float(signed.terms(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))[0]) == -3


def test_annealing_follows_the_limited_losses_where_they_are_known(monkeypatch):
    _, objective, *_ = _classifier()
    points = Points(objective, box(objective.theta0, 0.5))
    vertices = [
        annealed_vertex(points, 6, torch.Generator().manual_seed(0), saturation=scale) for scale in (None, 1e-3, 1e9)
    ]
    torch.testing.assert_close(vertices[0], vertices[2], rtol=0, atol=0)
    # The mean of limited losses is no value of f: only the six of the first call are.
    before = points.f_max
    annealed_vertex(points, 6, torch.Generator().manual_seed(0), saturation=1e9)
    assert points.f_max == before


def test_a_loss_of_which_only_the_mean_is_known_is_followed_as_it_is():
    module, criterion, X, y = linear()[0]  # a function: the losses of samples are not known
    objective = Objective(module, criterion, (X, y))
    with pytest.raises(TypeError, match="saturating"):
        objective.loss.saturating(1.0)
    points = Points(objective, box(objective.theta0, 0.1))
    vertex = annealed_vertex(points, 4, torch.Generator().manual_seed(0), saturation=1.0)
    assert points.f_max > objective.value()
    torch.testing.assert_close(vertex.abs(), points.bounds, **DOUBLE)


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-15])
def test_annealing_of_slopes_whose_squares_underflow(size):
    slope = torch.tensor([1.0, -2.0, 0.5, -1.0])
    module = nn.Linear(4, 1, bias=False)
    objective = Objective(module, lambda y_pred, y: (y_pred * size).sum(), (slope[None], torch.zeros(1, 1)))
    points = Points(objective, torch.ones(4))
    vertex = annealed_vertex(points, 8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(vertex, slope.sign(), rtol=0, atol=0)
    assert points.n_evaluations == 8
