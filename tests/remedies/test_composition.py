"""Several remedies at once: the order that ``compose`` documents, each stack against plain torch."""

import copy
import itertools

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.remedies import SAM, Adversarial, EntropySGD, Proximal, SampleNoise, Stability
from sklgap.remedies._stability import EXTRA
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, drawn, gradient, moved_by, step_of, stepped
from tests.tiny import blobs, same_weights, small


def _cross_entropy(clean, noisy):
    """Between the probabilities of the rows and those of their noisy copies."""
    return -(clean.softmax(1) * noisy.log_softmax(1)).sum(1).mean()


def _attacked(loss, X, epsilon):
    """Return the rows moved up the slope of a function of them."""
    X = X.clone().requires_grad_()
    return X.detach() + epsilon * torch.autograd.grad(loss(X), X)[0].sign()


@pytest.mark.parametrize("name", PROBLEMS)
def test_attack_then_stability(name):
    """The last is the outermost: stability is asked of the clean rows, beside the mix."""
    module, criterion, X, y = PROBLEMS[name]()
    stability = Stability(0.3, weight=0.7)
    gradients, result, _ = stepped(PROBLEMS[name](), [Adversarial(0.2), stability])
    noise = drawn(stability, X).extra[EXTRA]

    def clean(Z):
        return criterion(module(Z), y)

    mixed = clean(X) / 2 + clean(_attacked(clean, X, 0.2)) / 2
    loss = mixed + 0.7 * _cross_entropy(module(X), module(X + noise))
    assert_equal(gradients, gradient(module, loss), DOUBLE)
    assert_equal(result["loss"], clean(X).detach())


@pytest.mark.parametrize("name", PROBLEMS)
def test_stability_then_attack(name):
    """The attack raises the sum of loss and stability term, and the mix is of these sums."""
    module, criterion, X, y = PROBLEMS[name]()
    stability = Stability(0.3, weight=0.7)
    gradients, result, _ = stepped(PROBLEMS[name](), [stability, Adversarial(0.2)])
    noise = drawn(stability, X).extra[EXTRA]

    def stable(Z):
        return criterion(module(Z), y) + 0.7 * _cross_entropy(module(Z), module(Z + noise))

    loss = stable(X) / 2 + stable(_attacked(stable, X, 0.2)) / 2
    assert_equal(gradients, gradient(module, loss), DOUBLE)
    assert_equal(result["loss"], criterion(module(X), y).detach())


def _worst(module, g, rho):
    norm = torch.cat([v.flatten() for v in g.values()]).norm()
    return moved_by(module, {n: rho * v / norm for n, v in g.items()})


def _walk(module, slope, n_steps, gamma, eta):
    """Return gamma (x - x') after a walk without noise whose mean is its last point; ``slope`` is the walk's."""
    walker = copy.deepcopy(module)
    for _ in range(n_steps):
        g = slope(walker)
        pull = {
            n: p.detach() - q.detach() for (n, p), q in zip(module.named_parameters(), walker.parameters(), strict=True)
        }
        walker = moved_by(walker, {n: -eta * (g[n] - gamma * pull[n]) for n in g})
    pairs = zip(module.named_parameters(), walker.parameters(), strict=True)
    return {n: gamma * (p - q).detach() for (n, p), q in pairs}


@pytest.mark.parametrize("name", PROBLEMS)
def test_sam_then_entropy_sgd(name):
    """The walk goes along SAM's gradients."""
    module, criterion, X, y = PROBLEMS[name]()
    remedies = [SAM(0.3), EntropySGD(3, 0.5, 0.2, noise=0, averaging=1)]
    gradients, _, _ = stepped(PROBLEMS[name](), remedies)

    def sam(m):
        worst = _worst(m, gradient(m, criterion(m(X), y)), 0.3)
        return gradient(worst, criterion(worst(X), y))

    assert_equal(gradients, _walk(module, sam, 3, 0.5, 0.2), DOUBLE)


@pytest.mark.parametrize("name", PROBLEMS)
def test_entropy_sgd_then_sam(name):
    """SAM goes uphill along the gradient of the local entropy, and takes that gradient there."""
    module, criterion, X, y = PROBLEMS[name]()
    remedies = [EntropySGD(3, 0.5, 0.2, noise=0, averaging=1), SAM(0.3)]
    gradients, _, _ = stepped(PROBLEMS[name](), remedies)

    def entropy(m):
        return _walk(m, lambda walker: gradient(walker, criterion(walker(X), y)), 3, 0.5, 0.2)

    assert_equal(gradients, entropy(_worst(module, entropy(module), 0.3)), DOUBLE)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["as listed", "reversed"])
@pytest.mark.parametrize("name", PLAIN)
def test_sam_with_a_penalty_in_either_order(name, order):
    """A loss and a gradient: the order does not matter. From the second inner step on SAM climbs loss and penalty."""
    module, criterion, X, y = PLAIN[name]()
    after = PLAIN[name]()[0]
    remedies = [SAM(0.3), Proximal(0.7, 3)][order]
    step_of(after, criterion, remedies, optimizer=torch.optim.SGD(list(after.parameters()), lr=0.1))(Batch(X, y))
    anchor = copy.deepcopy(module)

    def penalised(m):
        pairs = zip(m.parameters(), anchor.parameters(), strict=True)
        return criterion(m(X), y) + 0.7 / 2 * sum((p - a.detach()).square().sum() for p, a in pairs)

    for _ in range(3):
        worst = _worst(module, gradient(module, penalised(module)), 0.3)
        g = gradient(worst, penalised(worst))
        module = moved_by(module, {n: -0.1 * v for n, v in g.items()})
    assert_equal(dict(after.state_dict()), dict(module.state_dict()), DOUBLE)


@pytest.mark.parametrize("name", PLAIN)
def test_noise_weighs_the_rows_of_whatever_loss_there_is(name):
    module, _, X, y = PLAIN[name]()
    noise = SampleNoise(0.7)
    gradients, _, _ = stepped(PLAIN[name](), [Adversarial(0.2), SAM(0.3), noise])
    z, rows = drawn(noise, X).factor, nn.CrossEntropyLoss(reduction="none")

    def mixed(m):
        # The attack is on each row's own loss, the weights are the same at both points.
        moved = _attacked(lambda Z: rows(m(Z), y).sum(), X, 0.2)
        return (z * (rows(m(X), y) + rows(m(moved), y)) / 2).mean()

    worst = _worst(module, gradient(module, mixed(module)), 0.3)
    assert_equal(gradients, gradient(worst, mixed(worst)), DOUBLE)


STACK = {
    "adversarial": Adversarial(0.1),
    "entropy": EntropySGD(2),
    "noise": SampleNoise(0.5),
    "sam": SAM(0.1),
    "stability": Stability(0.1, 0.1),
    "proximal": Proximal(0.1, 2),
}


@pytest.mark.parametrize("pair", list(itertools.combinations(STACK, 2)), ids=" ".join)
def test_every_pair_trains_in_both_orders(pair):
    X, y = blobs()
    models = [small(remedies=[STACK[name] for name in names], max_epochs=1) for names in (pair, pair[::-1])]
    first, second = (model.fit(X, y) for model in models)
    assert first.train_loss_ == pytest.approx(second.train_loss_, rel=0.5)
    assert same_weights(models[0].fit(X, y), first)
