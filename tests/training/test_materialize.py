"""Lazy modules get their shapes before they are initialised."""

import pickle

import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklgap.training._materialize import materialize
from tests.tiny import blobs, images, same_weights, small

X, Y = blobs()
PICTURES, LABELS = images()


def lazy_dense():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))


def lazy_batch_norm():
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.Linear(8, 3))


def lazy_conv():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))


def partly_lazy():
    return nn.Sequential(nn.Linear(4, 8), nn.LazyLinear(3))


FACTORIES = {"dense": lazy_dense, "batch norm": lazy_batch_norm, "conv": lazy_conv, "partly": partly_lazy}


def data(case):
    return (PICTURES, LABELS) if case == "conv" else (X, Y)


@pytest.mark.parametrize("init", ["glorot_uniform", "torch", lambda module: nn.init.constant_(module[0].weight, 0.1)])
@pytest.mark.parametrize("case", FACTORIES)
def test_a_fit_is_repeatable_and_leaves_the_generator_alone(case, init):
    state = torch.get_rng_state()
    first, second = (small(net=FACTORIES[case], init=init).fit(*data(case)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(first, second)
    assert first.predict(data(case)[0]).shape == data(case)[1].shape


def test_initial_weights_are_drawn_for_the_shapes_of_the_data():
    start = small(net=lazy_dense).fit(X, Y).net_.module_start_
    bound = (6 / (4 + 8)) ** 0.5
    assert 0.8 * bound < start["0.weight"].abs().max() <= bound
    assert not start["0.bias"].any()


def test_pickles():
    model = small(net=lazy_dense).fit(X, Y)
    assert same_weights(pickle.loads(pickle.dumps(model)), model)


def test_an_instance_stays_lazy_itself():
    module = lazy_dense()
    model = small(net=module).fit(X, Y)
    assert torch.nn.parameter.is_lazy(module[0].weight)
    assert model.module_[0].weight.shape == (8, 4)
    assert same_weights(clone(model).fit(X, Y), model)


def test_a_dry_pass_changes_no_statistics():
    model = small(net=lazy_batch_norm, recompute_batch_norm=False, max_epochs=1, batch_size=-1).fit(X, Y)
    assert model.module_[1].num_batches_tracked == 1
    assert model.module_.training


def test_the_mode_of_every_part_stays():
    module = lazy_batch_norm()
    module[2].eval()
    materialize(module, torch.from_numpy(X[:2]))
    assert [part.training for part in module] == [True, True, False, True]


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.LazyLinear(3), nn.LazyLinear(3)

    def forward(self, X):
        return self.used(X)


def wrong_size():
    return nn.Sequential(nn.LazyLinear(8), nn.Linear(7, 3))


@pytest.mark.parametrize(
    ("net", "words"), [(Unused, "samples of X did not reach 'unused.weight'"), (wrong_size, r"samples of shape \(4,\)")]
)
def test_refused_in_one_sentence(net, words):
    with pytest.raises(ValueError, match=f"^net must .*{words}"):
        small(net=net).fit(X, Y)
