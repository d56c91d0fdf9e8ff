import math

import pytest
import torch
from torch import nn

from sklgap.nets import C1, F1, NETS, check_net, initialize_weights
from sklgap.nets._check import check_init, check_input_shape, net_arguments

NAMES = "'F1', 'F2', 'C1', 'C2', 'C3', 'C4', 'ResNet44', 'WRN16-4'"


def build_linear(n_features=2, n_classes=2):
    return nn.Linear(n_features, n_classes)


@pytest.mark.parametrize("name", ["F1", "F2", "C1", "C2", "C3", "C4", "ResNet44", "WRN16-4"])
def test_names(name):
    assert check_net(name).__name__ == name.replace("-", "_")
    assert NETS[name] is check_net(name)


def test_classes_and_factories_pass_instances_are_copied():
    assert check_net(nn.Linear) is nn.Linear
    assert check_net(build_linear) is build_linear
    module = nn.Linear(2, 2)
    copy = check_net(module)
    assert copy is not module
    assert torch.equal(copy.weight, module.weight)
    nn.init.zeros_(copy.weight)
    assert module.weight.abs().sum() > 0


def test_unknown_name():
    with pytest.raises(ValueError, match=f"net must be one of {NAMES}, a torch module or its class; got 'VGG'"):
        check_net("VGG")


@pytest.mark.parametrize("net", [3, None, dict, int, ("F1",)])
def test_no_net(net):
    with pytest.raises(TypeError, match=f"net must be one of {NAMES}, a torch module or its class; got "):
        check_net(net)


@pytest.mark.parametrize(
    ("given", "X_shape", "shape"),
    [
        (None, (5, 784), (1, 28, 28)),
        (None, (5, 3072), (3, 32, 32)),
        (None, (5, 2, 6, 7), (2, 6, 7)),
        ((1, 4, 3), (5, 12), (1, 4, 3)),
        ([1, 4, 3], (5, 12), (1, 4, 3)),
        ((3, 28, 28), (5, 3, 28, 28), (3, 28, 28)),
    ],
)
@pytest.mark.parametrize("needed", [True, False])
def test_input_shape(given, X_shape, shape, needed):
    assert check_input_shape(given, X_shape, needed=needed) == shape


@pytest.mark.parametrize("X_shape", [(5, 12), (5, 28, 28), (5, 784, 1, 1, 1)])
def test_input_shape_that_cannot_be_told(X_shape):
    assert check_input_shape(None, X_shape, needed=False) is None
    with pytest.raises(ValueError, match=r"input_shape=\(channels, height, width\) must be given .* unless X has"):
        check_input_shape(None, X_shape, needed=True)


@pytest.mark.parametrize("shape", [(1, 12), (1, 3, 0), (1, 3, 4.0), "1x3x4", 12, (1, -3, -4)])
def test_bad_input_shape(shape):
    with pytest.raises(ValueError, match=r"input_shape must be None or \(channels, height, width\); got "):
        check_input_shape(shape, (5, 12), needed=False)


def test_input_shape_that_does_not_fit():
    with pytest.raises(ValueError, match=r"input_shape=\(1, 3, 5\) does not fit X, whose samples have 12 values"):
        check_input_shape((1, 3, 5), (5, 12), needed=False)


def test_net_arguments():
    assert net_arguments(F1, 12, 3, (1, 3, 4)) == {"n_features": 12, "n_classes": 3}
    assert net_arguments(C1, 12, 3, (1, 3, 4)) == {"input_shape": (1, 3, 4), "n_classes": 3}


def test_glorot_uniform():
    module = C1((3, 8, 8), 10, n_filters=16, hidden=(64, 32))
    initialize_weights(module)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) == 5
    for layer in layers:
        n_out, n_in, *kernel = layer.weight.shape
        bound = math.sqrt(6 / (math.prod(kernel) * (n_in + n_out)))
        # Of at least 320 uniform weights one is nearer to the bound than 5 %, but for a chance of 1e-7.
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        # Variance bound^2 / 3; 320 or more weights: five standard errors are a quarter.
        assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.25)
        assert not layer.bias.any()
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


def test_layers_without_bias():
    module = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Conv1d(2, 2, 1, bias=False))
    initialize_weights(module)
    assert module[0].bias is None


def test_torch_init_leaves_the_weights():
    module = nn.Linear(4, 3)
    before = module.weight.detach().clone()
    initialize_weights(module, "torch")
    assert torch.equal(module.weight, before)


def test_a_callable_gets_the_module():
    module = nn.Linear(4, 3)
    initialize_weights(module, lambda m: nn.init.constant_(m.weight, 2.0))
    assert (module.weight == 2).all()
    assert module.bias.abs().sum() > 0


@pytest.mark.parametrize("init", ["glorot_uniform", "torch", len])
def test_check_init(init):
    assert check_init(init) == init


@pytest.mark.parametrize("init", ["he", None, 3])
def test_bad_init(init):
    with pytest.raises(ValueError, match="init must be 'glorot_uniform', 'torch' or a callable on a module; got "):
        check_init(init)
