"""What scikit-learn's checks ask of an estimator, asked of convolutional nets on images, which they never make."""

import copy
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from sklgap import LBGapClassifier
from sklgap.regimes import SwitchBatch
from sklgap.remedies import Augmentation
from tests.tiny import images, same_weights, weights

# scikit-learn's own bound in check_methods_subset_invariance and check_methods_sample_order_invariance.
INVARIANCE = {"atol": 1e-7}

SMALL_C1 = {"net": "C1", "module__n_filters": 3, "module__hidden": (12,), "max_epochs": 2, "tol": None}
SMALL_C2 = {"net": "C2", "module__stacks": ((3, 3), (4, 4)), "module__hidden": 8, "max_epochs": 2, "tol": None}
CASES = {
    "C1": SMALL_C1,
    "C2": SMALL_C2,
    "C1, ghost batch norm": {**SMALL_C1, "ghost_batch_size": 4},
    "C1, switch": {**SMALL_C1, "batch_regime": SwitchBatch(switch_epoch=1, first=8, then=0.5)},
    "WRN16-4": {
        "net": "WRN16-4",
        "module__n_blocks": 1,
        "module__widths": (2, 3),
        "augmentation": Augmentation(flip=False, degrees=0, translate=0, crop_padding=1, cutout=3),
        "max_epochs": 2,
        "tol": None,
    },
    "C1, LB and remedies": {
        **SMALL_C1,
        "batch_regime": "LB",
        "augmentation": Augmentation(flip=False),
        "proximal_lambda": 1e-3,
    },
}
FULL_SIZE = pytest.param({"net": "C1", "max_epochs": 2, "tol": None}, id="full-size C1", marks=pytest.mark.slow)

X, Y = images(n=24, n_classes=2)


@pytest.fixture(params=[*(pytest.param(params, id=name) for name, params in CASES.items()), FULL_SIZE])
def model(request):
    return LBGapClassifier(**request.param, random_state=0)


FITTED = {}


@pytest.fixture
def fitted(model):
    """Return a copy of the model after its fit to X and Y, which is made once."""
    key = repr(model.get_params())
    if key not in FITTED:
        FITTED[key] = clone(model).fit(X, Y)
    return copy.deepcopy(FITTED[key])


def test_clone(model, fitted):
    copied = clone(model)
    assert repr(copied) == repr(model)
    assert copied.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert same_weights(copied.fit(X, Y), fitted)
    assert not hasattr(clone(fitted), "net_")


def test_pickle(fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))
    assert pickle.loads(pickle.dumps(copied)).score(X, Y) == fitted.score(X, Y)
    assert same_weights(copied.fit(X, Y), fitted)  # a fit anew


def test_fit_is_idempotent(model):
    first = weights(model.fit(X, Y))
    assert all(torch.equal(value, first[name]) for name, value in weights(model.fit(X, Y)).items())


def test_fit_forgets_other_data(model, fitted):
    expected = weights(fitted)
    model.fit(X[:20, :, :4], np.array(["a", "b", "c", "d", "e"])[np.arange(20) % 5])
    model.fit(X, Y)
    assert all(torch.equal(value, expected[name]) for name, value in weights(model).items())
    assert model.classes_.tolist() == [0, 1]


def test_fit_returns_self_and_changes_no_parameter(model):
    before = copy.deepcopy({name: repr(value) for name, value in model.get_params().items()})
    assert model.fit(X, Y) is model
    assert {name: repr(value) for name, value in model.get_params().items()} == before


def test_fit_overwrites_no_attribute_but_fitted_ones(model):
    before = set(vars(model))
    model.fit(X, Y)
    new = set(vars(model)) - before
    assert all(name.endswith("_") or name.startswith("_") for name in new)
    assert {"classes_", "n_features_in_", "net_", "n_iter_"} <= new
    assert model.n_features_in_ == 1


def test_predicting_leaves_the_dict_unchanged(fitted):
    before = {name: id(value) for name, value in vars(fitted).items()}
    stored = weights(fitted)
    fitted.predict(X)
    fitted.predict_proba(X)
    fitted.score(X, Y)
    assert {name: id(value) for name, value in vars(fitted).items()} == before
    assert all(torch.equal(value, stored[name]) for name, value in weights(fitted).items())


def test_subset_and_order_invariance(fitted):
    together, labels = fitted.predict_proba(X), fitted.predict(X)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-12)
    every = np.arange(len(X))
    for rows in (np.array_split(every, 3), every[:, None], [np.random.default_rng(0).permutation(every)]):
        for some in rows:
            np.testing.assert_allclose(fitted.predict_proba(X[some]), together[some], **INVARIANCE)
            np.testing.assert_array_equal(fitted.predict(X[some]), labels[some])


@pytest.fixture
def in_turn(request):
    """Return a function that leaves the first model all kinds of data and every other one of them.

    What converts them comes before the net and does not depend on it.
    """
    number = [*CASES, FULL_SIZE.id].index(request.node.callspec.id)
    return lambda *kinds: kinds if number == 0 else [kinds[number % len(kinds)]]


def test_containers_and_dtypes(model, fitted, in_turn):
    expected = fitted.predict_proba(X)
    for other in in_turn(X.astype(np.float64), np.asfortranarray(X), torch.from_numpy(X), X.tolist()):
        np.testing.assert_array_equal(clone(model).fit(other, pd.Series(Y)).predict_proba(other), expected)


def test_labels_of_any_kind(model, fitted, in_turn):
    expected = fitted.predict(X)
    for labels in in_turn(np.array(["no", "yes"]), np.array([False, True]), np.array([-7, 12])):
        np.testing.assert_array_equal(clone(model).fit(X, labels[Y]).predict(X), labels[expected])


def test_shape_mismatch_is_an_error(model, fitted):
    with pytest.raises(NotFittedError):
        model.predict(X)
    model = fitted
    check_is_fitted(model)
    for bad in (X[:, :, :, :7], X[:, :, :6], np.concatenate([X, X], axis=1), X.reshape(len(X), -1), X[0], X[:, 0]):
        with pytest.raises(ValueError, match=r"X must have samples of shape|X has .* features|Expected"):
            model.predict(bad)
    with pytest.raises(ValueError, match=r"X must have samples of shape|X has .* features"):
        model.set_params(warm_start=True).fit(X[:, :, :6], Y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(model, fitted, value):
    bad = X.copy()
    bad[3, 0, 2, 5] = value
    with pytest.raises(ValueError, match=r"contains NaN|contains infinity"):
        model.fit(bad, Y)
    with pytest.raises(ValueError, match=r"contains NaN|contains infinity"):
        fitted.predict(bad)


def test_other_bad_data(model):
    for bad_X, bad_y, sentence in [
        (X, Y[:-1], "inconsistent numbers of samples"),
        (X, np.zeros(len(X)), "at least 2 classes"),
        (X[:1], Y[:1], "minimum of 2"),
        (X[:0], Y[:0], "0 sample"),
        (X, Y + 0.5 * X[:, 0, 0, 0], "continuous"),
        (X, None, "y"),
        (X + 1j, Y, "Complex data not supported"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            model.fit(bad_X, bad_y)


def test_global_generators_and_data_are_left_alone(model):
    data, labels = X.copy(), Y.copy()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    model.set_params(random_state=None).fit(data, labels).predict(data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # noqa: NPY002
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(labels, Y)


def test_small_data(model):
    """Two rows to fit and one to predict: the least there is (a fraction of them would be a batch of one)."""
    model.set_params(batch_regime="SB", ghost_batch_size=model.ghost_batch_size and 2).fit(X[:2], Y[:2])
    assert model.predict(X[:1]).shape == (1,)


def test_cross_validation(model):
    assert np.isfinite(cross_val_score(model, X, Y, cv=2)).all()


def test_learns_digits():
    digits, y = load_digits(return_X_y=True)
    digits, y = digits[:700].reshape(-1, 1, 8, 8) / 16, y[:700]
    model = LBGapClassifier(
        **{**SMALL_C1, "module__n_filters": 4, "module__hidden": (32,), "max_epochs": 6}, lr=0.02, random_state=0
    )
    assert model.fit(digits[:600], y[:600]).score(digits[600:], y[600:]) > 0.8  # chance is 0.1
