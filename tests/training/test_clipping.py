"""skorch's gradient clipping acts on the gradient of the whole batch, after all remedies."""

import copy

import pytest
import torch
from skorch.callbacks import GradientNormClipping
from torch.nn.utils import clip_grad_norm_

from sklgap.remedies import SAM
from tests.tiny import Mlp, blobs, small

X, Y = blobs()
BOUND = 0.05

# A gradient summed in float32 in another order.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


def gradient(module):
    module.zero_grad()
    torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()


def sam_gradient(module, rho=0.1):
    gradient(module)
    moved = copy.deepcopy(module)
    norm = torch.cat([p.grad.flatten() for p in module.parameters()]).norm()
    with torch.no_grad():
        for p, q in zip(moved.parameters(), module.parameters(), strict=True):
            p.add_(q.grad, alpha=float(rho / norm))
    gradient(moved)
    for p, q in zip(moved.parameters(), module.parameters(), strict=True):
        q.grad.copy_(p.grad)


@pytest.mark.parametrize("micro_batch_size", [None, 7])
@pytest.mark.parametrize(("remedies", "of"), [((), gradient), ((SAM(0.1),), sam_gradient)])
@pytest.mark.parametrize("bound", [BOUND, 1e9])
def test_against_the_plain_loop(micro_batch_size, remedies, of, bound):
    params = {"net": Mlp, "batch_size": -1, "optimizer": torch.optim.SGD, "lr": 1.0, "max_epochs": 3}
    model = small(
        callbacks=[GradientNormClipping(bound)], micro_batch_size=micro_batch_size, remedies=remedies, **params
    )
    model.fit(X, Y)
    plain = copy.deepcopy(model.module_)
    plain.load_state_dict(model.net_.module_start_)
    plain.train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    lengths = []
    for _ in range(3):
        of(plain)
        lengths.append(clip_grad_norm_(plain.parameters(), bound).item())
        optimizer.step()
    assert min(lengths) > 2 * BOUND  # the small bound is at work in every update
    torch.testing.assert_close(dict(model.module_.state_dict()), dict(plain.state_dict()), **FLOAT32)
