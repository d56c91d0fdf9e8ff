"""The penalty on gradients: its gradient against autograd of the penalised loss, in float64."""

import math

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.regimes import split_rows
from sklgap.remedies import SAM, GradientPenalty
from sklgap.remedies._check import check_parts
from tests.cases import DOUBLE, PLAIN, PROBLEMS, WITH_BATCH_NORM
from tests.remedies.steps import assert_equal, check_neutral, gradient, step_of, stepped
from tests.tiny import TinyC1, blobs, images, small


def _nothing(params, buffers, batch):
    raise AssertionError


@pytest.mark.parametrize("remedy", [GradientPenalty(0), GradientPenalty(0.0, sub_batch_size=3)])
def test_neutral(remedy):
    assert remedy.transform_loss(_nothing, None) is _nothing
    assert remedy.transform_grad(_nothing, None) is _nothing
    check_neutral(remedy)


def penalised(module, criterion, X, y, strength):
    """The loss with its penalty, in plain torch."""
    loss = criterion(module(X), y)
    slopes = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
    return loss + strength / 4 * sum((slope**2).sum() for slope in slopes)


@pytest.mark.parametrize("strength", [0.1, 2.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_against_autograd(name, strength):
    module, criterion, X, y = PROBLEMS[name]()
    gradients, result, _ = stepped(PROBLEMS[name](), [GradientPenalty(strength)])
    assert_equal(gradients, gradient(module, penalised(module, criterion, X, y, strength)), DOUBLE)
    plain = gradient(module, criterion(module(X), y))
    assert any((gradients[n] - plain[n]).abs().max() > 1e-4 for n in plain)
    assert_equal(result["loss"], criterion(module(X), y).detach())


@pytest.mark.parametrize("size", [1, 6, 11])
@pytest.mark.parametrize("name", PLAIN)
def test_parts_are_penalised_each_on_its_own(name, size):
    module, criterion, X, y = PLAIN[name]()
    gradients, _, _ = stepped(PLAIN[name](), [GradientPenalty(0.8, size)])
    parts = split_rows(len(X), size)
    assert len(parts) > 1
    loss = sum(
        (rows.stop - rows.start) / len(X) * penalised(module, criterion, X[rows], y[rows], 0.8) for rows in parts
    )
    assert_equal(gradients, gradient(module, loss), DOUBLE)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_sees_the_parts(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    gradients, _, after = stepped(WITH_BATCH_NORM[name](), [GradientPenalty(0.8, 8)])
    parts = split_rows(len(X), 8)
    loss = sum(
        (rows.stop - rows.start) / len(X) * penalised(module, criterion, X[rows], y[rows], 0.8) for rows in parts
    )
    assert_equal(gradients, gradient(module, loss), DOUBLE)
    assert_equal(dict(after.named_buffers()), dict(module.named_buffers()))


def test_it_imitates_the_steps_of_sgd_in_full_batches():
    """Smith et al. (2021): the mean over orders of an epoch of SGD is a flow of the penalised loss, to second order."""
    module, criterion, X, y = PLAIN["tanh"]()
    X, y = X[:22], y[:22]
    rate, parts = 1e-3, [slice(0, 11), slice(11, 22)]
    start = {n: p.detach().clone() for n, p in module.named_parameters()}

    def place(values):
        with torch.no_grad():
            for n, p in module.named_parameters():
                p.copy_(values[n])

    def slope(loss):
        return gradient(module, loss)

    ends = []
    for order in (parts, parts[::-1]):
        place(start)
        for rows in order:
            g = slope(criterion(module(X[rows]), y[rows]))
            place({n: p.detach() - rate * g[n] for n, p in module.named_parameters()})
        ends.append({n: p.detach().clone() for n, p in module.named_parameters()})
    moved = {n: (ends[0][n] + ends[1][n]) / 2 - start[n] for n in start}

    def flow(strength):
        place(start)
        for _ in range(100):  # small steps of Heun's method
            h = 2 * rate / 100
            here = {n: p.detach().clone() for n, p in module.named_parameters()}

            def of_parts():
                return slope(sum(penalised(module, criterion, X[rows], y[rows], strength) for rows in parts) / 2)

            first = of_parts()
            place({n: here[n] - h * first[n] for n in here})
            second = of_parts()
            place({n: here[n] - h / 2 * (first[n] + second[n]) for n in here})
        return {n: p.detach() - start[n] for n, p in module.named_parameters()}

    def distance(other):
        return math.sqrt(sum((moved[n] - other[n]).square().sum().item() for n in moved))

    # The error of the flow of the loss itself is of second order in the rate, that of the penalised one of third.
    assert distance(flow(rate)) < 0.02 * distance(flow(0.0))


@pytest.mark.parametrize(("micro", "size"), [(8, 8), (20, 8), (23, 8), (None, 8)])
def test_micro_batches_that_hold_a_part_change_nothing(micro, size):
    found = [stepped(PLAIN["conv"](), [GradientPenalty(0.8, size)], micro_batch_size=m)[0] for m in (micro, None)]
    assert_equal(found[0], found[1], DOUBLE)


@pytest.mark.parametrize(("micro", "size"), [(8, None), (4, 8), (22, 23)])
def test_smaller_micro_batches_are_refused(micro, size):
    least = "" if size is None else f" or at least {size}, the sub_batch_size,"
    sentence = rf"^micro_batch_size must be None{least} with GradientPenalty, .*; got {micro}\.$"
    with pytest.raises(ValueError, match=sentence):
        small(micro_batch_size=micro, remedies=[GradientPenalty(0.1, size)]).fit(*blobs())
    with pytest.raises(ValueError, match=sentence):
        stepped(PLAIN["tanh"](), [GradientPenalty(0.1, size)], micro_batch_size=micro)


def test_other_processes_and_smaller_parts_of_another_remedy_are_refused():
    with pytest.raises(ValueError, match=r"data_parallel must be False with GradientPenalty, .*; got True"):
        check_parts([GradientPenalty()], None, True)
    with pytest.raises(ValueError, match=r"smaller parts than GradientPenalty does, .* sub_batch_size=4 in SAM"):
        small(remedies=[SAM(sub_batch_size=4), GradientPenalty(0.1, 8)]).fit(*blobs())
    check_parts([SAM(sub_batch_size=8), GradientPenalty(0.1, 8)], 8, False)


def test_weights_are_repeated_rows_within_a_part():
    module, criterion, X, y = PLAIN["tanh"]()
    counts = torch.arange(len(y)) % 3
    index = torch.arange(len(y)).repeat_interleave(counts)
    found = []
    for batch in (Batch(X, y, counts.double()), Batch(X[index], y[index])):
        module = PLAIN["tanh"]()[0]
        params = trainable_parameters(module)
        loss_fn = GradientPenalty(0.7).transform_loss(ModuleLoss(module, criterion, params), None)
        loss, aux = loss_fn(params, {}, batch)
        found.append((gradient(module, loss), aux.loss))
    assert_equal(found[0], found[1], DOUBLE)


class Rough(torch.autograd.Function):
    """Has a first derivative and no second."""

    @staticmethod
    def forward(ctx, X):
        ctx.save_for_backward(X)
        return X.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        (X,) = ctx.saved_tensors
        return slope * X.exp()


class RoughNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, X):
        return Rough.apply(self.layer(X))


def test_a_users_own_function_is_refused():
    """torch would leave it out of the second derivative, and say nothing."""
    with pytest.raises(
        ValueError, match=r"^GradientPenalty needs a net of torch's own operations, .* got RoughBackward"
    ):
        small(net=RoughNet, remedies=[GradientPenalty(0.1)]).fit(*blobs())
    small(net=RoughNet, remedies=[GradientPenalty(0.0)]).fit(*blobs())


class Distances(nn.Module):
    """Ends in an operation of torch that has no second derivative."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.eye(3, 4))

    def forward(self, X):
        return -torch.cdist(X, self.centres, p=3.0)


def test_a_net_without_second_derivatives():
    with pytest.raises(ValueError, match=r"^GradientPenalty needs a net with second derivatives; torch says: "):
        small(net=Distances, remedies=[GradientPenalty(0.1)]).fit(*blobs())


@pytest.mark.parametrize("weight_norm", [nn.utils.parametrizations.weight_norm])
def test_weight_norm_is_differentiated_rightly(weight_norm):
    """Its fused kernel has a wrong second derivative on the CPU: here against a net that writes it out."""
    torch.manual_seed(0)
    fused = weight_norm(nn.Linear(4, 3)).double()
    X, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    g, v, b = (p.detach().clone().requires_grad_() for p in fused.parameters())
    names = [name for name, _ in fused.named_parameters()]
    params = dict(zip(names, (g, v, b), strict=True))
    scale = next(t for name, t in params.items() if name.endswith("original0"))
    direction = next(t for name, t in params.items() if name.endswith("original1"))
    weight = scale * direction / direction.square().sum(1, keepdim=True).sqrt()
    loss = nn.functional.cross_entropy(X @ weight.T + params["bias"], y)
    slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    whole = loss + 0.5 / 4 * sum(s.square().sum() for s in slopes)
    expected = dict(zip(names, torch.autograd.grad(whole, list(params.values())), strict=True))
    step = step_of(fused, nn.CrossEntropyLoss(), [GradientPenalty(0.5)])
    assert_equal(step.gradient(Batch(X, y), torch.Generator()), expected, DOUBLE)


def test_dropout_and_convolutions_train():
    model = small(net=TinyC1, batch_size=12, max_epochs=6, lr=0.03, remedies=[GradientPenalty(0.1, 6)])
    X, y = images()
    assert model.fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strength": -1}, "strength must be a number of at least 0; got -1"),
        ({"strength": math.nan}, "strength must be a number of at least 0; got nan"),
        ({"sub_batch_size": 0}, "sub_batch_size must be None or an integer of at least 1; got 0"),
        ({"sub_batch_size": 2.5}, "sub_batch_size must be None or an integer of at least 1; got 2.5"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        GradientPenalty(**params).check()


def test_defaults_are_allowed():
    GradientPenalty().check()
