import copy
import math

import pytest
import torch

from sklgap._typing import Aux, Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.regimes import split_rows
from sklgap.remedies import SAM, Proximal, Remedy
from tests.cases import DOUBLE, PLAIN, PROBLEMS, WITH_BATCH_NORM
from tests.remedies.steps import assert_equal, check_neutral, gradient, moved_by, step_of, stepped
from tests.tiny import TinyF1, blobs, same_weights, small


def _no_gradient(params, buffers, batch):
    raise AssertionError


NEUTRAL = [SAM(0), SAM(0.0, adaptive=True), SAM(0, sub_batch_size=3)]


@pytest.mark.parametrize("remedy", NEUTRAL)
def test_neutral(remedy):
    assert remedy.transform_grad(_no_gradient, None) is _no_gradient
    check_neutral(remedy)


def _by_hand(module, criterion, X, y, remedy):
    """The gradient at the worst weights nearby, in plain torch."""
    g = gradient(module, criterion(module(X), y))
    T = {
        n: p.detach().abs() + remedy.eta if remedy.adaptive else torch.ones_like(p)
        for n, p in module.named_parameters()
    }
    norm = torch.cat([(T[n] * g[n]).flatten() for n in g]).norm()
    worst = moved_by(module, {n: remedy.rho * T[n] ** 2 * g[n] / norm for n in g})
    return gradient(worst, criterion(worst(X), y))


@pytest.mark.parametrize("remedy", [SAM(), SAM(0.7), SAM(0.7, adaptive=True), SAM(2.0, adaptive=True, eta=0)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_against_plain_torch(name, remedy):
    gradients, _, _ = stepped(PROBLEMS[name](), [remedy])
    expected = _by_hand(*PROBLEMS[name](), remedy)
    assert_equal(gradients, expected, DOUBLE)
    assert any((g - p).abs().max() > 1e-4 for g, p in zip(gradients.values(), _plain(name).values(), strict=True))


def _plain(name):
    module, criterion, X, y = PROBLEMS[name]()
    return gradient(module, criterion(module(X), y))


def _function_of(loss):
    """The gradient function of a loss of the parameters alone, and where it is evaluated."""

    def loss_fn(params, buffers, batch):
        value = loss(params)
        return value, Aux(value.detach(), value, buffers)

    evaluated = []

    def grad_fn(params, buffers, batch):
        evaluated.append({name: p.detach().clone() for name, p in params.items()})
        return value_and_grad(loss_fn)(params, buffers, batch)

    return grad_fn, evaluated


def test_closed_form_on_a_quadratic():
    h = torch.tensor([1.0, 10.0], dtype=torch.float64)
    x = torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    grad_fn, _ = _function_of(lambda params: (h * params["x"] ** 2).sum() / 2)
    gradients, _ = SAM(0.5).transform_grad(grad_fn, None)({"x": x}, {}, None)
    # h x + rho h^2 x / |h x|, with h x = (3, -20).
    expected = torch.tensor([3.0, -20.0], dtype=torch.float64) + 0.5 * h * torch.tensor([3.0, -20.0]) / math.hypot(
        3, 20
    )
    assert_equal(gradients["x"], expected, DOUBLE)


@pytest.mark.parametrize("adaptive", [True, False])
def test_rescaling_layers_changes_nothing_where_eta_is_zero(adaptive):
    module, criterion, X, y = PLAIN["relu"]()
    factors = {"0.weight": 8.0, "0.bias": 8.0, "2.weight": 1 / 8, "2.bias": 1.0}
    rescaled = copy.deepcopy(module)
    with torch.no_grad():
        for name, p in rescaled.named_parameters():
            p *= factors[name]
    assert_equal(rescaled(X), module(X), DOUBLE)
    remedy = SAM(0.5, adaptive=adaptive, eta=0)
    first, second = (stepped((m, criterion, X, y), [remedy])[0] for m in (module, rescaled))
    same = all(torch.allclose(factors[name] * second[name], g, **DOUBLE) for name, g in first.items())
    assert same == adaptive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_zero_or_almost(dtype):
    """Squares of small gradients underflow; the weights must not be thrown out of the ball for that."""
    x = torch.ones(3, dtype=dtype, requires_grad=True)
    for slope in (0.0, 1e-40, 1e-30, 1e-21, 1e-15, 1.0, 1e15):
        grad_fn, evaluated = _function_of(lambda params, slope=slope: slope * params["x"].sum())
        gradients, _ = SAM(100.0).transform_grad(grad_fn, None)({"x": x}, {}, None)
        assert gradients["x"].tolist() == torch.full((3,), slope, dtype=dtype).tolist()
        length = (evaluated[1]["x"] - x.detach()).norm()
        assert length <= 100.0 * (1 + 1e-6)
        if slope >= 1e-15:
            assert length == pytest.approx(100.0)


def test_no_step_on_a_frozen_or_unused_parameter():
    used, unused = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad_fn, evaluated = _function_of(lambda params: params["used"].square().sum())
    gradients, _ = SAM(1.0).transform_grad(grad_fn, None)({"used": used, "unused": unused}, {}, None)
    assert set(gradients) == {"used"}
    assert_equal(evaluated[1]["unused"], unused.detach())


# -- parts of a batch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 11, 22])  # of 23 rows; a single last row joins the part before it
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_parts_have_worst_weights_of_their_own(name, adaptive, size):
    module, criterion, X, y = PLAIN[name]()
    remedy = SAM(0.3, adaptive=adaptive, sub_batch_size=size)
    gradients, result, _ = stepped(PLAIN[name](), [remedy])
    total = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    for rows in split_rows(len(X), size):
        for n, g in _by_hand(module, criterion, X[rows], y[rows], remedy).items():
            total[n] += g * len(X[rows]) / len(X)
    assert_equal(gradients, total, DOUBLE)
    assert_equal(result["y_pred"], module(X).detach(), DOUBLE)
    assert_equal(result["loss"], criterion(module(X), y).detach(), DOUBLE)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_sees_the_parts_at_the_unmoved_weights(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    gradients, _, after = stepped(WITH_BATCH_NORM[name](), [SAM(0.3, sub_batch_size=8)])
    total = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    for rows in split_rows(len(X), 8):
        for n, g in _by_hand(copy.deepcopy(module), criterion, X[rows], y[rows], SAM(0.3)).items():
            total[n] += g * len(X[rows]) / len(X)
        module(X[rows])
    assert_equal(gradients, total, DOUBLE)
    assert_equal(dict(after.named_buffers()), dict(module.named_buffers()))


@pytest.mark.parametrize("size", [23, 24, 1000])
@pytest.mark.parametrize("name", PROBLEMS)
def test_parts_as_large_as_the_batch_are_plain_sam(name, size):
    parts, whole = (stepped(PROBLEMS[name](), [SAM(0.3, sub_batch_size=s)])[0] for s in (size, None))
    assert_equal(parts, whole)


def test_parts_of_one_row_with_batch_norm():
    sentence = "A net with batch normalisation needs batches of at least 2 samples; got batches of 1"
    with pytest.raises(ValueError, match=sentence):
        small(net=TinyF1, remedies=[SAM(sub_batch_size=1)]).fit(*blobs())


# -- every k-th update ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_updates_in_between_are_plain(name, every):
    _, criterion, X, y = PROBLEMS[name]()
    step = step_of(PROBLEMS[name]()[0], criterion, [SAM(0.3, every=every)])
    sam, plain = (step_of(PROBLEMS[name]()[0], criterion, given) for given in ([SAM(0.3)], []))
    rng = torch.Generator()
    for number in range(6):
        expected = (plain if number % every else sam).gradient(Batch(X, y), rng)
        assert_equal(step.gradient(Batch(X, y, number=number), rng), expected)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_a_fit_counts_its_batches(inner_steps):
    numbers = []

    class Seen(Remedy):
        def transform_batch(self, batch, rng):
            numbers.append(batch.number)
            return batch

    remedies = [Seen(), Proximal(0.1, inner_steps)]
    X, y = blobs()
    model = small(batch_size=20, remedies=remedies, warm_start=True).fit(X, y)
    assert numbers == [0, 1, 2, 3, 4, 5]
    model.fit(X, y)
    assert numbers == list(range(12))


def test_a_training_in_two_fits_is_that_in_one():
    X, y = blobs()
    given = {"batch_size": 20, "remedies": [SAM(0.3, every=2)]}
    whole = small(max_epochs=3, **given).fit(X, y)
    parts = small(max_epochs=1, warm_start=True, **given).fit(X, y)  # three updates: the second fit begins in between
    assert same_weights(parts.set_params(max_epochs=2).fit(X, y), whole)
    assert not same_weights(whole, small(max_epochs=3, batch_size=20, remedies=[SAM(0.3)]).fit(X, y))


def test_parts_of_a_batch_between_two_second_gradients_are_parts_still():
    """Batch norm sees the same rows at every update."""
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    step = step_of(module, criterion, [SAM(0.3, sub_batch_size=8, every=2)])
    other = PROBLEMS["batch_norm"]()[0]
    step(Batch(X, y, number=1))
    for rows in split_rows(len(X), 8):
        other(X[rows])
    assert_equal(dict(module.named_buffers()), dict(other.named_buffers()))


# -- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rho": -0.05}, "rho must be a number of at least 0; got -0.05"),
        ({"rho": None}, "rho must be a number of at least 0; got None"),
        ({"eta": math.nan}, "eta must be a number of at least 0; got nan"),
        ({"adaptive": 1}, "adaptive must be True or False; got 1"),
        ({"sub_batch_size": 0}, "sub_batch_size must be None or an integer of at least 1; got 0"),
        ({"sub_batch_size": 0.5}, "sub_batch_size must be None or an integer of at least 1; got 0.5"),
        ({"every": 0}, "every must be an integer of at least 1; got 0"),
        ({"every": None}, "every must be an integer of at least 1; got None"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        SAM(**params).check()


def test_defaults_are_those_of_the_papers_and_allowed():
    SAM().check()
    assert SAM().get_params() == {"rho": 0.05, "adaptive": False, "eta": 0.01, "sub_batch_size": None, "every": 1}
