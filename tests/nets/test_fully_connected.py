import pytest
import torch
from torch import nn

from sklgap.nets import F1, F2, FullyConnected


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _dense(n_inputs, n_outputs):
    return n_inputs * n_outputs + n_outputs


@pytest.mark.parametrize(
    ("net", "n_features", "n_classes", "n_hidden"), [(F1, 784, 10, 5), (F2, 360, 1973, 7)], ids=["F1", "F2"]
)
def test_size_of_the_papers_nets(net, n_features, n_classes, n_hidden):
    with torch.device("meta"):
        module = net(n_features, n_classes)
        outputs = module(torch.empty(6, n_features))
    assert outputs.shape == (6, n_classes)
    hidden = _dense(n_features, 512) + (n_hidden - 1) * _dense(512, 512)
    assert _count(module) == hidden + n_hidden * 2 * 512 + _dense(512, n_classes)


def test_order_of_the_layers():
    kinds = [type(layer) for layer in F1(4, 3, n_layers=2, width=5).layers]
    assert kinds == [nn.Flatten] + [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]


def test_batch_norm_has_the_papers_epsilon():
    layers = [layer for layer in F1(4, 3).modules() if isinstance(layer, nn.BatchNorm1d)]
    assert [(layer.eps, layer.momentum, layer.num_features) for layer in layers] == [(1e-3, 0.1, 512)] * 5


def test_images_are_flattened():
    module = FullyConnected(2 * 3 * 3, 4, n_layers=1, width=5).eval()
    X = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(X), module(X.flatten(1)))


def test_no_hidden_layer_is_a_linear_model():
    module = FullyConnected(4, 3, n_layers=0)
    assert _count(module) == _dense(4, 3)


def test_outputs_are_logits():
    outputs = F1(4, 3, width=8)(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
    assert outputs.min() < 0
    assert (outputs.sum(1) - 1).abs().max() > 0.01
