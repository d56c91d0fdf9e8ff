"""Modules in double precision, and torch's default precision."""

import copy

import numpy as np
import pytest
import torch
from skorch.dataset import ValidSplit
from torch import nn

from sklgap.training._dtypes import floating_dtype, in_dtype
from tests.tiny import Mlp, TinyC1, blobs, images, small

X, Y = blobs()


@pytest.fixture
def default_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair():
    """Return one module in single and in double precision."""
    single = Mlp()
    return single, copy.deepcopy(single).double()


PARAMS = {
    "plain": {},
    "split": {"train_split": ValidSplit(4)},
    "remedies": {"remedies": ("sam", "stability", "adversarial"), "proximal_lambda": 0.1},
    "micro-batches": {"batch_size": 30, "micro_batch_size": 10},
    "own loader": {"iterator_train__shuffle": True},
    "own validation loader": {"train_split": ValidSplit(4), "iterator_valid__num_workers": 0},
}


@pytest.mark.parametrize("case", PARAMS)
def test_a_module_in_double_precision(case):
    single, model = (small(net=net, optimizer=torch.optim.SGD, lr=0.1, **PARAMS[case]).fit(X, Y) for net in pair())
    assert model.module_.layers[0].weight.dtype == torch.float64
    np.testing.assert_allclose(model.predict_proba(X), single.predict_proba(X), atol=1e-5)
    assert model.net_.predict(X).shape == (60,)


@pytest.mark.parametrize("case", PARAMS)
def test_the_default_precision_of_torch(case, default_double):
    model = small(max_epochs=3, **PARAMS[case]).fit(X, Y)
    assert floating_dtype(model.module_) == torch.float64
    assert model.score(X, Y) > 0.5


def test_images_under_the_default_precision(default_double):
    pictures, y = images()
    params = {"net": TinyC1, "input_shape": (1, 8, 8), "augmentation": "crop-flip", "lr_scaling": "sqrt"}
    with pytest.warns(UserWarning, match="mirror"):
        model = small(**params).fit(pictures, y)
    assert model.predict_proba(pictures).dtype == np.float64


def test_fitted_under_one_default_and_used_under_another():
    model = small().fit(X, Y)
    before = model.predict_proba(X)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(model.predict_proba(X), before)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_less_than_single_precision_is_refused(dtype):
    for net in (lambda: Mlp().to(dtype), Mlp().to(dtype)):
        with pytest.raises(ValueError, match=r"^net must have parameters in float32 or float64; got .*net.float\(\)"):
            small(net=net).fit(X, Y)


class Mixed(nn.Module):
    """A part in single precision in a module in double precision."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.layer = nn.Linear(4, 3)

    def forward(self, X):
        return self.layer((X * self.scale).float())


def test_several_precisions_in_one_module_are_refused():
    with pytest.raises(ValueError, match=r"^net must have all its parameters in one precision; .*'layer.weight'"):
        small(net=Mixed).fit(X, Y)


def test_only_floating_point_rows_are_cast():
    whole = torch.arange(3)
    assert in_dtype(whole, torch.float64) is whole
    assert in_dtype(torch.zeros(2), torch.float64).dtype == torch.float64
    assert floating_dtype(nn.ReLU()) == torch.float32
    assert floating_dtype(nn.ParameterList([torch.zeros(1, dtype=torch.complex128)])) == torch.float64
