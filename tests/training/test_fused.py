"""Which optimisers are fused, and that a fused training is the same one."""

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.training import TrainingRecorder
from tests.tiny import Mlp, blobs, small

X, Y = blobs()
KINDS = [
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.01}),
    (torch.optim.AdamW, {}),
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.Adagrad, {}),
]


def fused(model):
    return [bool(group.get("fused")) for group in model.net_.optimizer_.param_groups]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()]).numpy()


@pytest.mark.parametrize(("optimizer", "options"), KINDS)
def test_it_is_the_same_training(optimizer, options):
    given = {"net": Mlp, "optimizer": optimizer, **{f"optimizer__{key}": value for key, value in options.items()}}
    model = small(**given, max_epochs=3).fit(X, Y)
    plain = small(**given, max_epochs=3, optimizer__fused=False).fit(X, Y)
    assert fused(model) == [True]
    assert fused(plain) == [False]
    np.testing.assert_allclose(weights(model), weights(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": False}])
def test_who_chooses_gets_what_was_chosen(options):
    model = small(**{f"optimizer__{key}": value for key, value in options.items()}).fit(X, Y)
    assert fused(model) == [False]


def test_a_choice_for_one_group_is_one_for_all():
    model = small(optimizer__param_groups=[("*.bias", {"foreach": True})]).fit(X, Y)
    assert fused(model) == [False, False]


class MyAdam(torch.optim.Adam):
    """A subclass may do anything in its step."""


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.NAdam, MyAdam, torch.optim.LBFGS])
def test_others_are_as_they_are(optimizer):
    model = small(optimizer=optimizer, max_epochs=1).fit(X, Y)
    assert fused(model) == [False]


class Words(nn.Module):
    """An embedding with sparse gradients, which no fused kernel takes."""

    def __init__(self, sparse=True):
        super().__init__()
        self.words = nn.EmbeddingBag(10, 4, sparse=sparse)
        self.head = nn.Linear(4, 3)

    def forward(self, X):
        return self.head(self.words(X.long().clamp(0, 9)))


def test_sparse_gradients():
    words = np.random.default_rng(0).integers(0, 10, (40, 5)).astype(np.float32)
    labels = np.arange(40) % 3
    model = small(net=Words, optimizer=torch.optim.SGD).fit(words, labels)
    assert fused(model) == [False]
    dense = small(net=Words, module__sparse=False, optimizer=torch.optim.SGD).fit(words, labels)
    assert fused(dense) == [True]
    np.testing.assert_allclose(weights(model), weights(dense), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_the_first_step_with_momentum(dampening):
    """torch's first average is the whole gradient, which is not dampened: then SGD is not fused."""
    given = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "optimizer__dampening": dampening}
    model = small(**given, max_epochs=1, batch_size=60).fit(X, Y)
    assert fused(model) == [not dampening]
    plain = small(**given, max_epochs=1, batch_size=60, optimizer__foreach=False).fit(X, Y)
    np.testing.assert_array_equal(weights(model), weights(plain))


class Transposed(nn.Module):
    """Its gradients lie in memory in another order than its weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(7, 4))
        self.second = nn.Parameter(torch.randn(7, 3) / 3)

    def forward(self, X):
        return torch.tanh(X @ (2 * self.first).t().contiguous()) @ self.second


class InAnotherOrder(Transposed):
    """Its weights themselves do not lie in memory row by row."""

    def __init__(self):
        super().__init__()
        self.second = nn.Parameter((torch.randn(3, 7) / 3).t())


@pytest.mark.parametrize(("optimizer", "options"), KINDS)
def test_gradients_in_another_order_in_memory(optimizer, options):
    given = {"net": Transposed, "optimizer": optimizer, **{f"optimizer__{k}": v for k, v in options.items()}, "lr": 0.1}
    model = small(**given, max_epochs=2).fit(X, Y)
    plain = small(**given, max_epochs=2, optimizer__fused=False).fit(X, Y)
    assert fused(model) == [True]
    np.testing.assert_allclose(weights(model), weights(plain), rtol=1e-4, atol=1e-5)
    assert fused(small(**{**given, "net": InAnotherOrder}).fit(X, Y)) == [False]


def test_a_recorder_reads_a_fused_training():
    model = small(callbacks=[TrainingRecorder()], optimizer=torch.optim.SGD, optimizer__momentum=0.9).fit(X, Y)
    assert fused(model) == [True]
    assert np.isfinite(model.train_loss_)
