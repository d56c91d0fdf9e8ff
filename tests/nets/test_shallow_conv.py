import pytest
import torch
from torch import nn
from torch.nn import functional

from sklgap.nets import C1, C3
from sklgap.nets._shallow_conv import _same_pool


def _reference_pool(x):
    """'same' pooling in Keras' words: ceil(side / 2) windows, -inf around, the odd cell at the end."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.max_pool2d(functional.pad(x, pads, value=-float("inf")), 3, 2)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("width", [2, 5, 6])
def test_same_pool(height, width):
    # Negative values would lose against a padding of zeros.
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)) - 10
    out = _same_pool([height, width])(x)
    assert out.shape[2:] == (-(-height // 2), -(-width // 2))
    assert torch.equal(out, _reference_pool(x))


@pytest.mark.parametrize(("net", "n_classes"), [(C1, 10), (C3, 100)])
def test_size_of_the_papers_nets(net, n_classes):
    with torch.device("meta"):
        module = net((3, 32, 32), n_classes)
        assert module(torch.empty(2, 3, 32, 32)).shape == (2, n_classes)
    convolutions = (3 * 25 * 64 + 64) + 2 * 64 + (64 * 25 * 64 + 64) + 2 * 64
    dense = (8 * 8 * 64 * 384 + 384) + 2 * 384 + (384 * 192 + 192) + 2 * 192 + (192 * n_classes + n_classes)
    assert sum(p.numel() for p in module.parameters()) == convolutions + dense


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (6, 9), (28, 28), (31, 32)])
def test_any_image_size(size):
    module = C1((2, *size), 3, n_filters=2, hidden=(4,))
    assert module(torch.zeros(2, 2, *size)).shape == (2, 3)


def test_layout():
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    dense = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    layers = C1((3, 8, 8), 10, n_filters=2, hidden=(5, 4)).layers
    assert [type(layer) for layer in layers] == block * 2 + [nn.Flatten] + dense * 2 + [nn.Linear]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)} == {1e-3}
    assert {(layer.kernel_size, layer.stride) for layer in layers if isinstance(layer, nn.Conv2d)} == {((5, 5), (1, 1))}


def test_no_dense_layer():
    module = C1((1, 8, 8), 3, n_filters=2, hidden=())
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_dropout_is_a_parameter():
    assert {m.p for m in C1((1, 8, 8), 3, 2, (4,), dropout=0.25).modules() if isinstance(m, nn.Dropout)} == {0.25}
