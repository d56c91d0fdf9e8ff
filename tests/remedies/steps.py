"""One training step of the package, and the same in a few plain lines: what the tests of remedies compare."""

import copy

import torch

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.training import TrainStep
from tests.cases import BIT_FOR_BIT
from tests.tiny import TinyC1, images, same_weights, small


def step_of(module, criterion, remedies, *, optimizer=None, seed=3, **kwargs):
    """Return the step of a module, with SGD unless told otherwise."""
    params = trainable_parameters(module)
    optimizer = optimizer or torch.optim.SGD(list(params.values()), lr=0.1)
    rng = torch.Generator().manual_seed(seed)
    loss_fn = ModuleLoss(module, criterion, params)
    return TrainStep(loss_fn, params, optimizer, remedies, rng=rng, **kwargs)


def stepped(problem, remedies, *, factor=None, **kwargs):
    """Make one step on all rows; return the gradients of its first evaluation, its result, and the module after it."""
    module, criterion, X, y = problem
    seen = []
    step = step_of(
        module,
        criterion,
        remedies,
        on_grad=lambda batch: seen.append({n: p.grad.clone() for n, p in step.params.items() if p.grad is not None}),
        **kwargs,
    )
    result = step(Batch(X, y, factor=factor))
    return seen[0], result, module


def gradient(module, loss):
    """Return the gradient of a loss with respect to the parameters of a module, by name."""
    names, params = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, params), strict=True))


def moved_by(module, displacement):
    """Return a copy of the module whose parameters are displaced; its batch norm counts for nothing."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for name, p in other.named_parameters():
            p += displacement[name]
    return other


def drawn(remedy, X, seed=3):
    """Return the batch that the remedy makes of the rows, with the random numbers of ``stepped``."""
    return remedy.transform_batch(Batch(X, torch.zeros(len(X))), torch.Generator().manual_seed(seed))


def check_neutral(*remedies):
    """Fit a net with batch norm and dropout with and without the remedies: the same, bit for bit."""
    X, y = images()
    plain, other = (small(net=TinyC1, batch_size=7, remedies=given).fit(X, y) for given in ((), remedies))
    assert same_weights(plain, other)
    assert plain.history_[:, "train_loss"] == other.history_[:, "train_loss"]


def assert_equal(actual, expected, tolerance=BIT_FOR_BIT):
    torch.testing.assert_close(actual, expected, **tolerance)
