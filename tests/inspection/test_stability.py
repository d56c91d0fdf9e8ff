"""Thresholds of optimisers, against the map that they make of a quadratic loss."""

import math
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EpochTimer, GradientNormClipping, LRScheduler
from torch import nn

from sklgap import TrainingRecorder
from sklgap.inspection import StabilityMeasurement, hessian_eigenvalues, recorded, stability_threshold
from sklgap.inspection._krylov import NotFinite
from sklgap.inspection._stability import REASONS
from sklgap.inspection._stability_threshold import NotStable, NotStableNow, formula_of
from sklgap.monitor.skorch import BatchSizeCallback
from sklgap.objective import check_objective
from sklgap.remedies import SAM, Augmentation, SampleNoise
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, Switching, blobs, same_weights, small

N = 5
LR = 0.1
# Eigenvalues of the Hessian relative to the threshold, beside the largest.
OTHERS = (0.5, 0.3, 0.01, 0.0)


class Weights(nn.Module):
    """Two parameters, for two groups."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(1e-6 * torch.randn(2, generator=generator, dtype=torch.float64))
        self.second = nn.Parameter(1e-6 * torch.randn(3, generator=generator, dtype=torch.float64))


def both(**more):
    return lambda module: [{"params": [module.first, module.second], **more}]


def groups(first, second):
    return lambda module: [{"params": [module.first], **first}, {"params": [module.second], **second}]


def sgd(**options):
    return lambda params: torch.optim.SGD(params, lr=LR, **options)


# Frozen preconditioners: any positive numbers, of different sizes in all coordinates.
V = torch.linspace(0.5, 3, N, dtype=torch.float64) ** 2


def frozen(name, before):
    """Return a function that puts V where the optimiser will read it in a step with the gradient that is there."""

    def set_state(optimizer, module):
        for p, v in zip(module.parameters(), V.split([2, 3]), strict=True):
            state = optimizer.state[p]
            state[name] = before(v.clone(), p.grad, optimizer)
            state["step"].fill_(1e6)  # bias corrections are 1

    return set_state


def adam_before(v, gradient, optimizer):
    beta2 = optimizer.param_groups[0]["betas"][1]
    return (v - (1 - beta2) * gradient**2) / beta2


def rmsprop_before(v, gradient, optimizer):
    alpha = optimizer.param_groups[0]["alpha"]
    return (v - (1 - alpha) * gradient**2) / alpha


def make_state(optimizer, module):
    """Make the state of the optimiser, and leave the weights as they are."""
    before = [p.detach().clone() for p in module.parameters()]
    optimizer.step()
    with torch.no_grad():
        for p, value in zip(module.parameters(), before, strict=True):
            p.copy_(value)
            if "momentum_buffer" in optimizer.state[p]:
                optimizer.state[p]["momentum_buffer"].zero_()


ADAM = frozen("exp_avg_sq", adam_before)
RMSPROP = frozen("square_avg", rmsprop_before)
ADAGRAD = frozen("sum", lambda v, gradient, optimizer: v - gradient**2)


def adam(kind=torch.optim.Adam, **options):
    return lambda params: kind(params, lr=LR, **options)


MAPS = {
    "SGD": (sgd(), both(), None),
    "momentum": (sgd(momentum=0.9), both(), None),
    "dampening": (sgd(momentum=0.9, dampening=0.5), both(), None),
    "Nesterov": (sgd(momentum=0.9, nesterov=True), both(), None),
    "small Nesterov": (sgd(momentum=0.3, nesterov=True), both(), None),
    "L2": (sgd(weight_decay=4.0), both(), None),
    "L2 with momentum": (sgd(momentum=0.9, weight_decay=4.0), both(), None),
    "two rates": (sgd(momentum=0.5), groups({"lr": 0.1}, {"lr": 0.02}), None),
    "two momenta": (sgd(), groups({"momentum": 0.9}, {"momentum": 0.2, "nesterov": True}), None),
    "two decays": (sgd(momentum=0.5), groups({"weight_decay": 8.0}, {"weight_decay": 0.0}), None),
    "a rate of 0": (sgd(), groups({"lr": 0.1}, {"lr": 0.0}), None),
    "Adam": (adam(), both(), ADAM),
    "Adam, other betas": (adam(betas=(0.5, 0.9), eps=0.3), both(), ADAM),
    "Adam without a mean": (adam(betas=(0.0, 0.99)), both(), ADAM),
    "Adam with L2": (adam(weight_decay=60.0), both(), ADAM),
    "RMSprop with L2": (lambda params: torch.optim.RMSprop(params, lr=LR, weight_decay=5.0), both(), RMSPROP),
    "AdamW": (adam(torch.optim.AdamW, weight_decay=3.0), both(), ADAM),
    "AdamW, two decays": (
        adam(torch.optim.AdamW),
        groups({"weight_decay": 5.0, "lr": 0.1}, {"weight_decay": 0.0, "lr": 0.03}),
        ADAM,
    ),
    "RMSprop": (lambda params: torch.optim.RMSprop(params, lr=LR), both(), RMSPROP),
    "RMSprop with momentum": (lambda params: torch.optim.RMSprop(params, lr=LR, momentum=0.9), both(), RMSPROP),
    "Adagrad": (lambda params: torch.optim.Adagrad(params, lr=LR), both(), ADAGRAD),
}


def trained(name, relative):
    """Train on a quadratic whose largest eigenvalue is ``relative`` of the threshold; return the lengths of the way."""
    make, grouped, freeze = MAPS[name]
    module = Weights()
    optimizer = make(grouped(module))
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    if freeze is not None:
        make_state(optimizer, module)
        freeze(optimizer, module)
    line = stability_threshold(optimizer, module)
    P = torch.ones(N, dtype=torch.float64) if line.preconditioner is None else line.preconditioner
    axes = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    moves = torch.isfinite(P)
    roots = torch.where(moves, P, 1.0).sqrt()
    curvatures = line.value * torch.tensor([relative, *OTHERS], dtype=torch.float64)
    H = roots[:, None] * (axes @ torch.diag(curvatures) @ axes.T) * roots
    if not moves.all():  # what does not move has no part in it
        inner = H[moves][:, moves] / (roots[moves][:, None] * roots[moves])
        H[:2, :2] *= line.value * relative / torch.linalg.eigvalsh(inner).max()
    lengths = []
    for _ in range(400):
        theta = torch.cat([module.first, module.second]).detach()
        moved = theta if moves.all() else torch.where(moves, theta, 0.0)
        lengths.append(float(moved.norm()))
        if lengths[-1] > 1e-3:  # the preconditioner must stay as it is
            break
        for p, gradient in zip(module.parameters(), (H @ moved).split([2, 3]), strict=True):
            p.grad = gradient.clone()
        if freeze is not None:
            freeze(optimizer, module)
        optimizer.step()
    return lengths


@pytest.mark.parametrize("name", MAPS)
def test_a_quadratic_just_below_and_just_above_the_threshold(name):
    below, above = trained(name, 0.95), trained(name, 1.05)
    assert max(below[-50:]) < max(below[:50])  # flat directions shrink slowly or not at all
    assert above[-1] > 1e-3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 / LR),
        ({"momentum": 0.9}, 3.8 / LR),
        ({"momentum": 0.9, "nesterov": True}, 3.8 / (2.8 * LR)),
        ({"momentum": 0.9, "dampening": 0.9}, 3.8 / (0.1 * LR)),
        ({"weight_decay": 0.5}, 2 / LR - 0.5),
    ],
)
def test_thresholds_of_sgd(options, expected):
    module = Mlp()
    line = stability_threshold(torch.optim.SGD(module.parameters(), lr=LR, **options), module)
    assert line.value == pytest.approx(expected, rel=1e-12)
    assert line.preconditioner is None
    assert line.learning_rate == LR
    assert f"{line.value:.4g}" in str(line)


# Optimisers with decay inside the gradient, and kappa.
DECAYS = {
    "Adam": (torch.optim.Adam, {}, ADAM, 38.0),
    "RMSprop": (torch.optim.RMSprop, {}, RMSPROP, 2.0),
    "RMSprop with momentum": (torch.optim.RMSprop, {"momentum": 0.9}, RMSPROP, 3.8),
    "Adagrad": (torch.optim.Adagrad, {}, ADAGRAD, 2.0),
}


def decayed(name, ratio, kind=None, split=False):
    """Return an optimiser, its module, and the lengths of its way without a loss.

    The smallest number of the preconditioner, 0.5, is ``ratio`` times the smallest at which the decay is stable.
    """
    given, options, freeze, kappa = DECAYS[name]
    module, decay = Weights(), 0.5 * kappa / LR / ratio
    params = [module.first, module.second]
    parts = [{"params": [p]} for p in params] if split else params
    optimizer = (kind or given)(parts, lr=LR, weight_decay=decay if kind is None else 0.01, **options)
    for p in params:
        p.grad = torch.zeros_like(p)
    make_state(optimizer, module)
    lengths = []
    for _ in range(300):
        lengths.append(float(module.first[0].detach().abs()))
        if lengths[-1] > 1e-4:  # the preconditioner must stay as it is
            break
        freeze(optimizer, module)
        optimizer.step()
    freeze(optimizer, module)
    return optimizer, module, lengths


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", DECAYS)
def test_decay_alone_is_unstable_where_the_preconditioner_is_small(name, split):
    """There is no loss at all, so that the refusal is checked against what the optimiser does."""
    optimizer, module, stable = decayed(name, 1.05, split=split)
    assert stable[-1] < stable[0]
    assert stability_threshold(optimizer, module).preconditioner.min() > 0
    optimizer, module, unstable = decayed(name, 0.95, split=split)
    assert unstable[-1] > 10 * unstable[0]
    with pytest.raises(NotStableNow, match=r"1 of the 2 numbers in 'first'.*AdamW.*threshold=None") as caught:
        stability_threshold(optimizer, module)
    assert "lower" not in str(caught.value)


@pytest.mark.parametrize("split", [False, True])
def test_decoupled_decay_is_stable_whatever_the_preconditioner_is(split):
    optimizer, module, lengths = decayed("Adam", 0.95, kind=torch.optim.AdamW, split=split)
    assert lengths[-1] < lengths[0]
    assert stability_threshold(optimizer, module).preconditioner.min() > 0


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_decay_that_is_too_large_for_the_rate_is_not_of_one_update(kind):
    module = Mlp()
    optimizer = stepped(kind(module.parameters(), lr=LR, weight_decay=25), module)
    with pytest.raises(NotStable, match="lower weight_decay or lr") as caught:
        stability_threshold(optimizer, module)
    assert not isinstance(caught.value, NotStableNow)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_a_state_that_is_not_finite_is_no_matter_of_the_decay(kind, decay):
    module = Mlp()
    optimizer = stepped(kind(module.parameters(), lr=LR, weight_decay=decay), module)
    next(module.parameters()).grad.fill_(math.nan)
    optimizer.step()
    with pytest.raises(NotFinite, match="finite state"):
        stability_threshold(optimizer, module)


def test_a_preconditioner_of_zero_is_no_matter_of_the_decay():
    module = Mlp()
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, eps=0.0)
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    with pytest.raises(ValueError, match=r"above 0.*raise eps"):
        stability_threshold(optimizer, module)


def stepped(optimizer, module, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        for p in module.parameters():
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_preconditioner_is_what_adam_divides_by(amsgrad):
    module = Mlp().double()
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, betas=(0.8, 0.95), eps=0.1, amsgrad=amsgrad)
    stepped(optimizer, module, n=3)
    before = torch.cat([p.detach().ravel().clone() for p in module.parameters()])
    stepped(optimizer, module, n=1, seed=9)
    after = torch.cat([p.detach().ravel() for p in module.parameters()])
    line = stability_threshold(optimizer, module)
    mean = torch.cat([optimizer.state[p]["exp_avg"].ravel() for p in module.parameters()])
    np.testing.assert_allclose(after, before - LR * mean / line.preconditioner, rtol=1e-10)
    assert line.value == pytest.approx(3.6 / (0.2 * LR))


def test_the_preconditioner_of_two_rates():
    module = Mlp()
    first, *others = module.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.01}, {"params": others, "lr": 0.1}])
    line = stability_threshold(optimizer, module)
    assert line.value == pytest.approx(20)
    np.testing.assert_allclose(line.preconditioner[: first.numel()], 10)
    np.testing.assert_allclose(line.preconditioner[first.numel() :], 1)


def test_parameters_that_do_not_move():
    module = Mlp()
    first, *others = module.parameters()
    line = stability_threshold(torch.optim.SGD(others, lr=0.1), module)
    assert torch.isinf(line.preconditioner[: first.numel()]).all()
    first.requires_grad_(False)  # now it is a constant
    assert stability_threshold(torch.optim.SGD(others, lr=0.1), module).preconditioner is None
    assert stability_threshold(torch.optim.SGD(others, lr=0.0), module).value == math.inf


def test_the_rate_of_a_schedule():
    module = Mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    schedule.step()
    assert stability_threshold(optimizer, module).value == pytest.approx(40)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: torch.optim.NAdam(m.parameters()), "optimizer.*NAdam.*threshold=None"),
        (lambda m: torch.optim.LBFGS(m.parameters()), "optimizer.*LBFGS"),
        (lambda m: type("Mine", (torch.optim.SGD,), {})(m.parameters(), lr=0.1), "optimizer.*Mine"),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, maximize=True), "maximize"),
        (lambda m: torch.optim.SGD([*m.parameters(), nn.Parameter(torch.ones(2))], lr=0.1), "also trains others"),
        (lambda m: torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1), "also trains others"),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, weight_decay=30), "weight_decay"),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=1.5), "momentum"),
        (lambda m: torch.optim.Adam(m.parameters()), "made an update"),
        (lambda m: torch.optim.Adagrad(m.parameters()), "made an update"),
    ],
)
def test_what_is_refused(make, match):
    module = Mlp()
    with pytest.raises(ValueError, match=match) as caught:
        stability_threshold(make(module), module)
    assert "\n" not in str(caught.value)


def test_complex_parameters_are_refused():
    module = nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(ValueError, match="real parameters"):
        stability_threshold(torch.optim.SGD(module.parameters(), lr=0.1), module)


# -- the measurement ---------------------------------------------------------------------------------------------------

X, Y = blobs(60)


def record(measurement, every=1, at_updates=None, callbacks=(), **params):
    recorder = TrainingRecorder({"train": (X, Y)}, {"stability": measurement}, every=every, at_updates=at_updates)
    model = small(callbacks=[*callbacks, ("recorder", recorder)], **params).fit(X, Y)
    return model, recorded(model)


def test_it_records_what_separate_measurements_say():
    kinds = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.05, "batch_size": 20}
    _, columns = record(StabilityMeasurement(X, Y, n_eigenvalues=2, tol=1e-4), **kinds)
    for epoch in (1, 2):
        model = small(max_epochs=epoch, **kinds).fit(X, Y)
        found = hessian_eigenvalues(model, X, Y, k=2, random_state=0).eigenvalues
        names = ("stability_eigenvalue", "stability_eigenvalue_2")
        np.testing.assert_allclose([columns[name][epoch - 1] for name in names], found, rtol=1e-4)
    np.testing.assert_allclose(columns["stability_threshold"], 3.8 / 0.05)
    np.testing.assert_allclose(columns["stability_relative"], columns["stability_eigenvalue"] * 0.05 / 3.8)
    assert columns["stability_converged"].tolist() == [1, 1]


@pytest.mark.parametrize("max_samples", [None, 40])
def test_weights_of_samples_count_as_copies_do(max_samples):
    weight = np.arange(60) % 3
    given = {"threshold": None, "max_samples": max_samples}
    model, columns = record(StabilityMeasurement(X, Y, sample_weight=weight, **given), net=Mlp)
    rows = np.arange(60) if max_samples is None else np.random.RandomState(0).permutation(60)[:40]
    rows = np.repeat(rows, weight[rows])
    expected = hessian_eigenvalues(model, X[rows], Y[rows], k=1, random_state=0).eigenvalues[0]
    assert columns["stability_eigenvalue"][-1] == pytest.approx(expected, rel=1e-3)
    plain = hessian_eigenvalues(model, X, Y, k=1, random_state=0).eigenvalues[0]
    assert expected != pytest.approx(plain, rel=0.01)


def test_the_training_is_bit_for_bit_what_it_is_without_it():
    kinds = {"batch_size": 20, "max_epochs": 3, "net": "F1", "module__width": 8, "module__n_layers": 2}
    plain = small(**kinds).fit(X, Y)
    with no_global_random_numbers():
        watched, columns = record(StabilityMeasurement(X, Y), at_updates=[1, 2, 5], **kinds)
    assert same_weights(plain, watched)
    for p, q in zip(plain.module_.parameters(), watched.module_.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(plain.net_.optimizer_.state[p][name], watched.net_.optimizer_.state[q][name])
    assert np.isfinite(columns["stability_eigenvalue"]).all()


def test_adam_against_the_dense_preconditioned_hessian():
    def dense(net):
        objective = check_objective(net, X, Y, dtype=torch.float64)
        product = objective.hessian_operator()
        H = torch.stack([product(row) for row in torch.eye(objective.n_params, dtype=torch.float64)])
        states = [net.optimizer_.state[p] for p in net.module_.parameters()]
        v, t = torch.cat([state["exp_avg_sq"].double().ravel() for state in states]), float(states[0]["step"])
        P = (1 - 0.9**t) * ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        return float(torch.linalg.eigvalsh(H / P.sqrt()[:, None] / P.sqrt()).max())

    recorder = TrainingRecorder(
        measurements={"stability": StabilityMeasurement(X, Y, tol=1e-4), "dense": dense}, every=1, at_updates=[4]
    )
    model = small(net=Mlp, batch_size=20, callbacks=[("recorder", recorder)]).fit(X, Y)
    columns = recorded(model)
    np.testing.assert_allclose(columns["stability_eigenvalue"], columns["dense"], rtol=1e-3)
    np.testing.assert_allclose(columns["stability_threshold"], 38 / 0.01)


@pytest.mark.parametrize(("scaling", "factor"), [("sqrt", math.sqrt(3)), ("linear", 3.0), (None, 1.0)])
def test_the_rate_is_the_one_of_the_update(scaling, factor):
    """A rate that is scaled to the batch stands in no group of the optimiser between two updates."""
    kinds = {"optimizer": torch.optim.SGD, "lr": 0.02, "batch_size": 30, "base_batch_size": 10, "lr_scaling": scaling}
    _, columns = record(StabilityMeasurement(X, Y), **kinds)
    np.testing.assert_allclose(columns["stability_threshold"], 2 / (0.02 * factor))
    np.testing.assert_allclose(columns["stability_learning_rate"], 0.02 * factor)


def test_milestones_move_the_threshold():
    kinds = {"optimizer": torch.optim.SGD, "lr": 0.02, "batch_size": 30, "max_epochs": 3, "lr_milestones": [1]}
    _, columns = record(StabilityMeasurement(X, Y), **kinds)
    np.testing.assert_allclose(columns["stability_threshold"], [100, 1000, 1000])


def test_before_the_first_update_of_an_adaptive_optimiser_there_is_nothing():
    _, columns = record(StabilityMeasurement(X, Y), at_updates=[0, 1])
    assert np.isnan(columns["stability_eigenvalue"][0])
    assert np.isfinite(columns["stability_eigenvalue"][1:]).all()
    _, columns = record(StabilityMeasurement(X, Y), at_updates=[0, 1], optimizer=torch.optim.SGD)
    assert np.isfinite(columns["stability_eigenvalue"]).all()


@pytest.mark.parametrize("threshold", [None, 7.5])
def test_other_thresholds_are_for_the_hessian_itself(threshold):
    _, columns = record(StabilityMeasurement(X, Y, threshold=threshold), remedies=[("sam", SAM())])
    model = small(remedies=[("sam", SAM())]).fit(X, Y)
    expected = hessian_eigenvalues(model, X, Y, k=1, random_state=0).eigenvalues[0]
    assert columns["stability_eigenvalue"][-1] == pytest.approx(expected, rel=1e-4)
    last = columns["stability_threshold"][-1]
    assert math.isnan(last) if threshold is None else last == threshold


def test_remedies_that_change_the_gradient_are_refused():
    with pytest.raises(ValueError, match=r"remedies.*SAM.*threshold=None"):
        record(StabilityMeasurement(X, Y), at_updates=[0], remedies=[("sam", SAM())], optimizer=torch.optim.SGD)
    assert SAM().changes_gradient
    assert not SampleNoise().changes_gradient
    assert not Augmentation().changes_gradient


class Reading(Callback):
    """Reads the gradient, and says so."""

    changes_gradient = False

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Look, and leave it."""


class Shrinking(GradientNormClipping):
    """Clips in a way of its own."""


class Undeclared(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Nobody knows what this does."""


@pytest.mark.parametrize("callback", [GradientNormClipping(0.01), Shrinking(), Undeclared()])
def test_callbacks_that_may_change_the_gradient_are_refused(callback):
    sgd, callbacks = {"optimizer": torch.optim.SGD, "at_updates": [0]}, [("own", callback)]
    with pytest.raises(ValueError, match=rf"callbacks must.*{type(callback).__name__}.*threshold=None"):
        record(StabilityMeasurement(X, Y), callbacks=callbacks, **sgd)
    _, columns = record(StabilityMeasurement(X, Y, threshold=None), callbacks=callbacks, **sgd)
    assert np.isfinite(columns["stability_eigenvalue"]).all()


@pytest.mark.parametrize("callback", [Reading(), EpochTimer(), BatchSizeCallback(verbose=False)])
def test_other_callbacks_are_allowed(callback):
    callbacks = [("own", callback)]
    _, columns = record(StabilityMeasurement(X, Y), callbacks=callbacks, optimizer=torch.optim.SGD, at_updates=[0])
    assert np.isfinite(columns["stability_threshold"]).all()


RATES = {
    "epoch": ("StepLR", {"step_size": 1, "gamma": 0.5, "step_every": "epoch"}),
    "batch": ("ExponentialLR", {"gamma": 0.9, "step_every": "batch"}),
    "momentum too": (torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 0.3, "total_steps": 40, "step_every": "batch"}),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", RATES)
def test_the_threshold_is_that_of_the_rates_of_the_last_update(name, first):
    """A scheduler sets the next ones after an update, before or after the record of it."""
    policy, options = RATES[name]
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            group = self.param_groups[0]
            seen.append((2 + 2 * group["momentum"]) / group["lr"])
            return super().step(closure)

    class Threshold:
        def __call__(self, net):
            group = net.optimizer_.param_groups[0]
            return (2 + 2 * group["momentum"]) / group["lr"]

    recorder = ("recorder", TrainingRecorder(measurements={"line": Threshold()}, at_updates=list(range(1, 40))))
    scheduler = ("scheduler", LRScheduler(policy, **options))
    model = small(
        optimizer=Watched,
        optimizer__momentum=0.8,
        lr=0.1,
        max_epochs=3,
        callbacks=[recorder, scheduler] if first else [scheduler, recorder],
        lr_scaling="sqrt",
        base_batch_size=5,
    ).fit(X, Y)
    columns = recorded(model)
    expected = np.array(seen[-model.history_[-1, "n_updates"] :])  # fit tries the optimiser first, on a copy
    assert columns["n_updates"].tolist() == list(range(1, len(expected) + 1))
    np.testing.assert_allclose(columns["line"], expected, rtol=1e-12)
    assert len(set(expected.round(6))) > 2


def test_every_fit_begins_without_the_vectors_of_another():
    measurement = StabilityMeasurement(X, Y)
    first, second = (record(measurement)[1] for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    assert "start_" not in vars(measurement)


def test_a_pickle_has_the_data_and_no_vectors():
    model = small().fit(X, Y)
    measurement = StabilityMeasurement(X, Y)
    first = measurement(model.net_)
    again = pickle.loads(pickle.dumps(measurement))
    assert "start_" not in vars(again)
    assert again(model.net_) == first
    warm = measurement(model.net_)  # it starts from its vectors, and agrees to tol
    assert warm["eigenvalue"] == pytest.approx(first["eigenvalue"], rel=1e-3)


# -- frozen and thawed layers ------------------------------------------------------------------------------------------

KINDS = {
    "SGD": {"optimizer": torch.optim.SGD, "lr": 0.1},
    "Adam": {"optimizer": torch.optim.Adam, "lr": 0.01},
    "AdamW": {"optimizer": torch.optim.AdamW, "lr": 0.01, "optimizer__weight_decay": 0.1},
}


class Separately:
    """The same measurement, which remembers nothing."""

    def __call__(self, net):
        return StabilityMeasurement(X, Y, n_eigenvalues=2, tol=1e-5)(net)


@pytest.mark.parametrize("thaw", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_are_frozen_or_thawed_between_two_records(kind, thaw):
    callbacks = [("switch", Switching(thaw))]
    kinds = {"max_epochs": 6, "net": Mlp, "callbacks": callbacks, **KINDS[kind]}
    _, columns = record(StabilityMeasurement(X, Y, n_eigenvalues=2, tol=1e-5), **kinds)
    _, expected = record(Separately(), **kinds)
    assert columns["stability_not_measured"].tolist() == [0] * 6
    for name in ("stability_eigenvalue", "stability_eigenvalue_2", "stability_threshold"):
        np.testing.assert_allclose(columns[name], expected[name], rtol=1e-5)


def test_fewer_parameters_than_eigenvalues_are_a_reason_and_no_error():
    model = small(net=Mlp, **KINDS["SGD"]).fit(X, Y)
    measurement = StabilityMeasurement(X, Y, n_eigenvalues=4)
    first = measurement(model.net_)
    *others, last = model.net_.module_.parameters()
    for p in others:
        p.requires_grad_(False)
    assert last.numel() < 4
    for expected in ("fewer parameters were trained than the measurement needs",) * 2:
        found = measurement(model.net_)
        assert list(found) == list(first)
        assert math.isnan(found["eigenvalue"])
        assert REASONS[found["not_measured"]] == expected
        last.requires_grad_(False)  # then there is nothing at all


def with_a_silent_input(constant=0.0):
    """Return the samples with an input that is always the same."""
    return np.concatenate([X, np.full((len(X), 1), constant, dtype=X.dtype)], axis=1)


@pytest.mark.parametrize(("decoupled", "reason"), [(False, 3), (True, 0)])
def test_a_decay_without_a_loss_is_recorded_as_a_reason(decoupled, reason):
    """A weight of an input that is always zero has no gradient but that of the decay."""
    rows = with_a_silent_input()
    options = {"module__n_in": rows.shape[1], "net": Mlp, "lr": 0.01}
    options |= {"optimizer": torch.optim.AdamW if decoupled else torch.optim.Adam, "optimizer__weight_decay": 1.0}
    recorder = TrainingRecorder(measurements={"stability": StabilityMeasurement(rows, Y)}, every=None, at_updates=[1])
    model = small(callbacks=[("tiny", Tiny()), ("recorder", recorder)], **options).fit(rows, Y)
    columns = recorded(model)
    assert columns["stability_not_measured"].tolist() == [reason]
    assert np.isnan(columns["stability_eigenvalue"][0]) == (not decoupled)
    assert REASONS[3].startswith("weight decay alone")


class Tiny(Callback):
    """Begins with a tiny weight of the last input."""

    def on_train_begin(self, net, **kwargs):
        with torch.no_grad():
            next(net.module_.parameters())[0, -1] = 1e-7


def test_the_formula_needs_no_preconditioner():
    module = Mlp()
    optimizer = stepped(torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=0.1), module)
    line = stability_threshold(optimizer, module)
    assert formula_of(optimizer) == (line.formula, line.numbers)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"n_eigenvalues": 0}, "n_eigenvalues"),
        ({"threshold": "adam"}, "threshold"),
        ({"threshold": -1}, "threshold"),
        ({"tol": 0}, "tol"),
        ({"max_iter": 0}, "max_iter"),
        ({"batch_norm": "none"}, "batch_norm"),
        ({"max_samples": 0}, "max_samples"),
        ({"random_state": None}, "random_state"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"sample_weight": np.ones(59)}, "sample_weight"),
        ({"sample_weight": -np.ones(60)}, "sample_weight"),
    ],
)
def test_wrong_parameters(given, name):
    with pytest.raises((ValueError, TypeError), match=name):
        StabilityMeasurement(X, Y, **given)
