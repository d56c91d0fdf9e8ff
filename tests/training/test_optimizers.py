"""LARS and LAMB from pytorch_optimizer, the extra ``optimizers``: one update against the papers' formulas."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from tests.tiny import Mlp, blobs, same_weights, small, weights

X, Y = blobs()
# One float32 step.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-7}
LR, DECAY, TRUST = 0.5, 0.01, 0.02


@pytest.fixture
def optimizers():
    return pytest.importorskip("pytorch_optimizer")


def one_update(**params):
    """Return the weights before and after one update on all rows, and the gradient."""
    model = small(net=Mlp, init="torch", batch_size=-1, max_epochs=1, lr=LR, **params).fit(X, Y)
    module = Mlp()
    module.load_state_dict(model.net_.module_start_)
    torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return {name: p.detach() for name, p in module.named_parameters()}, weights(model), gradients


def test_lars(optimizers):
    """You, Gitman, Ginsburg 2017: rate lr * trust * |w| / (|g| + decay |w|) per layer; plain for vectors."""
    params = {"optimizer__weight_decay": DECAY, "optimizer__trust_coefficient": TRUST}
    before, after, gradients = one_update(optimizer=optimizers.LARS, **params)
    for name, w in before.items():
        g = gradients[name]
        rate = TRUST * w.norm() / (g.norm() + DECAY * w.norm()) if w.ndim > 1 else 1.0
        step = LR * rate * (g + DECAY * w) if w.ndim > 1 else LR * g
        torch.testing.assert_close(after[name], w - step, **FLOAT32)


def test_lamb(optimizers):
    """You et al. 2020, without bias correction: r = m / (sqrt(v) + eps), step lr * |w| / |r + decay w| (r + decay w).

    By default the package divides the step by 1 - beta_1^t on top (tenfold at first) and decays outside the ratio.
    """
    params = {"optimizer__adam_debias": True, "optimizer__weight_decouple": False, "optimizer__weight_decay": DECAY}
    before, after, gradients = one_update(optimizer=optimizers.Lamb, **params)
    for name, w in before.items():
        g = gradients[name]
        r = 0.1 * g / ((0.001 * g * g).sqrt() + 1e-6) + DECAY * w
        torch.testing.assert_close(after[name], w - LR * w.norm() / r.norm() * r, rtol=1e-4, atol=1e-6)


SCHEDULE = {"batch_size": 20, "lr_scaling": "linear", "lr_warmup_epochs": 2, "max_epochs": 6}


@pytest.mark.parametrize("name", ["LARS", "Lamb"])
def test_an_optimizer_like_any_other(optimizers, name):
    params = {"optimizer": getattr(optimizers, name), "micro_batch_size": 10, **SCHEDULE}
    model = small(**params).fit(X, Y)
    assert np.isfinite(model.history_[:, "train_loss"]).all()
    assert model.history_[-1, "weight_distance"] > 0
    assert same_weights(clone(model).fit(X, Y), model)


@pytest.mark.parametrize("between", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["LARS", "Lamb", "LBFGS", "RMSprop"])
def test_optimizers_with_attributes_of_their_own_resume(request, name, between):
    """torch leaves them out of pickles and copies."""
    source = torch.optim if hasattr(torch.optim, name) else request.getfixturevalue("optimizers")
    params = {**SCHEDULE, "optimizer": getattr(source, name), "net": Mlp, "max_epochs": 2}
    if name == "LBFGS":
        params["optimizer__max_iter"] = 4
    whole = small(**params).fit(X, Y)
    half = small(**{**params, "max_epochs": 1}, warm_start=True).fit(X, Y)
    assert same_weights(between(half).fit(X, Y), whole)
