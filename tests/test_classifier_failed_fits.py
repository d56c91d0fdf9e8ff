"""Fits that fail leave nothing half-fitted; a loss that is no number ends in a warning and an honest score."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from torch import nn

from sklgap.objective import check_objective
from sklgap.remedies import Remedy
from tests.tiny import blobs, same_weights, small, weights

X, Y = blobs()


# -- fits that fail ----------------------------------------------------------------------------------------------------


class Fail(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise OSError("disk full")


class FailingRemedy(Remedy):
    def transform_batch(self, batch, rng):
        raise OSError("disk full")


@pytest.mark.parametrize("params", [{"callbacks": [Fail()]}, {"remedies": [FailingRemedy()]}], ids=["callback", "step"])
def test_fit_that_failed_leaves_no_fitted_model(params):
    model = small(**params)
    with pytest.raises(OSError, match="disk full"):
        model.fit(X, Y)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    for call in (model.predict, model.predict_proba):
        with pytest.raises(NotFittedError):
            call(X)
    with pytest.raises(NotFittedError):
        check_objective(model, X, Y)
    assert same_weights(model.set_params(callbacks=None, remedies=()).fit(X, Y), small().fit(X, Y))


@pytest.mark.parametrize("params", [{"callbacks": [Fail()]}, {"batch_size": 0}], ids=["in training", "before"])
def test_refit_that_failed_leaves_the_old_model_or_none(params):
    """What must not be: attributes of one fit beside weights of another."""
    model = small().fit(X, Y)
    expected = model.predict_proba(X[:5])
    other_X, other_y = blobs(n_features=3, n_classes=2, seed=1)
    with pytest.raises((OSError, ValueError)):
        model.set_params(**params).fit(other_X, other_y)
    try:
        proba = model.predict_proba(X[:5])
    except NotFittedError:
        return
    np.testing.assert_array_equal(proba, expected)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.score(X, Y) == model.train_score_


class FailsLate(Remedy):
    """Fails with the twelfth batch: in the second epoch."""

    def __init__(self):
        self.batches = 0

    def transform_batch(self, batch, rng):
        self.batches += 1
        if self.batches == 12:
            raise OSError("disk full")
        return batch


@pytest.mark.parametrize("fails", [{"remedies": [FailsLate()], "lr": 0.5}, {"max_epochs": 0}], ids=["late", "at once"])
def test_warm_refit_that_failed_leaves_the_model_as_it_was(fails):
    model, other = (small(warm_start=True, optimizer__weight_decay=0.1).fit(X, Y) for _ in range(2))
    before, history = weights(model), list(model.history_)
    figures = {name: getattr(model, name) for name in ("n_iter_", "n_updates_", "train_loss_", "train_score_")}
    with pytest.raises((OSError, ValueError)):
        model.set_params(**fails).fit(X, Y)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert list(model.history_) == history
    assert {name: getattr(model, name) for name in figures} == figures
    assert model.net_.n_updates_ == model.n_updates_
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    # The optimiser's state is that of the first fit, too: both go on alike.
    model.set_params(remedies=(), lr=0.01, max_epochs=2).fit(X, Y)
    assert same_weights(model, other.fit(X, Y))
    assert model.n_iter_ == 4


def test_warm_start_checks_data_and_parameters_too():
    model = small(warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="y must have the classes of the first fit"):
        model.fit(X, Y + 1)
    with pytest.raises(ValueError, match="features"):
        model.fit(X[:, :2], Y)
    with pytest.raises(ValueError, match="max_epochs must be an integer of at least 1; got 0"):
        model.set_params(max_epochs=0).fit(X, Y)


# -- losses that are no numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"net": nn.Linear(4, 3)}, {}], ids=["linear", "batch norm"])
@pytest.mark.parametrize("tol", [None, 1e-4])
def test_loss_that_turned_nan(params, tol):
    model = small(optimizer=torch.optim.SGD, lr=1e38, max_epochs=20, tol=tol, **params)
    with pytest.warns(ConvergenceWarning, match=r"no longer a finite number after \d+ epochs?.*lr=1e\+38"):
        model.fit(X, Y)
    assert not np.isfinite(model.train_loss_)
    assert model.n_iter_ < 20
    assert not model.converged_
    assert model.train_score_ == 0
    for use in (lambda: model.score(X, Y), lambda: model.predict(X)):
        with pytest.raises(ValueError, match="X must have outputs that are finite"):
            use()
