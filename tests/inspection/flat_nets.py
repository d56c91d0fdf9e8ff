"""Small classifiers in float64 for the measures of flatness, and what a few lines of torch compute of them."""

import copy

import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from tests.references import flat, loss_of_flat


def relu_net(seed=0, n=30, criterion=None):
    """Return (module, criterion), X, y; trained a little, so that gradients are small and not zero."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = X[:, :3].argmax(dim=1)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
    return (module, nn.CrossEntropyLoss() if criterion is None else criterion), X, y


def rescaled(pair, scale):
    """Return the same function with other weights: the first layer times ``scale``, the second divided by it."""
    module = copy.deepcopy(pair[0])
    with torch.no_grad():
        module[0].weight.mul_(scale)
        module[0].bias.mul_(scale)
        module[2].weight.div_(scale)
    return module, pair[1]


def louder(pair, factor):
    """Return the net whose logits are ``factor`` times as large."""
    module = copy.deepcopy(pair[0])
    with torch.no_grad():
        module[2].weight.mul_(factor)
        module[2].bias.mul_(factor)
    return module, pair[1]


def dense_hessian(pair, X, y):
    f = loss_of_flat(*pair, X, y)
    return hessian(f, flat(pair[0]))


def dense_fisher(pair, X):
    """The true Fisher matrix: over all samples and all classes, by the definition."""
    module = pair[0]
    names = [(name, p) for name, p in module.named_parameters()]
    total = 0.0
    for x in X:
        probabilities = module(x[None])[0].softmax(dim=0).detach()
        for k, probability in enumerate(probabilities):
            log_p = functional_call(module, dict(names), (x[None],))[0].log_softmax(dim=0)[k]
            slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(log_p, [p for _, p in names])])
            total = total + probability * torch.outer(slope, slope)
    return total / len(X)
