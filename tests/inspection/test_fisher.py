import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import fisher_sharpness, fisher_trace
from sklgap.inspection._fisher import squared_gradients
from sklgap.inspection._fisher_sharpness import half_axes
from sklgap.objective import Objective
from tests.cases import WITH_BATCH_NORM
from tests.inspection.flat_nets import dense_fisher, dense_hessian, louder, relu_net, rescaled
from tests.landscapes import landscape, vector


@pytest.mark.parametrize("factor", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_diagonal_by_the_definition(factor, seed):
    pair, X, y = relu_net(seed=seed, n=8)
    pair = louder(pair, factor)
    exact, n = dense_fisher(pair, X).diagonal(), 500
    found, traces = squared_gradients(Objective(*pair, (X, y)), n, torch.Generator().manual_seed(0))
    # A squared sum of random signs times numbers has at most twice the squared mean as its variance.
    assert bool((found - exact).abs().le(5 * exact * (2 / n) ** 0.5 + 1e-12).all())
    assert abs(traces.mean() - exact.sum()) < 5 * traces.std() / n**0.5


def test_the_hessian_of_a_linear_model_is_the_fisher_matrix():
    """The cross entropy is convex in the logits, and a linear model adds no curvature of its own."""
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair, y = (nn.Linear(3, 4).double(), nn.CrossEntropyLoss()), torch.arange(20) % 4
    record = fisher_trace(pair, X, y, n_draws=500, random_state=0)
    assert abs(record.value - dense_hessian(pair, X, y).trace()) < 4 * record.standard_error
    assert record.n_gradients == pytest.approx(500 + 1 / 3)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_statistics_make_one_distribution_of_all_labels(name):
    """The Fisher matrix of the labels of all samples together, by the Jacobian of all logits."""
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    objective = Objective(module, criterion, (X, y))
    record = fisher_trace(objective, n_draws=400, random_state=0)
    reference = module.train()
    for layer in reference.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.0
    logits, params, total = reference(X), list(reference.parameters()), 0.0
    p = logits.softmax(dim=1).detach()
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(z, params, retain_graph=True)]) for z in logits.flatten()
    ]
    jacobian = torch.stack(rows).reshape(*logits.shape, -1)
    for i in range(len(X)):
        total += ((torch.diag(p[i]) - torch.outer(p[i], p[i])) @ jacobian[i] * jacobian[i]).sum()
    assert abs(record.value - float(total) / len(X)) < 4 * record.standard_error


def test_labels_do_not_matter():
    pair, X, y = relu_net()
    one, other = (fisher_trace(pair, X, labels, random_state=0).value for labels in (y, (y + 1) % 3))
    assert one == other


@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rho", [0.01, 0.1, 3.0])
def test_half_axes_by_the_definition(damping, rho):
    diagonal, theta = vector(7, 0, 0.1, 2), vector(7, 1, -3, 3)
    expected = rho / (diagonal + damping * rho**2 / theta**2).sqrt()
    assert torch.allclose(half_axes(diagonal, theta, rho, damping), expected, rtol=1e-12, atol=0)


def test_what_cannot_move():
    diagonal, theta = torch.tensor([0.0, 1.0, 0.0]).double(), torch.tensor([2.0, 0.0, 0.0]).double()
    assert half_axes(diagonal, theta, 0.1, 1.0).tolist() == [2.0, 0.0, 0.0]
    assert half_axes(diagonal, theta, 0.1, 0.0).tolist() == pytest.approx([0.0, 0.1, 0.0])
    with pytest.raises(ValueError, match=r"must not be a single point; all weights are zero\.$"):
        half_axes(diagonal, torch.zeros(3).double(), 0.1, 1.0)
    with pytest.raises(
        ValueError, match=r"must not be a single point; the Fisher matrix is zero, as in a saturated or dead net\.$"
    ):
        half_axes(torch.zeros(3).double(), theta, 0.1, 0.0)
    with pytest.raises(ValueError, match=r"^damping must be above 0 here"):
        half_axes(torch.full((3,), 1e-300, dtype=torch.float64), theta.float(), 0.1, 0.0)


def test_no_weight_moves_by_more_than_its_size():
    diagonal, theta = vector(50, 0, 0, 1e-6), vector(50, 1)
    assert bool((half_axes(diagonal, theta, 5.0, 1.0) <= theta.abs()).all())


@pytest.mark.parametrize("scale", [0.25, 16.0])
@pytest.mark.parametrize("damping", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_ellipsoid_does_not_see_rescaled_layers(scale, damping, seed):
    pair, X, y = relu_net(seed=seed)
    options = {"damping": damping, "random_state": 0}
    one, two = (fisher_sharpness(p, X, y, **options).value for p in (pair, rescaled(pair, scale)))
    assert one > 0
    assert two == pytest.approx(one, rel=1e-7)
    one, two = (fisher_trace(p, X, y, random_state=0).value for p in (pair, rescaled(pair, scale)))
    assert abs(two / one - 1) > 0.1


def test_the_rise_by_the_quadratic_model_of_a_linear_model():
    """With one step of the secular equation in the metric of the diagonal found."""
    X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair, y = (nn.Linear(2, 3).double(), nn.CrossEntropyLoss()), torch.arange(20) % 3
    objective, rho = Objective(*pair, (X, y)), 1e-3
    generator = torch.Generator().manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    diagonal, _ = squared_gradients(objective, 32, generator)
    radii = rho / diagonal.sqrt()
    values, vectors = torch.linalg.eigh(radii[:, None] * dense_hessian(pair, X, y) * radii)
    g = vectors.T @ (radii * objective.gradient()[1])
    low, high = float(values[-1]), float(values[-1] + g.norm())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (g / (middle - values)).norm() > 1 else (low, middle)
    u = g / (high - values)
    record = fisher_sharpness(objective, rho=rho, damping=0.0, random_state=0)
    assert record.value == pytest.approx(float(g @ u + values @ u**2 / 2), rel=1e-5)


@pytest.mark.parametrize("measure", [fisher_sharpness, fisher_trace])
def test_what_has_no_fisher_matrix(measure):
    pair, X, y = relu_net()
    module, criterion, ones, zeros = landscape(lambda t: t.sum(), vector(3, 0))
    with pytest.raises(ValueError, match=r"^The criterion must be torch.nn.CrossEntropyLoss for a Fisher matrix"):
        measure((module, criterion), ones, zeros)
    weights = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^Samples must have equal weights for a Fisher matrix"):
        measure((pair[0], weights), X, y)
    with pytest.raises(ValueError, match=r"^Samples must have equal weights for a Fisher matrix"):
        measure(pair, X, y, sample_weight=np.arange(30) + 1.0)
    per_pixel = nn.Conv1d(4, 3, 1).double()
    with pytest.raises(ValueError, match=r"^module must return logits of shape \(n_samples, n_classes\)"):
        measure((per_pixel, pair[1]), X[:, :, None], y[:, None])


@pytest.mark.parametrize(
    ("measure", "given", "sentence"),
    [
        (fisher_sharpness, {"rho": 0}, r"^rho must be a number above 0"),
        (fisher_sharpness, {"damping": -1}, r"^damping must be a number of at least 0"),
        (fisher_sharpness, {"damping": float("nan")}, r"^damping must be a number of at least 0"),
        (fisher_sharpness, {"n_draws": 1}, r"^n_draws must be an integer of at least 2"),
        (fisher_trace, {"n_draws": 0}, r"^n_draws must be an integer of at least 2"),
        (fisher_trace, {"n_draws": True}, r"^n_draws must be an integer of at least 2"),
    ],
)
def test_what_is_refused(measure, given, sentence):
    pair, X, y = relu_net()
    with pytest.raises((ValueError, TypeError), match=sentence):
        measure(pair, X, y, **given)


def test_a_dead_net_says_so():
    (net, criterion), X, y = relu_net()
    with torch.no_grad():
        net[0].bias.fill_(-1e6)
    record = fisher_trace((net, criterion), X, y, parameters="0.*", random_state=0)
    assert record.value == record.standard_error == 0
    assert "The net is saturated or dead" in record.notes[0]
    dead = fisher_sharpness((net, criterion), X, y, parameters="0.*", random_state=0)
    assert dead.value == 0
    assert any("The net is saturated or dead" in note for note in dead.notes)
