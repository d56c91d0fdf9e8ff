"""Searches for `gap_report`: with made-up scores, and of a classifier whose accuracy its parameters choose."""

from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

TEST = {"32": [0.95, 0.96, 0.94, 0.97], "256": [0.90, 0.93, 0.92, 0.91]}
TRAIN = {"32": [0.99, 0.98, 1.0, 0.99], "256": [0.97, 0.98, 0.96, 0.97]}


class Remembers(ClassifierMixin, BaseEstimator):
    """A classifier whose accuracy is chosen by its parameters and by the rows it got."""

    def __init__(self, batch_size=1, batch_regime="SB", lr=0.1, max_epochs=1):
        self.batch_size = batch_size
        self.batch_regime = batch_regime
        self.lr = lr
        self.max_epochs = max_epochs

    def fit(self, X, y):
        if self.lr is None and y[0] == 1:
            raise RuntimeError("fails on some folds")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        right = X[:, 0] > (0.1 if self.batch_size in (1, 8) else 0.4) * self.lr if self.lr else X[:, 0] > 0.5
        return np.where(right, X[:, 1], 1 - X[:, 1]).astype(int)


def rows(n=120):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    return np.stack([rng.uniform(size=n), y], axis=1), y


def made_up(parameters, scores, **attributes):
    """Return a finished search with these scores: ``{"train_accuracy": (n_candidates, n_folds)}``."""
    results = {
        "params": parameters,
        "mean_fit_time": np.ones(len(parameters)),
        "std_fit_time": np.full(len(parameters), 0.3),
        **{key: attributes.pop(key) for key in ("iter", "n_resources") if key in attributes},
    }
    for name, values in scores.items():
        for fold, column in enumerate(np.array(values, dtype=float).T):
            results[f"split{fold}_{name}"] = column
    return SimpleNamespace(cv_results_=results, **attributes)


def two(**more):
    parameters = [{"batch_size": 256}, {"batch_size": 32}]
    scores = {"train_accuracy": [TRAIN["256"], TRAIN["32"]], "test_accuracy": [TEST["256"], TEST["32"]]}
    return made_up(parameters, {**scores, **more})


def grid(values, name="batch_size", **attributes):
    scores = np.full((len(values), 3), 0.9)
    return made_up([{name: value} for value in values], {"train_score": scores, "test_score": scores}, **attributes)
