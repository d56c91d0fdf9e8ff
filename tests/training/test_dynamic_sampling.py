"""Dynamic sampling through the estimator: it grows, repeats, resumes, and leaves the training alone."""

import copy
import itertools
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit

from sklgap.regimes import BatchRegime, ConstantBatch, DynamicSampling, n_batches
from sklgap.remedies import SAM, Augmentation
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

X, Y = blobs()
IMAGES, IMAGE_Y = images()


def growing(**params):
    """A regime that grows on the blobs within a few epochs, several times."""
    return DynamicSampling(**{"initial": 4, "theta": 0.4, "largest": 0.5, **params})


def test_grows_on_digits_until_the_largest():
    digits, y = load_digits(return_X_y=True)
    model = small(batch_regime=DynamicSampling(16, theta=0.5), max_epochs=15, lr=1e-3, module__width=32).fit(
        digits / 16, y
    )
    sizes = model.history_[:, "batch_size"]
    assert sizes[0] == 16
    assert sizes[-1] == 180
    assert len(set(sizes)) > 3
    assert all(a <= b <= 2 * a for a, b in itertools.pairwise(sizes))
    assert model.history_[:, "train_batch_count"] == [n_batches(1797, size) for size in sizes]


def test_history_has_the_measurements_that_the_sizes_follow():
    regime = growing()
    history = small(batch_regime=regime, max_epochs=8).fit(X, Y).history_
    sizes = history[:, "batch_size"]
    assert len(set(sizes)) > 2
    for i, row in enumerate(history[:-1]):
        measured = {"gradient_variance", "squared_gradient_norm"} <= row.keys()
        assert measured is (sizes[i] < 30)
        assert sizes[i + 1] == regime.next_batch_size(row, 60)
        if measured:
            allowed = 0.16 * row["squared_gradient_norm"]
            assert (sizes[i + 1] > sizes[i]) is (row["gradient_variance"] / sizes[i] > allowed)


QUIET = {
    "batch norm": {},
    "dropout": {"net": TinyC1, "input_shape": (1, 8, 8)},
    "remedies": {"augmentation": Augmentation(flip=False), "remedies": [SAM()], "input_shape": (1, 8, 8)},
    "micro-batches": {"micro_batch_size": 3},
    "split": {"train_split": ValidSplit(5)},
}


class Draw(Callback):
    """Draws from torch's generator at the end of an epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("drawn", torch.rand(()).item())


@pytest.mark.parametrize("case", QUIET)
def test_measuring_changes_nothing_of_the_training(case):
    """A regime that measures and never grows trains as a constant batch does, bit for bit."""
    data = (IMAGES.reshape(40, -1), IMAGE_Y) if "input_shape" in QUIET[case] else (X, Y)
    params = {**QUIET[case], "max_epochs": 3, "recompute_batch_norm": False, "callbacks": [Draw()]}

    class Watching(DynamicSampling):
        def next_batch_size(self, last_epoch, n_samples):
            assert last_epoch["gradient_variance"] > 0
            return last_epoch["batch_size"]

    watched = small(batch_regime=Watching(8, largest=-1), **params).fit(*data)
    constant = small(batch_regime=ConstantBatch(8), **params).fit(*data)
    assert same_weights(watched, constant)
    for column in ("train_loss", "drawn", "n_updates"):
        assert watched.history_[:, column] == constant.history_[:, column]


@pytest.mark.parametrize("params", [{}, {"net": TinyC1, "input_shape": (1, 8, 8), "train_split": ValidSplit(5)}])
def test_repeatable(params):
    data = (IMAGES.reshape(40, -1), IMAGE_Y) if params else (X, Y)
    models = [small(batch_regime=growing(), max_epochs=5, random_state=s, **params).fit(*data) for s in (0, 0, 1)]
    assert same_weights(models[0], models[1])
    rows = [[row["batch_size"], row.get("gradient_variance")] for row in models[0].history_]
    assert rows == [[row["batch_size"], row.get("gradient_variance")] for row in models[1].history_]
    assert rows != [[row["batch_size"], row.get("gradient_variance")] for row in models[2].history_]


RESUMED = {"batch_regime": growing(), "lr_scaling": "sqrt", "recompute_batch_norm": False}


@cache
def uninterrupted():
    return small(**RESUMED, max_epochs=7).fit(X, Y)


@pytest.mark.parametrize("between", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_a_resumed_training_is_the_uninterrupted_one(between, epochs):
    whole = uninterrupted()
    assert len(set(whole.history_[:, "batch_size"])) > 2
    model = between(small(**RESUMED, max_epochs=epochs, warm_start=True).fit(X, Y))
    model.set_params(max_epochs=7 - epochs).fit(X, Y)
    assert same_weights(model, whole)
    for column in ("batch_size", "lr", "n_updates", "train_loss"):
        assert model.history_[:, column] == whole.history_[:, column]


class Press(Callback):
    """Ctrl-C in a batch."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def on_batch_end(self, net, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_within_an_epoch_keeps_the_size():
    whole = small(batch_regime=growing(), max_epochs=3).fit(X, Y).history_[:, "batch_size"]
    batches = -(-60 // whole[0])
    model = small(batch_regime=growing(), max_epochs=3, warm_start=True, callbacks=[Press(batches + 2)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert model.history_[:, "batch_size"] == whole[:1]
    model.set_params(max_epochs=1).fit(X, Y)
    assert model.history_[:, "batch_size"] == whole[:2]


def test_a_warm_start_goes_on_from_the_size_of_another_regime():
    model = small(batch_size=20, warm_start=True).fit(X, Y)
    model.set_params(batch_size=None, batch_regime=growing(), max_epochs=1).fit(X, Y)
    assert model.history_[:, "batch_size"] == [20, 20, 20]


def test_the_users_regime_holds_parameters_only():
    regime = growing()
    before = copy.deepcopy(vars(regime))
    model = small(batch_regime=regime, max_epochs=5).fit(X, Y)
    assert model.batch_regime is regime
    assert vars(regime) == before
    assert vars(clone(model).batch_regime) == before
    assert same_weights(clone(model).fit(X, Y), model)


def test_grid_search():
    grid = {"batch_regime__theta": [0.2, 0.9]}
    search = GridSearchCV(small(batch_regime=growing(max_growth=4.0), max_epochs=3), grid, cv=2, error_score="raise")
    assert search.fit(X, Y).best_estimator_.batch_regime.theta == search.best_params_["batch_regime__theta"]
    sizes = {
        theta: small(batch_regime=growing(theta=theta), max_epochs=4).fit(X, Y).history_[-1, "batch_size"]
        for theta in grid["batch_regime__theta"]
    }
    assert sizes[0.2] > sizes[0.9]


def test_with_regime_adaptation():
    model = small(batch_regime=growing(), regime_adaptation=True, max_epochs=3).fit(X, Y)
    assert model.n_updates_ == 3 * 8  # 60 rows: 8 batches of the base, 8
    assert model.history_[-1, "batch_size"] > 8


def test_stopped_by_a_callback():
    stop = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs", sink=lambda text: None)
    assert small(batch_regime=growing(), callbacks=[stop], max_epochs=9).fit(X, Y).n_iter_ == 2


def test_data_of_three_rows():
    model = small(net=Mlp, batch_regime=DynamicSampling(1, largest=-1)).fit(X[:3], [0, 1, 2])
    assert model.history_[:, "batch_size"] == [1, 1]


def test_rows_are_drawn_anew_by_seed_and_epoch():
    """With weights that stand still measurements differ by their draw alone."""
    params = {"net": Mlp(), "optimizer": torch.optim.SGD, "lr": 1e-30, "max_epochs": 2}
    regime = growing(max_growth=1.001)
    drawn = [
        variance
        for seed in (0, 1)
        for variance in small(batch_regime=regime, random_state=seed, **params)
        .fit(X, Y)
        .history_[:, "gradient_variance"]
    ]
    assert len(set(drawn)) == 4


class Plateau(BatchRegime):
    """A user's adaptive regime that needs no measurement: three times the rows when the loss has fallen by little."""

    adaptive = True

    def __init__(self, then=30):
        self.then = then

    def batch_size(self, epoch, n_samples):
        assert epoch == 0
        return 10

    def next_batch_size(self, last_epoch, n_samples):
        return self.then if last_epoch["train_loss"] < 10 else 10


def test_a_users_adaptive_regime():
    assert small(batch_regime=Plateau()).fit(X, Y).history_[:, "batch_size"] == [10, 30]


@pytest.mark.parametrize("size", [0, 61, 7.5, True, None])
def test_a_users_adaptive_regime_that_returns_nonsense(size):
    with pytest.raises(ValueError, match=r"batch_regime must return integers from 1 to 60; got .* for epoch 1\."):
        small(batch_regime=Plateau(size)).fit(X, Y)


def test_batches_of_one_row_and_batch_norm():
    with pytest.raises(ValueError, match="batches of at least 2 samples"):
        small(batch_regime=Plateau(1)).fit(X, Y)


def test_beside_a_batch_size_or_a_loader_of_the_user():
    with pytest.raises(ValueError, match="batch_size must be None with a batch_regime that varies"):
        small(batch_regime=growing(), batch_size=8).fit(X, Y)
    with pytest.raises(ValueError, match="batch_regime must be constant"):
        small(batch_regime=growing(), iterator_train__shuffle=True).fit(X, Y)


def test_bad_parameter_is_found_by_fit():
    with pytest.raises(ValueError, match="theta must be a number between 0 and 1; got 2"):
        small(batch_regime=growing(theta=2)).fit(X, Y)


def test_measurements_are_those_of_the_weights_at_the_end_of_the_epoch():
    """One epoch of one batch: the variance is that at the weights after the update, in float32."""
    params = {"net": Mlp, "optimizer": torch.optim.SGD, "lr": 0.5, "max_epochs": 1}
    model = small(batch_regime=DynamicSampling(2, largest=-1, n_batches=30), **params).fit(X, Y)
    rows = torch.from_numpy(X)
    gradients = []
    for row, label in zip(rows, torch.from_numpy(Y), strict=True):
        loss = torch.nn.functional.cross_entropy(model.module_(row[None]), label[None])
        parts = torch.autograd.grad(loss, list(model.module_.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    gradients = torch.stack(gradients).double().numpy()
    variance = gradients.var(axis=0, ddof=1).sum()
    squared_norm = np.square(gradients.mean(axis=0)).sum() + variance * (1 / 2 - 1 / 60)
    # All 60 rows are used, in 30 random pairs: over 200 pairings the standard deviations are 0.10 and 0.08.
    assert model.history_[0, "gradient_variance"] == pytest.approx(variance, rel=0.4)
    assert model.history_[0, "squared_gradient_norm"] == pytest.approx(squared_norm, rel=0.4)
