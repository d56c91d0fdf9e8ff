import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional

from sklgap import LBGapClassifier
from sklgap.nets import WRN16_4, GhostBatchNorm, ResNet, ResNet44, WideResNet, convert_to_ghost_batch_norm
from tests.cases import BIT_FOR_BIT, DOUBLE
from tests.tiny import images

TINY = {
    "ResNet44": lambda shape=(2, 7, 5): ResNet44(shape, 3, n_blocks=2, widths=(3, 4, 6)),
    "WRN16-4": lambda shape=(2, 7, 5): WRN16_4(shape, 3, n_blocks=2, widening=2, widths=(2, 3, 4)),
}


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _of(kind, module):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def _tiny(name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TINY[name]().double()
        for p in module.parameters():  # batch norm's weights and biases too
            nn.init.normal_(p, std=0.5)
    return module


def _images(n=6, shape=(2, 7, 5), seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the architecture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [10, 100])
def test_size_of_resnet44(n_classes):
    with torch.device("meta"):
        module = ResNet44((3, 32, 32), n_classes)
        assert module(torch.empty(2, 3, 32, 32)).shape == (2, n_classes)
    # Three stages of 14 convolutions; the first of a stage takes the channels of the stage before.
    stages = sum(9 * (a * b + 13 * b * b) for a, b in ((16, 16), (16, 32), (32, 64)))
    batch_norm = 2 * (16 + 14 * (16 + 32 + 64))
    assert _count(module) == 9 * 3 * 16 + stages + batch_norm + 65 * n_classes
    assert len(_of(nn.Conv2d | nn.Linear, module)) == 44
    if n_classes == 10:
        assert round(_count(module) / 1e6, 2) == 0.66  # He et al. (2016), Table 6


@pytest.mark.parametrize("n_classes", [10, 100])
def test_size_of_wrn16_4(n_classes):
    with torch.device("meta"):
        module = WRN16_4((3, 32, 32), n_classes)
        assert module(torch.empty(2, 3, 32, 32)).shape == (2, n_classes)
    pairs = ((16, 64), (64, 128), (128, 256))
    stages = sum(9 * (a * b + 3 * b * b) + a * b for a, b in pairs)
    batch_norm = sum(2 * (a + 3 * b) for a, b in pairs) + 2 * 256
    assert _count(module) == 9 * 3 * 16 + stages + batch_norm + 257 * n_classes
    assert len(_of(nn.Conv2d, module)) == 16  # with the three shortcuts, as the paper counts
    if n_classes == 10:
        assert int(_count(module) / 1e5) / 10 == 2.7  # Zagoruyko and Komodakis (2016): 2.7 M (of 2.75)


@pytest.mark.parametrize(("net", "n_norms"), [(ResNet44, 43), (WRN16_4, 13)])
def test_layers_are_those_of_our_nets(net, n_norms):
    with torch.device("meta"):
        module = net((3, 32, 32), 10)
    norms = _of(nn.BatchNorm2d, module)
    assert [(layer.eps, layer.momentum) for layer in norms] == [(1e-3, 0.1)] * n_norms
    assert all(layer.bias is None for layer in _of(nn.Conv2d, module))
    assert _of(nn.Linear, module)[0].bias is not None
    assert net.takes_images


@pytest.mark.parametrize("net", [ResNet44, WRN16_4])
@pytest.mark.parametrize(("size", "last"), [((32, 32), (8, 8)), ((28, 28), (7, 7)), ((33, 31), (9, 8))])
def test_two_stages_halve_the_side_rounding_up(net, size, last):
    seen = []
    with torch.device("meta"):
        module = net((1, *size), 2, n_blocks=1)
        _of(nn.AdaptiveAvgPool2d, module)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        module(torch.empty(2, 1, *size))
    assert seen == [(2, module.layers[-1].in_features, *last)]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (2, 7, 5), (3, 28, 28), (4, 2, 9)])
def test_any_image_size(name, shape):
    assert TINY[name](shape)(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("blocks", [1, 3])
def test_families(blocks):
    assert len(_of(nn.Conv2d, ResNet((1, 4, 4), 2, blocks, widths=(2, 3)))) == 1 + 4 * blocks
    assert len(_of(nn.Conv2d, WideResNet((1, 4, 4), 2, blocks, widening=2, widths=(2, 3)))) == 1 + 4 * blocks + 2
    # A block that neither widens nor strides has nothing on its shortcut.
    assert len(_of(nn.Conv2d, WideResNet((1, 4, 4), 2, blocks, widening=1, widths=(2,)))) == 1 + 2 * blocks


def test_dropout_stands_between_the_convolutions_of_a_block():
    module = WRN16_4((1, 4, 4), 2, n_blocks=1, widths=(2, 3), dropout=0.3)
    assert [layer.p for layer in _of(nn.Dropout, module)] == [0.3] * 2
    kinds = [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    layers = [layer for layer in module.layers[1].modules() if type(layer) in kinds]
    assert [type(layer) for layer in layers[: len(kinds)]] == kinds
    assert {layer.p for layer in _of(nn.Dropout, WRN16_4((1, 4, 4), 2))} == {0.0}


# -- against the formulas of the papers ------------------------------------------------------------------------------


def _normalised(x, layer):
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    shape = (1, -1, 1, 1)
    out = (x - mean.view(shape)) / (var.view(shape) + 1e-3).sqrt()
    return out * layer.weight.view(shape) + layer.bias.view(shape)


def _convolved(x, layer, stride=1):
    return functional.conv2d(x, layer.weight, stride=stride, padding=layer.weight.shape[-1] // 2)


def _resnet(module, x, n_stages=3, n_blocks=2):
    """y = relu(x + F(x)), F = norm . conv . relu . norm . conv; the shortcut subsamples and pads with zeros."""
    convs, norms = iter(_of(nn.Conv2d, module)), iter(_of(nn.BatchNorm2d, module))
    x = _normalised(_convolved(x, next(convs)), next(norms)).relu()
    for stage in range(n_stages):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            out = _normalised(_convolved(x, next(convs), stride), next(norms)).relu()
            out = _normalised(_convolved(out, next(convs)), next(norms))
            shortcut = torch.zeros_like(out)
            shortcut[:, : x.shape[1]] = x[..., ::stride, ::stride]
            x = (shortcut + out).relu()
    return x.mean(dim=(2, 3)) @ module.layers[-1].weight.T + module.layers[-1].bias


def _wide_resnet(module, x, n_stages=3, n_blocks=2):
    """a = relu(norm(x)); y = W a + conv(relu(norm(conv(a)))), and x in place of W a where nothing changes."""
    threes = iter([layer for layer in _of(nn.Conv2d, module) if layer.kernel_size == (3, 3)])
    ones = iter([layer for layer in _of(nn.Conv2d, module) if layer.kernel_size == (1, 1)])
    norms = iter(_of(nn.BatchNorm2d, module))
    x = _convolved(x, next(threes))
    for stage in range(n_stages):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            active = _normalised(x, next(norms)).relu()
            out = _normalised(_convolved(active, next(threes), stride), next(norms)).relu()
            out = _convolved(out, next(threes))
            x = out + (x if block else _convolved(active, next(ones), stride))
    x = _normalised(x, next(norms)).relu()
    return x.mean(dim=(2, 3)) @ module.layers[-1].weight.T + module.layers[-1].bias


@pytest.mark.parametrize(("name", "formula"), [("ResNet44", _resnet), ("WRN16-4", _wide_resnet)])
def test_formula(name, formula):
    module, X = _tiny(name), _images()
    pull = torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3)
    out, expected = module(X), formula(module, X)
    torch.testing.assert_close(out, expected, **DOUBLE)
    gradients = [torch.autograd.grad((y * pull).sum(), list(module.parameters())) for y in (out, expected)]
    torch.testing.assert_close(*gradients, **DOUBLE)


# -- with the rest of the package ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_a_row_in_evaluation_does_not_depend_on_the_others(name):
    module, X = _tiny(name), _images()
    module(X)
    together = module.eval()(X)
    torch.testing.assert_close(torch.cat([module(row[None]) for row in X]), together, **DOUBLE)
    assert (module.train()(X) - together).abs().max() > 0.01


@pytest.mark.parametrize("name", TINY)
def test_ghost_batch_norm(name):
    module, X = _tiny(name), _images(4)
    expected = [module(X[rows]).detach() for rows in (slice(0, 4, 2), slice(1, 4, 2))]  # ghosts by stride 2
    n_norms = len(_of(nn.BatchNorm2d, module))
    convert_to_ghost_batch_norm(module, 2)
    assert len(_of(GhostBatchNorm, module)) == n_norms
    assert not _of(nn.BatchNorm2d, module)
    out = module(X)
    for i in range(2):
        torch.testing.assert_close(out[i::2], expected[i], **DOUBLE)


@pytest.mark.parametrize("name", TINY)
def test_it_pickles(name):
    module, X = _tiny(name).eval(), _images()
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(X), module(X), **BIT_FOR_BIT)


@pytest.mark.parametrize(
    "params",
    [
        {"net": "ResNet44", "module__n_blocks": 1, "module__widths": (4, 6)},
        {"net": "WRN16-4", "module__n_blocks": 1, "module__widths": (2, 3), "module__dropout": 0.1},
    ],
    ids=lambda params: params["net"],
)
@pytest.mark.parametrize("flat", [False, True])
def test_as_an_estimator(params, flat):
    X, y = images(n=40, channels=1, side=7)
    if flat:
        X, params = X.reshape(40, -1), {**params, "input_shape": (1, 7, 7)}
    model = LBGapClassifier(**params, ghost_batch_size=4, max_epochs=6, lr=0.02, tol=None, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9  # chance is 0.5
    probabilities = model.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), probabilities)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), probabilities)
