"""What the net that trains makes of the data: batch-norm statistics, a user's own loader, micro-batches."""

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import DataLoader, Subset

from sklgap.nets import GhostBatchNorm
from tests.tiny import Mlp, TinyC1, TinyF1, blobs, images, same_weights, small, weights

X, Y = blobs()

# A gradient summed in float32 in another order, carried through a few updates.
FLOAT32 = 1e-5


# -- batch norm --------------------------------------------------------------------------------------------------------


def population_statistics(module, X):
    """Feed all rows through a dense net by hand; return mean and variance before each batch norm, in float64."""
    rows, statistics = torch.from_numpy(X).double(), []
    with torch.no_grad():
        for layer in copy.deepcopy(module).double().layers:
            if isinstance(layer, nn.BatchNorm1d | GhostBatchNorm):
                mean, var = rows.mean(0), rows.var(0, correction=0)
                statistics.append((mean, var))
                rows = (rows - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias
            else:
                rows = layer(rows)
    return statistics


@pytest.mark.parametrize("params", [{}, {"batch_size": 7}, {"ghost_batch_size": 4}, {"proximal_lambda": 0.1}], ids=str)
def test_buffers_are_population_statistics(params):
    model = small(net=TinyF1, **params).fit(X, Y)
    layers = [m for m in model.module_.modules() if isinstance(m, nn.BatchNorm1d | GhostBatchNorm)]
    expected = population_statistics(model.module_, X)
    assert len(layers) == len(expected) == 2
    for layer, (mean, var) in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=FLOAT32, atol=FLOAT32)
        torch.testing.assert_close(layer.running_var.double(), var, rtol=FLOAT32, atol=FLOAT32)


def test_running_averages_are_kept_on_request():
    """After one update: a tenth of the batch's statistics, nine tenths of the start's 0 and 1 (momentum 0.1)."""
    model = small(net=TinyF1, recompute_batch_norm=False, batch_size=-1, max_epochs=1).fit(X, Y)
    start = model.net_.module_start_
    first = torch.from_numpy(X) @ start["layers.1.weight"].T + start["layers.1.bias"]
    buffers = weights(model)
    torch.testing.assert_close(buffers["layers.2.running_mean"], 0.1 * first.mean(0), rtol=FLOAT32, atol=FLOAT32)
    torch.testing.assert_close(buffers["layers.2.running_var"], 0.9 + 0.1 * first.var(0), rtol=FLOAT32, atol=FLOAT32)


def test_recomputing_changes_buffers_only():
    recomputed = weights(small().fit(X, Y))
    kept = weights(small(recompute_batch_norm=False).fit(X, Y))
    for name, value in recomputed.items():
        assert torch.equal(value, kept[name]) == ("running" not in name)


def test_ghost_batch_norm_replaces_batch_norm():
    model = small(ghost_batch_size=4, batch_size=20).fit(X, Y)
    assert sum(isinstance(layer, GhostBatchNorm) for layer in model.module_.modules()) == 2
    assert not same_weights(model, small(batch_size=20).fit(X, Y))
    # One ghost batch is plain batch norm.
    assert same_weights(small(ghost_batch_size=8).fit(X, Y), small(batch_size=8).fit(X, Y))


# -- data paths --------------------------------------------------------------------------------------------------------


class CountingLoader(DataLoader):
    made = 0

    def __init__(self, *args, **kwargs):
        type(self).made += 1
        super().__init__(*args, **kwargs)


class CountingDataset(Dataset):
    read = 0

    def __getitem__(self, i):
        type(self).read += 1
        return super().__getitem__(i)


def test_iterator_of_the_user():
    CountingLoader.made = 0
    model = small(iterator_train=CountingLoader, iterator_train__drop_last=True, batch_size=8).fit(X, Y)
    assert CountingLoader.made == 1
    assert model.n_updates_ == 2 * 7  # 60 = 7 * 8 + 4, and the 4 are dropped
    assert model.history_[:, "batch_size"] == [8, 8]
    assert len(model.history_) == 2
    assert model.score(X, Y) == model.train_score_


def test_iterator_of_the_user_for_validation():
    CountingLoader.made = 0
    model = small(iterator_valid=CountingLoader, train_split=ValidSplit(5), max_epochs=1).fit(X, Y)
    assert CountingLoader.made == 1
    plain = small(train_split=ValidSplit(5), max_epochs=1).fit(X, Y)
    assert model.history_[-1, "valid_loss"] == pytest.approx(plain.history_[-1, "valid_loss"], rel=FLOAT32)


def test_dataset_of_the_user():
    CountingDataset.read = 0
    model = small(dataset=CountingDataset).fit(X, Y)
    assert CountingDataset.read == 2 * 60
    assert model.n_updates_ == 16


def test_iterator_of_the_user_with_regime_adaptation():
    """The epochs of a user's own iterator could not be cut to the budget of updates."""
    model = small(iterator_train=CountingLoader, batch_size=25, regime_adaptation=True, max_epochs=1)
    sentence = "batch_regime must be constant, and regime_adaptation False, with your own iterator_train or dataset."
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        model.fit(X, Y)


def test_loader_of_skorch_computes_the_same():
    """With all rows in one batch the order of the rows is all that may differ."""
    ours = small(net=Mlp, batch_size=-1).fit(X, Y)
    skorchs = small(net=Mlp, batch_size=-1, iterator_train=CountingLoader).fit(X, Y)
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, weights(skorchs)[name], rtol=1e-3, atol=1e-4)  # Adam magnifies rounding


def orders(**params):
    """Fit two epochs; return the order of the rows in each."""
    seen = []

    class Rows(Callback):
        def on_batch_end(self, net, batch=None, **kwargs):
            seen.append(batch[0][:, 0].numpy())

    numbered = np.arange(60, dtype=np.float32)[:, None] * np.ones((1, 4), dtype=np.float32)
    small(callbacks=[Rows()], batch_size=7, net=Mlp, **params).fit(numbered, Y)
    return np.concatenate(seen).astype(int).reshape(2, 60).tolist()


@pytest.mark.parametrize(
    "params", [{}, {"iterator_train__pin_memory": False}, {"iterator_train__shuffle": True}, {"dataset": Dataset}]
)
def test_every_row_is_seen_once_an_epoch_in_another_order(params):
    first, second = orders(**params)
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    assert first != list(range(60))


def test_order_that_the_user_asked_for():
    assert orders(iterator_train__shuffle=False) == [list(range(60))] * 2
    sampler = torch.utils.data.SequentialSampler(range(60))
    assert orders(iterator_train__sampler=sampler) == [list(range(60))] * 2


@pytest.mark.parametrize("params", [{}, {"batch_size": 10}, {"ghost_batch_size": 4}], ids=str)
def test_train_score_is_that_of_the_rows_trained_on(params):
    """The labels of the rows held out are wrong: they must not count."""

    def split(dataset, y=None):
        return Subset(dataset, range(40)), Subset(dataset, range(40, 60))

    labels = np.where(np.arange(60) < 40, Y, (Y + 1) % 3)
    model = small(train_split=split, max_epochs=10, **params).fit(X, labels)
    assert model.train_score_ == model.score(X[:40], Y[:40]) > model.score(X, labels)
    assert same_weights(model, small(train_split=split, max_epochs=10, **params).fit(X, labels))


def test_small_batch_is_that_of_the_rows_trained_on():
    """600 rows: 15 a batch; the 480 that a split leaves: 12, so that scaling leaves the learning rate alone."""
    data = blobs(600)
    model = small(train_split=ValidSplit(5), lr_scaling="linear").fit(*data)
    assert model.history_[:, "batch_size"] == [12, 12]
    assert model.history_[:, "lr"] == [0.01, 0.01]


@pytest.mark.parametrize("micro", [1, 7, 8, 100])
def test_micro_batches_add_up_to_the_batch(micro):
    whole = small(net=Mlp, batch_size=20, optimizer=torch.optim.SGD).fit(X, Y)
    parts = small(net=Mlp, batch_size=20, optimizer=torch.optim.SGD, micro_batch_size=micro).fit(X, Y)
    assert parts.n_updates_ == whole.n_updates_
    assert parts.history_[:, "batch_size"] == [20, 20]
    assert parts.history_[:, "train_loss"] == pytest.approx(whole.history_[:, "train_loss"], rel=FLOAT32)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=FLOAT32, atol=FLOAT32)


def test_micro_batches_bound_what_the_module_sees():
    seen = []

    class Sizes(Mlp):
        def forward(self, X):
            if self.training:
                seen.append(len(X))
            return super().forward(X)

    small(net=Sizes, batch_size=20, micro_batch_size=8, max_epochs=1).fit(X, Y)
    assert seen == [8, 8, 4] * 3


def test_micro_batches_without_effect_change_nothing():
    assert same_weights(small(batch_size=20, micro_batch_size=20).fit(X, Y), small(batch_size=20).fit(X, Y))


def test_dropout_is_on_in_training_and_off_in_predictions():
    data, y = images()
    model = small(net=TinyC1).fit(data, y)
    np.testing.assert_array_equal(model.predict_proba(data), model.predict_proba(data))

    seen = set()

    class Modes(Callback):
        def on_grad_computed(self, net, **kwargs):
            seen.add(net.module_.training)

    small(net=TinyC1, callbacks=[Modes()], train_split=ValidSplit(2)).fit(data, y)
    assert seen == {True}
