"""Slow and obvious versions of what the package computes; none of them calls the package."""

import copy

import numpy as np
import torch
from torch import nn
from torch.func import functional_call


class ExplicitBatchNorm(nn.Module):
    """Batch norm as a formula: with the statistics given, else with those of the rows, which are kept in ``seen``."""

    def __init__(self, layer):
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.running = None if layer.running_mean is None else (layer.running_mean.clone(), layer.running_var.clone())
        self.statistics = None
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        mean, var = moments([x]) if self.statistics is None else self.statistics
        shape = [1, -1] + [1] * (x.ndim - 2)
        out = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
        return out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape)


def moments(parts):
    """Mean and (biased) variance of each channel over all rows of all parts."""
    rows = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
    mean = rows.mean(dim=1)
    return mean, (rows - mean[:, None]).square().mean(dim=1)


def explicit(module):
    """A copy in evaluation mode whose batch norm is written out."""
    module = copy.deepcopy(module).eval()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, ExplicitBatchNorm(child))
    return module


def permuted_chunks(n_rows, chunk_size):
    """Indices of ceil(n / chunk_size) near-equal chunks of the fixed permutation; one chunk keeps the order."""
    n_chunks = -(-n_rows // chunk_size)
    order = np.random.RandomState(0).permutation(n_rows) if n_chunks > 1 else np.arange(n_rows)
    return [torch.from_numpy(part) for part in np.array_split(order, n_chunks)]


def flat(module):
    """The parameters that require a gradient, as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad])


def loss_of_flat(module, criterion, X, y, policy="batch", chunk_size=10**6):
    """Return f(theta) as a differentiable function of the flat vector, under a batch-norm policy."""
    module = explicit(module)
    layers = [layer for layer in module.modules() if isinstance(layer, ExplicitBatchNorm)]
    names = [(name, p.shape) for name, p in module.named_parameters() if p.requires_grad]
    chunks = permuted_chunks(len(X), chunk_size)

    def f(theta):
        params, start = {}, 0
        for name, shape in names:
            params[name] = theta[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        for layer in layers:
            layer.statistics, layer.seen = layer.running if policy == "running" else None, []
        if policy == "population":
            for chunk in chunks:
                functional_call(module, params, (X[chunk],))
            for layer in layers:
                layer.statistics = moments(layer.seen)
        losses = [criterion(functional_call(module, params, (X[chunk],)), y[chunk]) for chunk in chunks]
        return sum(loss * len(chunk) / len(X) for loss, chunk in zip(losses, chunks, strict=True))

    return f


def gradient(f, theta):
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(f(theta), theta)[0]


def hessian_product(f, theta, v):
    """The Hessian times a vector: the gradient of the gradient's product with it."""
    theta = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(theta), theta, create_graph=True)
    return torch.autograd.grad(slope @ v, theta)[0]


def dense_hessian(f, theta):
    return torch.autograd.functional.hessian(f, theta, vectorize=True)  # all rows at once: ten times as fast


def central_differences(f, theta, step=1e-5):
    """Gradient of a Python function of a vector, two evaluations a coordinate."""
    out = torch.zeros_like(theta)
    for i in range(len(theta)):
        e = torch.zeros_like(theta)
        e[i] = step
        out[i] = (f(theta + e) - f(theta - e)) / (2 * step)
    return out


def ghost_slices(n_rows, ghost_size):
    """Rows of each ghost batch: x[i::k] of the full ones, then the remainder; a single last row joins the last one."""
    k, remainder = divmod(n_rows, ghost_size)
    if k == 0 or (k == 1 and remainder <= 1):
        return [slice(0, n_rows)]
    if remainder == 1:
        k, remainder = k - 1, ghost_size + 1
    n_full = k * ghost_size
    return [slice(i, n_full, k) for i in range(k)] + ([slice(n_full, n_rows)] if remainder else [])


def ghost_batch_norm(layer, x, ghost_size):
    """Apply a plain batch-norm layer in training mode to one ghost batch after the other (updates its buffers)."""
    out = torch.empty_like(x)
    for rows in ghost_slices(len(x), ghost_size):
        out[rows] = layer(x[rows])
    return out


def plain_training(module, criterion, optimizer, batches, steps_per_batch=1, adjust=None):
    """The training loop of any tutorial; ``adjust(anchor)`` may change .grad. Returns each batch's first loss."""
    losses = []
    for X, y in batches:
        anchor = [p.detach().clone() for p in module.parameters()]
        for i in range(steps_per_batch):
            optimizer.zero_grad()
            loss = criterion(module(X), y)
            loss.backward()
            if adjust is not None:
                adjust(anchor)
            optimizer.step()
            if i == 0:
                losses.append(loss.detach())
    return losses
