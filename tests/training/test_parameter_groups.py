"""Parameter groups by name."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklgap.remedies._check import SHORTHANDS
from tests.tiny import Mlp, blobs, small, weights

X, Y = blobs()
BIASES = [("*.bias", {"lr": 0.0})]


def moved(model):
    """Return the largest change of every parameter."""
    start = model.net_.module_start_
    return {name: float((value - start[name]).abs().max()) for name, value in weights(model).items()}


@pytest.mark.parametrize("remedy", [None, *sorted(set(SHORTHANDS) - {"augmentation", "batchaugmentation"})])
def test_groups_have_their_own_rates_with_every_remedy(remedy):
    remedies = () if remedy is None else (remedy,)
    model = small(net=Mlp, optimizer__param_groups=BIASES, remedies=remedies, optimizer=torch.optim.SGD, lr=0.1)
    changes = moved(model.fit(X, Y))
    assert all((change == 0) == name.endswith("bias") for name, change in changes.items())


def test_scaled_rates_scale_in_every_group():
    params = {"net": Mlp, "optimizer": torch.optim.SGD, "lr": 0.1, "batch_size": -1, "max_epochs": 1}
    groups = [("*.bias", {"lr": 0.4}), ("layers.2.*", {"lr": 0.2})]
    plain = small(optimizer__param_groups=groups, **params).fit(X, Y)
    scaled = small(optimizer__param_groups=groups, lr_scaling="linear", base_batch_size=30, **params).fit(X, Y)
    factor = {name: change / moved(plain)[name] for name, change in moved(scaled).items()}
    assert list(factor.values()) == pytest.approx([2.0] * 4, rel=1e-4)
    assert scaled.history_[-1, "lr"] == pytest.approx(0.2)


def test_a_changed_rate_of_a_warm_start_leaves_the_groups_that_have_their_own():
    model = small(net=Mlp, optimizer__param_groups=[("*.bias", {"lr": 0.3})], lr=0.1, warm_start=True).fit(X, Y)
    model.set_params(lr=0.05).fit(X, Y)
    assert [group["lr"] for group in model.net_.optimizer_.param_groups] == [0.3, 0.05]
    assert small(net=Mlp, lr=0.1, warm_start=True).fit(X, Y).set_params(lr=0.05).fit(X, Y).history_[-1, "lr"] == 0.05


def test_clones_and_searches():
    model = small(net=Mlp, optimizer__param_groups=BIASES)
    assert clone(model).get_params()["optimizer__param_groups"] == BIASES
    search = GridSearchCV(model, {"optimizer__param_groups": [BIASES, []]}, cv=2).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"*.bias": {"lr": 0.1}}, "list of pairs"),
        ([("*.bias", 0.1)], "list of pairs"),
        (["*.bias"], "list of pairs"),
        ([("*.bais", {"lr": 0.1})], "'\\*.bais' does not match any"),
        ([("*", {"lr": 0.1}), ("*.bias", {"lr": 0.2})], "does not match any .* before it leave"),
        ([("*.bias", {"larning_rate": 0.1})], "'larning_rate' .* not an option of Adam"),
    ],
)
def test_refused_in_one_sentence(groups, words):
    with pytest.raises(ValueError, match=f"^optimizer__param_groups.*{words}"):
        small(net=Mlp, optimizer__param_groups=groups).fit(X, Y)


# -- optimisers for matrices -------------------------------------------------------------------------------------------


class Orthogonal(torch.optim.Optimizer):
    """Muon in short: orthogonalised gradients for matrices; in groups with ``matrices=False`` plain gradients."""

    def __init__(self, params, lr=0.02, matrices=True):
        super().__init__(params, {"lr": lr, "matrices": matrices})
        for group in self.param_groups:
            if group["matrices"] and any(p.ndim != 2 for p in group["params"]):
                raise ValueError("Orthogonal takes matrices only")

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and group["matrices"]:
                    u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                    p.sub_(u @ v, alpha=group["lr"])
                elif p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"])
        return loss


class NoBiases(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False)

    def forward(self, X):
        return self.second(self.first(X).tanh())


@pytest.mark.parametrize("remedies", [(), ("sam",), ("proximal",)])
def test_an_optimiser_for_matrices_trains_a_net_with_biases(remedies):
    groups = [("*.bias", {"matrices": False, "lr": 0.1})]
    model = small(net=Mlp, optimizer=Orthogonal, optimizer__param_groups=groups, remedies=remedies, max_epochs=20)
    assert model.fit(X, Y).score(X, Y) > 0.9


@pytest.mark.parametrize("optimizer", [Orthogonal, *([torch.optim.Muon] if hasattr(torch.optim, "Muon") else [])])
def test_vectors_are_refused_with_the_way_out(optimizer):
    with pytest.raises(ValueError, match=r"layers.0.bias.* optimizer__param_groups"):
        small(net=Mlp, optimizer=optimizer).fit(X, Y)
    assert small(net=NoBiases, optimizer=optimizer, max_epochs=10).fit(X, Y).score(X, Y) > 0.8


class Flagged(torch.optim.SGD):
    """Asks for a flag that is none of its defaults in every group, as a Muon of pytorch_optimizer does."""

    def __init__(self, params, lr=0.1):
        if not all("use_muon" in group for group in params):
            raise ValueError("`use_muon` must be set.")
        super().__init__(params, lr=lr)


def test_options_that_are_no_defaults_of_the_optimiser():
    with pytest.raises(ValueError, match=r"`use_muon` must be set; .* optimizer__param_groups"):
        small(net=Mlp, optimizer=Flagged).fit(X, Y)
    groups = [("*.weight", {"use_muon": True}), ("*", {"use_muon": False})]
    model = small(net=Mlp, optimizer=Flagged, optimizer__param_groups=groups).fit(X, Y)
    assert [group["use_muon"] for group in model.net_.optimizer_.param_groups] == [True, False]


def test_another_error_of_the_optimiser_is_its_own():
    with pytest.raises(ValueError, match=r"^optimizer__momentum must be valid for SGD: Invalid momentum value"):
        small(net=Mlp, optimizer=torch.optim.SGD, optimizer__momentum=-1.0).fit(X, Y)
