from collections import OrderedDict

import pytest
import torch
from torch import nn

from sklgap.objective._parameters import (
    copy_of,
    flatten,
    squared_distance,
    trainable_parameters,
    unflatten,
)
from tests.cases import BIT_FOR_BIT


def _params():
    return {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(7.0), "c": torch.arange(4.0).view(2, 2).T}


def test_flatten_keeps_the_order_of_the_dict_and_unflatten_undoes_it():
    theta = flatten(_params())
    assert theta.tolist() == [0, 1, 2, 3, 4, 5, 7, 0, 2, 1, 3]
    back = unflatten(theta, _params())
    assert list(back) == ["b", "a", "c"]
    for name, tensor in _params().items():
        torch.testing.assert_close(back[name], tensor, **BIT_FOR_BIT)


def test_unflatten_is_differentiable():
    theta = torch.ones(11, requires_grad=True)
    (unflatten(theta, _params())["a"] * 3).backward()
    assert theta.grad.tolist() == [0] * 6 + [3] + [0] * 4


def test_trainable_parameters_are_the_modules_own_without_the_frozen_ones():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].weight.requires_grad_(False)
    own = trainable_parameters(module)
    assert list(own) == ["0.bias", "1.weight", "1.bias"]
    assert own["1.weight"] is module[1].weight


def test_squared_distance_and_copies():
    params = {"a": torch.tensor([1.0, 2.0], requires_grad=True), "b": torch.tensor([[3.0]])}
    moved = {"b": torch.tensor([[8.0]]), "a": torch.tensor([1.5, 1.5])}
    distance = squared_distance(params, moved)
    assert distance.shape == ()
    assert distance.item() == 25.5
    copies = copy_of(params)
    assert not copies["a"].requires_grad
    copies["a"].zero_()
    assert params["a"].tolist() == [1, 2]


@pytest.mark.parametrize("layer", ["0", "2", "2.inner"])
def test_the_name_of_a_layer_is_not_a_pattern_of_its_parameters(layer):
    inner = nn.Sequential(OrderedDict(inner=nn.Linear(2, 2)))
    with pytest.raises(
        ValueError, match=rf"does not match any of '0.weight', .* Write '{layer}\.\*' for all parameters"
    ):
        trainable_parameters(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), inner), layer)


@pytest.mark.parametrize("given", [[], 3, nn.Linear(2, 2), list(nn.Linear(100, 100).parameters())])
def test_what_is_no_pattern_is_shown_in_one_short_sentence(given):
    with pytest.raises(ValueError, match="parameters must be None, a pattern of parameter names") as caught:
        trainable_parameters(nn.Linear(2, 2), given)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
