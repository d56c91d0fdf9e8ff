import copy

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.regimes import split_rows
from sklgap.remedies import SAM, Adversarial, Augmentation, EntropySGD, Proximal, Remedy, SampleNoise, Stability
from sklgap.training import TrainStep
from tests.cases import BIT_FOR_BIT, DOUBLE, PLAIN, PROBLEMS, WITH_BATCH_NORM, images, no_global_random_numbers
from tests.pairs import product
from tests.references import plain_training

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=3),
}


class Identity(Remedy):
    """Every hook wrapped, nothing changed."""

    def transform_loss(self, loss_fn, state):
        return lambda params, buffers, batch: loss_fn(params, buffers, batch)

    def transform_grad(self, grad_fn, state):
        return lambda params, buffers, batch: grad_fn(params, buffers, batch)


NEUTRAL = {
    "no remedy": (),
    "base class": (Remedy(),),
    "identity hooks": (Identity(), Identity()),
    "no augmentation": (Augmentation(False, 0, 0),),
    "proximal, lambda 0, one step": (Proximal(0.0, 1),),
    "proximal, one step": (Proximal(0.7, 1),),
    "adversarial, epsilon 0 or weight 0": (Adversarial(0), Adversarial(weight=0)),
    "stability, weight 0": (Stability(weight=0),),
    "sam, rho 0": (SAM(0), SAM(0, adaptive=True, sub_batch_size=2)),
    "noise, sigma 0 or a small batch": (SampleNoise(0), SampleNoise()),
    "entropy, no steps": (EntropySGD(0),),
}


def _batches(X, y):
    return [(X[rows], y[rows]) for rows in split_rows(len(X), 7)]


def _train_step(module, criterion, optimizer, remedies=(), **kwargs):
    params = trainable_parameters(module)
    loss_fn = ModuleLoss(module, criterion, params)
    return TrainStep(loss_fn, params, optimizer, remedies, **kwargs)


def _pair(name, optimizer, remedies=(), **kwargs):
    """Return our step on a module, and a copy of the module with an optimiser of its own."""
    module, criterion, X, y = PROBLEMS[name]()
    plain = copy.deepcopy(module)
    make = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    step = _train_step(module, criterion, make(list(module.parameters())), remedies, **kwargs)
    return module, step, plain, make(list(plain.parameters())), criterion, _batches(X, y)


@pytest.mark.parametrize(("name", "optimizer", "remedies"), product(PROBLEMS, ["sgd", "adam"], NEUTRAL))
def test_neutral_remedies_are_the_plain_loop_bit_for_bit(name, optimizer, remedies):
    module, step, plain, plain_optimizer, criterion, batches = _pair(name, optimizer, NEUTRAL[remedies])
    results = [step(Batch(*batch)) for batch in batches * 2]
    losses = plain_training(plain, criterion, plain_optimizer, batches * 2)
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **BIT_FOR_BIT)
    torch.testing.assert_close([r["loss"] for r in results], losses, **BIT_FOR_BIT)
    assert all(r["y_pred"].shape == (len(y), 3) for r, (_, y) in zip(results, batches * 2, strict=True))


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_optimiser_that_calls_its_closure_several_times(name):
    module, step, plain, optimizer, criterion, batches = _pair(name, "lbfgs")
    for X, y in batches:
        first = []

        def closure(X=X, y=y, first=first):
            optimizer.zero_grad()
            loss = criterion(plain(X), y)
            loss.backward()
            first.append(loss.item())
            return loss

        optimizer.step(closure)
        assert len(first) > 1
        assert step(Batch(X, y))["loss"].item() == first[0]
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **BIT_FOR_BIT)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_proximal_is_three_steps_with_a_pull_to_the_start_of_the_batch(name, optimizer, strength):
    module, step, plain, plain_optimizer, criterion, batches = _pair(name, optimizer, (Proximal(strength, 3),))
    assert step.inner_steps == 3

    def pull(anchor):
        for p, a in zip(plain.parameters(), anchor, strict=True):
            p.grad.add_(strength * (p.detach() - a))

    losses = plain_training(plain, criterion, plain_optimizer, batches, 3, pull if strength else None)
    results = [step(Batch(*batch))["loss"] for batch in batches]
    # Without a penalty it is the plain loop; with it the sum is made in another order.
    tolerance = DOUBLE if strength else BIT_FOR_BIT
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **tolerance)
    torch.testing.assert_close(results, losses, **tolerance)


class Penalty(Remedy):
    def transform_loss(self, loss_fn, state):
        def penalised(params, buffers, batch):
            loss, aux = loss_fn(params, buffers, batch)
            return loss + 100 * sum(p.square().sum() for p in params.values()), aux

        return penalised


@pytest.mark.parametrize("remedies", [(Penalty(),), (Proximal(50.0, 4),), (SAM(0.5),), (Penalty(), SAM(), Proximal())])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_reported_loss_and_outputs_are_the_clean_ones(name, remedies):
    _, step, plain, _, criterion, batches = _pair(name, "sgd", remedies)
    X, y = batches[0]
    result = step(Batch(X, y))
    outputs = plain(X).detach()
    torch.testing.assert_close(result["loss"], criterion(outputs, y), **BIT_FOR_BIT)
    torch.testing.assert_close(result["y_pred"], outputs, **BIT_FOR_BIT)
    assert result["loss"].shape == ()
    assert not result["loss"].requires_grad


@pytest.mark.parametrize("name", PROBLEMS)
def test_sam_against_its_own_loop(name):
    module, step, plain, optimizer, criterion, batches = _pair(name, "sgd", (SAM(0.1),))
    for X, y in batches:
        step(Batch(X, y))
        optimizer.zero_grad()
        criterion(plain(X), y).backward()
        moved = copy.deepcopy(plain)  # its batch norm counts for nothing
        norm = torch.cat([p.grad.flatten() for p in plain.parameters()]).norm()
        with torch.no_grad():
            for p, q in zip(moved.parameters(), plain.parameters(), strict=True):
                p.add_(q.grad, alpha=float(0.1 / norm))
        moved.zero_grad()
        criterion(moved(X), y).backward()
        for p, q in zip(moved.parameters(), plain.parameters(), strict=True):
            q.grad.copy_(p.grad)
        optimizer.step()
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **DOUBLE)


class OnlyMoved(Remedy):
    """Never evaluates at the weights themselves but once, after the moved ones."""

    def transform_grad(self, grad_fn, state):
        def gradient(params, buffers, batch):
            moved, _ = grad_fn({name: p + 1 for name, p in params.items()}, buffers, batch)
            return moved, grad_fn(params, buffers, batch)[1]

        return gradient


class Elsewhere(Remedy):
    """Evaluates at the weights, but on a dict of its own: the buffers come back as new tensors."""

    def transform_grad(self, grad_fn, state):
        return lambda params, buffers, batch: grad_fn(dict(params), buffers, batch)


@pytest.mark.parametrize("remedy", [SAM(0.5), OnlyMoved(), Elsewhere()])
@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_buffers_are_those_of_the_unmoved_weights(name, remedy):
    module, step, plain, _, _, batches = _pair(name, lambda p: torch.optim.SGD(p, lr=0.1), (remedy,))
    step(Batch(*batches[0]))
    plain(batches[0][0])
    torch.testing.assert_close(dict(module.named_buffers()), dict(plain.named_buffers()), **BIT_FOR_BIT)


# -- micro-batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedies", [(), (Identity(),), (Proximal(0.7, 3),), (Penalty(),)])
@pytest.mark.parametrize("micro_batch_size", [1, 4, 5, 11, 22, 23, 100])  # 23 = 5 * 4 + 3 = 2 * 11 + 1
@pytest.mark.parametrize("name", PLAIN)
def test_micro_batches_have_the_gradient_of_the_batch(name, micro_batch_size, remedies):
    whole, micro = PLAIN[name](), PLAIN[name]()
    results = []
    for (module, criterion, X, y), size in ((whole, None), (micro, micro_batch_size)):
        optimizer = torch.optim.SGD(list(module.parameters()), lr=0.01)
        results.append(_train_step(module, criterion, optimizer, remedies, micro_batch_size=size)(Batch(X, y)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(whole[0].state_dict()), dict(micro[0].state_dict()), rtol=1e-12, atol=1e-12)


class SoftF1(nn.Module):
    """One minus the mean F1 over classes, a function of sums over the batch."""

    def forward(self, logits, y):
        p, q = logits.softmax(1), nn.functional.one_hot(y, logits.shape[1]).to(logits)
        return 1 - (2 * (p * q).sum(0) / (p.sum(0) + q.sum(0) + 1e-9)).mean()


def root_of_mean_square(outputs, y):
    return (outputs - y[:, None].to(outputs)).square().mean().sqrt()


def contrastive(outputs, y):
    z = nn.functional.normalize(outputs, dim=1)
    alike = (y[:, None] == y).to(z) - torch.eye(len(y)).to(z)
    logits = z @ z.T / 0.5 - 1e9 * torch.eye(len(y)).to(z)
    return -(alike * (logits - logits.logsumexp(1, keepdim=True))).sum() / alike.sum().clamp_min(1)


@pytest.mark.parametrize("criterion", [SoftF1(), root_of_mean_square, contrastive])
def test_a_loss_that_is_not_a_mean_over_samples_is_refused_in_micro_batches(criterion):
    torch.manual_seed(0)
    module, X, y = nn.Linear(4, 3).double(), torch.randn(60, 4).double(), torch.arange(60) % 3
    before = copy.deepcopy(module.state_dict())
    for size in (7, 16, 59):
        step = _train_step(module, criterion, torch.optim.SGD(module.parameters(), lr=1.0), micro_batch_size=size)
        with pytest.raises(ValueError, match=rf"^criterion must be a mean over samples with micro_batch_size={size},"):
            step(Batch(X, y))
        torch.testing.assert_close(module.state_dict(), before, **BIT_FOR_BIT)
    for size in (None, 60, 100):  # in one part the loss is exact
        step = _train_step(module, criterion, torch.optim.SGD(module.parameters(), lr=0.0), micro_batch_size=size)
        assert step(Batch(X, y))["loss"].item() == pytest.approx(criterion(module(X), y).item(), rel=1e-12)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1]).double(), ignore_index=1),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda outputs, y: outputs.square().mean() + nn.functional.cross_entropy(outputs, y),
    ],
)
def test_means_over_samples_are_taken_in_micro_batches(criterion):
    torch.manual_seed(0)
    module, X, y = nn.Linear(4, 3).double(), torch.randn(60, 4).double(), torch.arange(60) % 3
    step = _train_step(module, criterion, torch.optim.SGD(module.parameters(), lr=0.0), micro_batch_size=7)
    assert step(Batch(X, y))["loss"].item() == pytest.approx(criterion(module(X), y).item(), rel=1e-12)


def test_micro_batches_are_no_larger_than_asked_but_for_a_single_last_row():
    module, _, X, y = PLAIN["tanh"]()
    sizes = []

    def criterion(y_pred, y):
        sizes.append(len(y))
        return nn.functional.cross_entropy(y_pred, y)

    step = _train_step(module, criterion, OPTIMIZERS["sgd"](list(module.parameters())), micro_batch_size=11)
    step(Batch(X, y))
    assert sizes[:2] == [11, 12]  # afterwards the criterion is tried on the outputs of parts


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_sees_every_micro_batch(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    plain = copy.deepcopy(module)
    _train_step(module, criterion, torch.optim.SGD(module.parameters(), lr=0.1), micro_batch_size=6)(Batch(X, y))
    for part in X.split(6):
        plain(part)
    torch.testing.assert_close(dict(module.named_buffers()), dict(plain.named_buffers()), **BIT_FOR_BIT)


# -- the rest of the contract --------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_factors_of_the_rows(micro_batch_size):
    module, criterion, X, y = PLAIN["tanh"]()
    plain = copy.deepcopy(module)
    factor = torch.linspace(0, 2, len(X), dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    loss = _train_step(module, criterion, optimizer, micro_batch_size=micro_batch_size)(Batch(X, y, factor=factor))[
        "loss"
    ]
    expected = (factor * nn.functional.cross_entropy(plain(X), y, reduction="none")).mean()
    expected.backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    clean = nn.functional.cross_entropy(PLAIN["tanh"]()[0](X), y)
    torch.testing.assert_close(loss, clean.detach(), **DOUBLE)
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **DOUBLE)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_weights_of_the_rows(micro_batch_size):
    module, criterion, X, y = PLAIN["tanh"]()
    plain = copy.deepcopy(module)
    times = torch.arange(len(X)) % 3
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    step = _train_step(module, criterion, optimizer, micro_batch_size=micro_batch_size)
    loss = step(Batch(X, y, weight=times.double()))["loss"]
    rows = torch.arange(len(X)).repeat_interleave(times)
    expected = nn.functional.cross_entropy(plain(X[rows]), y[rows])
    expected.backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    torch.testing.assert_close(loss, expected.detach(), **DOUBLE)
    torch.testing.assert_close(dict(module.state_dict()), dict(plain.state_dict()), **DOUBLE)


def test_batches_are_transformed_in_order_once_per_batch():
    class Add(Remedy):
        inner_steps = 2

        def __init__(self, amount):
            self.amount = amount

        def transform_batch(self, batch, rng):
            calls.append(self.amount)
            return batch._replace(X=batch.X * 2 + self.amount + torch.rand(1, generator=rng))

    calls = []
    module, criterion, X, y = PLAIN["tanh"]()
    rng = torch.Generator().manual_seed(5)
    step = _train_step(module, criterion, torch.optim.SGD(module.parameters(), lr=0.1), (Add(1), Add(10)), rng=rng)
    outputs = copy.deepcopy(module)
    y_pred = step(Batch(X, y))["y_pred"]
    a, b = torch.rand(2, 1, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(y_pred, outputs((X * 2 + 1 + a) * 2 + 10 + b).detach(), **DOUBLE)
    assert calls == [1, 10]


@pytest.mark.parametrize(("optimizer", "n_calls"), [("sgd", 3), ("lbfgs", None)])
def test_on_grad_sees_the_gradient_and_may_change_it(optimizer, n_calls):
    module, criterion, X, y = PLAIN["tanh"]()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    seen = []

    def clip_to_nothing(batch):
        seen.append((batch.X is X, [p.grad.abs().sum().item() > 0 for p in module.parameters()]))
        for p in module.parameters():
            p.grad.zero_()

    make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1), "lbfgs": OPTIMIZERS["lbfgs"]}[optimizer]
    remedies = (Proximal(0.0, 3),)
    _train_step(module, criterion, make(list(module.parameters())), remedies, on_grad=clip_to_nothing)(Batch(X, y))
    assert seen == [(True, [True] * 4)] * len(seen)
    assert n_calls in (len(seen), None)
    torch.testing.assert_close(dict(module.state_dict()), before, **BIT_FOR_BIT)


def test_unused_and_frozen_parameters_are_left_alone():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
            self.net, _, _, _ = PLAIN["tanh"]()
            self.net[0].bias.requires_grad_(False)

        def forward(self, X):
            return self.net(X)

    module = Partly()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    _, criterion, X, y = PLAIN["tanh"]()
    # Weight decay would move them if their gradient were zero instead of missing.
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    step = _train_step(module, criterion, optimizer)
    step(Batch(X, y))
    assert module.unused.grad is None
    changed = {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"net.0.weight", "net.2.weight", "net.2.bias"}


def test_the_most_inner_steps_count():
    module, criterion, *_ = PLAIN["tanh"]()
    optimizer = OPTIMIZERS["sgd"](list(module.parameters()))
    assert _train_step(module, criterion, optimizer, (Proximal(0.1, 2), SAM(), Proximal(0.1, 5))).inner_steps == 5
    assert _train_step(module, criterion, optimizer).inner_steps == 1


def test_no_global_random_numbers():
    module, criterion, _, _ = PLAIN["conv"]()
    X, y = images()
    optimizer = OPTIMIZERS["sgd"](list(module.parameters()))
    step = _train_step(module, criterion, optimizer, (Augmentation(), Proximal()), micro_batch_size=5)
    with no_global_random_numbers():
        step(Batch(X, y))
