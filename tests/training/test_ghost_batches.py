"""Ghost batch norm in training: one ghost batch is plain batch norm; one that fits no batch is refused."""

import pytest
import torch
from skorch.dataset import ValidSplit
from torch import nn

from sklgap.nets import GhostBatchNorm
from sklgap.regimes import BatchRegime, GrowingBatch, SwitchBatch
from sklgap.remedies import SAM
from tests.ids import plain
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

X, Y = blobs()


@pytest.mark.parametrize(
    "params", [{"batch_size": 20}, {"batch_size": -1}, {"batch_size": 7}, {"net": TinyC1}], ids=plain
)
def test_a_ghost_batch_as_large_as_the_batch_is_plain_batch_norm(params):
    data = images(60) if "net" in params else (X, Y)
    size = {20: 20, -1: 60, 7: 7}.get(params.get("batch_size"), 8)
    ghosts = small(**params, ghost_batch_size=size).fit(*data)
    assert any(isinstance(layer, GhostBatchNorm) for layer in ghosts.module_.modules())
    assert same_weights(ghosts, small(**params).fit(*data))


def _refused(largest, ghost, **params):
    sentence = f"at most the largest batch that batch norm sees, {largest} samples; got {ghost}."
    with pytest.raises(ValueError, match=sentence):
        small(**params, ghost_batch_size=ghost).fit(X, Y)


@pytest.mark.parametrize(
    ("largest", "params"),
    [
        (8, {}),
        (20, {"batch_size": 20}),
        (6, {"batch_regime": "LB"}),
        (60, {"batch_size": -1}),
        (10, {"batch_size": -1, "micro_batch_size": 10}),
        (9, {"batch_size": 30, "remedies": [SAM(sub_batch_size=9)]}),
        (16, {"batch_regime": GrowingBatch(8, every=1, largest=0.5), "max_epochs": 2}),
        (8, {"batch_regime": SwitchBatch(2, first=8, then=0.5), "max_epochs": 2}),
        (24, {"batch_size": -1, "train_split": ValidSplit(((range(24), range(24, 60)),))}),
    ],
    ids=plain,
)
def test_the_largest_batch_is_the_limit(largest, params):
    _refused(largest, largest + 1, **params)
    small(**params, ghost_batch_size=largest).fit(X, Y)


class Adaptive(BatchRegime):
    adaptive = True

    def batch_size(self, epoch, n_samples):
        return 8

    def next_batch_size(self, last_epoch, n_samples):
        return 16


@pytest.mark.parametrize(
    "params",
    [
        {"batch_regime": Adaptive()},
        {"batch_regime": SwitchBatch(2, first=8, then=0.5), "warm_start": True},
        {"batch_regime": SwitchBatch(2, first=8, then=0.5), "regime_adaptation": True},
        {"iterator_train__batch_size": 20, "iterator_train__drop_last": True},
    ],
    ids=plain,
)
def test_larger_batches_may_come(params):
    small(**params, ghost_batch_size=16).fit(X, Y)


def test_a_warm_start_goes_on_to_larger_batches():
    regime = {"batch_regime": SwitchBatch(1, first=8, then=0.5), "max_epochs": 1}
    model = small(**regime).set_params(warm_start=True, ghost_batch_size=16)
    sizes = [model.fit(X, Y).history_[-1, "batch_size"] for _ in range(2)]
    assert sizes == [8, 30]
    _refused(8, 16, **regime)
    again = small(**{**regime, "max_epochs": 2}, ghost_batch_size=16).fit(X, Y)
    again.set_params(warm_start=True, max_epochs=1).fit(X, Y)
    assert again.history_[:, "batch_size"] == [8, 30, 30]


@pytest.mark.parametrize("params", [{}, {"batch_size": 7}, {"iterator_train__batch_size": 20}], ids=plain)
def test_a_net_without_batch_norm_warns(params):
    sentence = r"^ghost_batch_size=16 changes nothing, because the net has no batch-norm layers\.$"
    with pytest.warns(UserWarning, match=sentence):
        ghosts = small(net=Mlp, **params, ghost_batch_size=16).fit(X, Y)
    assert same_weights(ghosts, small(net=Mlp, **params).fit(X, Y))


class Normalised(nn.Module):
    """A net with batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, X):
        return self.last(torch.relu(self.norm(self.first(X))))


class Listed(Normalised):
    """The same net, whose forward pass reads a plain list of its layers."""

    def __init__(self):
        super().__init__()
        self.steps = [self.first, self.norm, torch.relu, self.last]

    def forward(self, X):
        for step in self.steps:
            X = step(X)
        return X


class Hooked(Normalised):
    """The same net with hooks on its batch norm."""

    def __init__(self):
        super().__init__()
        self.norm.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1, *inputs[1:]))
        self.norm.register_forward_hook(lambda layer, inputs, output: 3 * output)
        self.norm.register_full_backward_hook(lambda layer, gradient, above: (2 * gradient[0],))


@pytest.mark.parametrize("net", [Listed, Hooked])
def test_a_layer_in_a_list_or_with_hooks_as_in_plain_training(net):
    ghosts = small(net=net, batch_size=20, ghost_batch_size=20).fit(X, Y)
    assert same_weights(ghosts, small(net=net, batch_size=20).fit(X, Y))


def test_a_layer_in_a_list_has_ghost_batches():
    listed, other = (small(net=net, batch_size=20, ghost_batch_size=5).fit(X, Y) for net in (Listed, Normalised))
    assert same_weights(listed, other)
    assert not same_weights(listed, small(net=Listed, batch_size=20).fit(X, Y))
