"""Searches, cross-validation and comparisons under joblib's backends: the results of a serial run, bit for bit."""

import os
from contextlib import contextmanager, nullcontext
from functools import cache

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_validate

from sklgap import compare_regimes, sharpness_score
from sklgap.training._random import seeded
from tests.tiny import TinyC1, blobs, images, same_weights, small

BACKENDS = ["loky", "threading", "dask"]
# What takes time, and so depends on nothing that is compared.
TIMES = ("fit_seconds", "measure_seconds")


@pytest.fixture(scope="module")
def cluster():
    """Return the client of a Dask worker, another process (loky has two): every worker takes seconds to start."""
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("dask")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    before = dict(os.environ)
    with distributed.LocalCluster(**options) as workers, distributed.Client(workers) as client:
        assert set(client.run(torch.get_num_threads).values()) == {1}  # as here: see conftest.py
        yield client
    for name in os.environ.keys() - before.keys():  # Dask sets the thread counts of its workers here as well
        del os.environ[name]


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Return a function that opens the backend with two workers of the same thread count as here."""
    if request.param == "dask":
        request.getfixturevalue("cluster")

    @contextmanager
    def use():
        options = {} if request.param == "dask" else {"n_jobs": 2}
        if request.param == "loky":
            options["inner_max_num_threads"] = torch.get_num_threads()
        with joblib.parallel_config(request.param, **options):
            yield

    return use


@cache
def grid_search(run=None):
    X, y = images(n=36)
    with run() if run else nullcontext():
        return GridSearchCV(small(net=TinyC1), {"batch_size": [6, -1], "lr": [1e-3, 1e-2]}, cv=2).fit(X, y)


def test_a_grid_search(backend):
    serial, parallel = grid_search(), grid_search(backend)
    for key, values in serial.cv_results_.items():
        if "time" not in key:
            np.testing.assert_array_equal(values, parallel.cv_results_[key])
    assert same_weights(serial.best_estimator_, parallel.best_estimator_)


@cache
def cross_validation(run=None):
    X, y = images(n=36)
    options = {"cv": 3, "scoring": {"accuracy": "accuracy", "sharpness": sharpness_score}, "return_estimator": True}
    with run() if run else nullcontext():
        return cross_validate(small(net=TinyC1), X, y, **options)


def test_cross_validation(backend):
    serial, parallel = cross_validation(), cross_validation(backend)
    for key in ("test_accuracy", "test_sharpness"):
        np.testing.assert_array_equal(serial[key], parallel[key])
    for first, second in zip(serial["estimator"], parallel["estimator"], strict=True):
        assert same_weights(first, second)


@cache
def comparison(run=None):
    X, y = blobs(n=90)
    options = {"n_trials": 2, "epsilon": [1e-3], "random_state": 0, "verbose": 0}
    with run() if run else nullcontext():
        return compare_regimes(small(), X[:60], y[:60], X[60:], y[60:], **options)


def test_a_comparison(backend):
    serial, parallel = comparison(), comparison(backend)
    assert len(serial.records) == 4
    for first, second in zip(serial.records, parallel.records, strict=True):
        assert {k: v for k, v in first.items() if k not in TIMES} == {k: v for k, v in second.items() if k not in TIMES}


def test_threads_take_turns_with_torchs_generator():
    """Without turns another thread would seed the generator between two draws."""

    def draw(seed):
        with seeded(seed, torch.device("cpu")):
            first = torch.rand(1)
            joblib.Parallel(n_jobs=1)(joblib.delayed(sum)(range(10_000)) for _ in range(20))  # time for the others
            return torch.cat([first, torch.rand(1)])

    state = torch.get_rng_state()
    expected = [draw(seed) for seed in range(8)]
    found = joblib.Parallel(n_jobs=4, backend="threading")(joblib.delayed(draw)(seed) for seed in range(8))
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert torch.equal(torch.get_rng_state(), state)
