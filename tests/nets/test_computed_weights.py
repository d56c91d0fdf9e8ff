"""Initialising layers that compute their weights from other parameters."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm

from sklgap.nets import initialize_weights
from tests.tiny import blobs, small

X, Y = blobs()


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


class Doubled(nn.Module):
    """A parametrisation of the user's, with an inverse."""

    def forward(self, W):
        return 2 * W

    def right_inverse(self, W):
        return W / 2


class Symmetric(nn.Module):
    """One without."""

    def forward(self, W):
        return W.triu() + W.triu(1).T


def doubled(layer):
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def symmetric(layer):
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def pruned(layer):
    return prune.random_unstructured(layer, "weight", 0.25)


def pruned_twice(layer):
    return prune.l1_unstructured(pruned(layer), "weight", 0.25)


def fives(module):
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.fill_(5.0)


def ramp(module):
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.data = torch.linspace(-1, 1, layer.weight.numel()).view_as(layer.weight).clone()


def orthogonal_rows(module):
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)


REACHED = {
    "weight norm": parametrizations.weight_norm,
    "old weight norm": old_weight_norm,
    "doubled": doubled,
    "pruned": pruned,
    "pruned twice": pruned_twice,
    "nothing": lambda layer: layer,
}
NOT_REACHED = {
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": old_spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "no inverse": symmetric,
}


def forward(layer):
    """Return the weights that a forward pass uses."""
    return layer(torch.eye(6)).detach().T - layer.bias.detach()[:, None]


@pytest.mark.parametrize("wrap", REACHED.values(), ids=REACHED)
@pytest.mark.parametrize("init", [fives, ramp])
def test_what_a_function_writes_is_what_the_layer_computes(init, wrap):
    torch.manual_seed(0)
    net = nn.Sequential(wrap(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 3))
    plain = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    initialize_weights(net, init)
    initialize_weights(plain, init)
    mask = getattr(net[0], "weight_mask", torch.ones(4, 6))
    torch.testing.assert_close(forward(net[0]), mask * plain[0].weight.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net[2].weight, plain[2].weight)


@pytest.mark.parametrize("wrap", REACHED.values(), ids=REACHED)
def test_the_default_draws_the_weights_of_a_plain_layer(wrap):
    net, plain = (nn.Sequential(layer) for layer in (wrap(nn.Linear(6, 4)), nn.Linear(6, 4)))
    for module in (net, plain):
        torch.manual_seed(1)
        initialize_weights(module)
    mask = getattr(net[0], "weight_mask", torch.ones(4, 6))
    torch.testing.assert_close(forward(net[0]), mask * plain[0].weight.detach(), rtol=1e-5, atol=1e-5)


def test_convolutions():
    layer = parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    initialize_weights(nn.Sequential(layer), ramp)
    torch.testing.assert_close(layer.weight.detach().flatten(), torch.linspace(-1, 1, 54), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrap", NOT_REACHED.values(), ids=NOT_REACHED)
def test_a_layer_that_keeps_other_weights_is_named(wrap):
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), wrap(nn.Linear(6, 6)))
    with pytest.warns(UserWarning, match="^init does not reach the layer '2'"):
        initialize_weights(net, fives)
    assert forward(net[2]).isfinite().all()
    assert forward(net[0]).eq(5).all()


def test_zeros_that_a_norm_cannot_have():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4)))
    with pytest.warns(UserWarning, match="cannot have the values"):
        initialize_weights(net, lambda module: nn.init.zeros_(module[0].weight))
    assert forward(net[0]).isfinite().all()


def test_orthogonal_weights_may_be_written():
    net = nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)))
    initialize_weights(net, orthogonal_rows)
    torch.testing.assert_close(net[0].weight @ net[0].weight.T, torch.eye(6), rtol=1e-5, atol=1e-5)


def test_torch_leaves_them_alone_and_so_does_a_function_that_writes_elsewhere():
    for init in ("torch", lambda module: nn.init.zeros_(module[0].bias)):
        net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 4)), old_weight_norm(nn.Linear(4, 4)))
        before = {name: p.clone() for name, p in net.named_parameters() if "bias" not in name}
        initialize_weights(net, init)
        assert all(torch.equal(p, before[name]) for name, p in net.named_parameters() if "bias" not in name)


def test_assignment_through_the_parametrisation_stays():
    def assign(module):
        module[0].weight = torch.full((4, 6), 3.0)

    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4)))
    initialize_weights(net, assign)
    torch.testing.assert_close(forward(net[0]), torch.full((4, 6), 3.0))


def normed():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), old_weight_norm(nn.Linear(8, 3)))


def test_in_a_fit():
    model = small(net=normed, init=fives, max_epochs=1, lr=1e-30).fit(X, Y)
    torch.testing.assert_close(model.module_[0].weight.detach(), torch.full((8, 4), 5.0))
    np_like = model.predict_proba(X)
    assert np_like.shape == (60, 3)
    small(net=model.module_, remedies=("sam",)).fit(X, Y)  # an instance keeps its weights


def test_in_a_fit_a_warning_says_so():
    with pytest.warns(UserWarning, match="^init does not reach"):
        small(net=lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))).fit(X, Y)
