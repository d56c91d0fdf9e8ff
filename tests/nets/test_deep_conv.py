import itertools

import pytest
import torch
from torch import nn

from sklgap.nets import C2, C4


@pytest.mark.parametrize(("net", "n_classes"), [(C2, 10), (C4, 100)])
def test_size_of_the_papers_nets(net, n_classes):
    with torch.device("meta"):
        module = net((3, 32, 32), n_classes)
        assert module(torch.empty(2, 3, 32, 32)).shape == (2, n_classes)
    filters = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in itertools.pairwise(filters))
    # Five pools: 32 -> 1.
    assert sum(p.numel() for p in module.parameters()) == (
        convolutions + (512 * 512 + 512) + 2 * 512 + (512 * n_classes + n_classes)
    )


def test_layout():
    with torch.device("meta"):
        layers = C2((3, 32, 32), 10).layers
    words = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.ReLU: "r", nn.MaxPool2d: "P", nn.Flatten: "F", nn.Linear: "L"}
    words[nn.BatchNorm1d] = "n"
    text = "".join(f"{int(10 * m.p)}" if isinstance(m, nn.Dropout) else words[type(m)] for m in layers)
    two, three = "cnr{0}cnrP", "cnr{0}cnr{0}cnrP"
    assert text == two.format(3) + two.format(4) + three.format(4) * 3 + "F5Lnr5L"
    assert {m.eps for m in layers if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)} == {1e-3}
    assert {(m.kernel_size, m.stride) for m in layers if isinstance(m, nn.Conv2d)} == {((3, 3), (1, 1))}


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (28, 28), (33, 32)])
def test_any_image_size(size):
    module = C2((2, *size), 3, stacks=((2, 3), (4,), (2, 2, 2)), hidden=4)
    assert module(torch.zeros(2, 2, *size)).shape == (2, 3)
