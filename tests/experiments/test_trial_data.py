"""What is done once for all fits of an experiment, counted: checks, conversions, fingerprints, objectives."""

import gc
import os
import weakref
from collections import Counter
from functools import partial

import numpy as np
import pytest
import sklearn.utils.validation
import torch
from scipy.sparse import csr_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader

from sklgap import batch_size_curve, compare_regimes, warm_start_curve
from sklgap.experiments import _trials
from sklgap.experiments._protocol import Measurement, Trial
from sklgap.experiments._run import run
from sklgap.experiments._trial_data import TrialData
from sklgap.experiments._trials import run_trials
from sklgap.memory import _key
from sklgap.objective import Objective, _data, check_objective
from sklgap.objective._tensors import as_tensor
from sklgap.training import TrainingNet
from tests.tiny import blobs, small

X, Y = blobs(90)
X = X.astype(np.float64)  # so that float32 is a conversion
DATA = (X[:60], Y[:60], X[60:], Y[60:])
PARTS = {"train": DATA[:2], "test": DATA[2:]}
COMMON = {"random_state": 0, "verbose": 0}


def comparison(data=DATA, model=None, **more):
    own = {"regimes": (10, 30), "reference": 10, "n_trials": 2, "epsilon": 1e-3, "solver": "power", "max_samples": 40}
    return compare_regimes(model or small(), *data, **{**own, **COMMON, **more})


def curve(data=DATA, model=None, **more):
    own = {"batch_sizes": [10, 30], "lr": "tuned", "learning_rates": [0.01], "n_trials": 2, "epsilon": []}
    return batch_size_curve(model or small(), *data, **{**own, **COMMON, **more})


def warm_start(data=DATA, model=None, **more):
    own = {"small": 10, "large": 30, "max_small_epochs": 1, "large_epochs": 1, "n_trials": 2, "epsilon": []}
    return warm_start_curve(model or small(), *data, **{**own, **COMMON, **more})


def figures(result):
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in result.records]


def measuring(**more):
    return Measurement(**{"epsilon": [1e-3], "solver": "power", **more}).settle(60, np.random.RandomState(0))


def trials(n, start=0):
    return [Trial("SB", {"batch_size": 20}, trial, trial + start) for trial in range(n)]


@pytest.fixture
def done(monkeypatch):
    """Count what is done to rows of the shape of X, and the objectives that are built."""
    counts = Counter()

    def counted(owner, name, what, of_rows):
        function = getattr(owner, name)

        def count(*args, **kwargs):
            shapes = [getattr(argument, "shape", ()) for argument in args[:2]]
            counts[what] += any(len(s) == 2 and s[0] > 8 and s[1] == 4 for s in shapes) if of_rows else 1
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, count)

    counted(sklearn.utils.validation, "_assert_all_finite", "checks", True)
    counted(_key._Follower, "_array", "fingerprints", True)
    counted(_data.ArrayData, "__init__", "conversions", False)
    counted(Objective, "__init__", "objectives", False)
    return counts


@pytest.mark.parametrize("experiment", [comparison, curve, warm_start])
@pytest.mark.parametrize("scoring", [None, "balanced_accuracy"])
def test_the_number_of_fits_changes_neither_checks_nor_fingerprints(experiment, scoring, tmp_path, done):
    experiment(memory=tmp_path / "two", scoring=scoring)
    two = Counter(done)
    done.clear()
    experiment(memory=tmp_path / "three", scoring=scoring, n_trials=3)
    assert done["objectives"] > two["objectives"]
    assert 0 < done["fingerprints"] == two["fingerprints"]
    if scoring is None:  # a scorer calls `predict`, which checks what it is given
        assert 0 < done["checks"] == two["checks"]


def test_conversions_are_those_of_one_fit(done):
    run_trials(small(recompute_batch_norm=False), trials(1), PARTS, measuring(max_samples=40), verbose=0)
    assert done["conversions"] == 3  # training data, samples that sharpness is measured on, test data
    done.clear()
    run_trials(small(recompute_batch_norm=False), trials(4), PARTS, measuring(max_samples=40), verbose=0)
    assert done["conversions"] == 3


@pytest.mark.parametrize(("max_samples", "n_objectives"), [(40, 3), (None, 2), (60, 2)])
def test_objectives_of_a_fit(max_samples, n_objectives, done):
    """Two sizes and two subspaces take no more; nor do all samples, whose objective is there already."""
    more = {"epsilon": [1e-3, 5e-4], "subspace_dims": [None, 3], "max_samples": max_samples}
    run_trials(small(recompute_batch_norm=False), trials(2), PARTS, measuring(**more), verbose=0)
    assert done["objectives"] == 2 * n_objectives


def test_all_samples_by_name_or_by_number_have_the_same_sharpness():
    whole, most = (
        run_trials(small(), trials(1), PARTS, measuring(max_samples=size), verbose=0).results[0] for size in (None, 60)
    )
    plain = _trials.measure(whole.model, TrialData(PARTS), measuring(max_samples=None), 0)[0]
    for outcome in (whole, most):
        assert outcome.record["sharpness_0.001"] == plain["sharpness_0.001"]
        assert outcome.record["test_loss"] == plain["test_loss"]


# -- right or refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "float32", "tensor", "list", "frame"])
@pytest.mark.parametrize("memory", [False, True])
def test_prepared_data_are_the_data(kind, memory, tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    make = {
        "float64": np.array,
        "float32": lambda A: A.astype(np.float32),
        "tensor": torch.from_numpy,
        "list": np.ndarray.tolist,
        "frame": partial(pd.DataFrame, columns=list("abcd")),
    }[kind]
    data = (make(DATA[0]), DATA[1], make(DATA[2]), DATA[3])
    with monkeypatch.context() as patched:
        patched.setattr(TrialData, "prepared", classmethod(lambda cls, parts, *args, **kwargs: cls(parts)))
        plain = comparison(data, memory=tmp_path if memory else None)
    if memory:
        monkeypatch.setattr(TrainingNet, "train_step", None)  # what was saved is found by the same keys
    found = comparison(data, memory=tmp_path if memory else None)
    assert figures(found) == figures(plain)
    model = found.estimators_["10"][0]
    assert hasattr(model, "feature_names_in_") == (kind == "frame")
    assert model.n_features_in_ == 4
    model.predict(data[2])  # without a warning about names


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy"])
def test_what_happens_to_the_arrays_meanwhile_changes_no_saved_work(scoring, tmp_path, monkeypatch):
    """As by a callback or another thread that holds the user's own array."""
    plain = comparison(scoring=scoring)
    data = tuple(np.copy(part).astype(np.float32 if part.dtype == float else int) for part in DATA)
    measure = _trials.measure

    def measure_and_spoil(*args, **kwargs):
        found = measure(*args, **kwargs)
        data[0][:] = data[2][:] = 0
        return found

    with monkeypatch.context() as patched:
        patched.setattr(_trials, "measure", measure_and_spoil)
        found = comparison(data, memory=tmp_path, scoring=scoring)
    assert not data[0].any()
    assert figures(found) == figures(plain)
    monkeypatch.setattr(TrainingNet, "train_step", None)
    restored = tuple(np.copy(part).astype(old.dtype) for part, old in zip(DATA, data, strict=True))
    assert figures(comparison(restored, memory=tmp_path, scoring=scoring)) == figures(plain)


def writing_scorer(model, X, y):
    X[:] = 0
    return 1.0


def test_a_scorer_that_writes_into_saved_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        comparison(memory=tmp_path, scoring=writing_scorer)


@pytest.mark.parametrize("memory", [False, True])
def test_a_callback_that_writes_into_rows_is_refused(memory, tmp_path):
    from skorch.callbacks import Callback

    class Writing(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            X[:] = 0

    single = tuple(part.astype(np.float32) if part.dtype == float else part for part in DATA)
    with pytest.raises(ValueError, match="read-only"):
        comparison(single, small(callbacks=[Writing()]), memory=tmp_path if memory else None)
    assert single[0].any()


def test_a_step_of_a_pipeline_that_writes_into_x_has_no_fingerprint_from_before(tmp_path):
    """The step makes other data of X in every fit: no key may be that of the data as they were."""
    data = tuple(map(np.copy, DATA))
    model = make_pipeline(StandardScaler(copy=False), small())
    found = comparison(data, model, memory=tmp_path)
    assert not np.array_equal(data[0], DATA[0])
    assert len(found.records) == 4
    prepared = TrialData.prepared(dict(PARTS), model, hashed=True)
    assert prepared.fingerprint is None
    assert prepared["train"] is PARTS["train"]


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), small()),
        small(iterator_train=DataLoader),
        small(iterator_train__shuffle=False),
    ],
    ids=["pipeline", "iterator", "order"],
)
def test_what_is_not_prepared_is_measured_all_the_same(model):
    assert TrialData.prepared(PARTS, model)["train"] is PARTS["train"]
    assert len(comparison(model=model, n_trials=1, epsilon=[]).records) == 2


def test_sparse_rows_are_not_prepared():
    parts = {part: (csr_matrix(rows), y) for part, (rows, y) in PARTS.items()}
    assert TrialData.prepared(parts, small())["train"] is parts["train"]
    sparse, dense = (run_trials(small(), trials(1), p, measuring(), verbose=0).results[0] for p in (parts, PARTS))
    assert sparse.record["test_loss"] == pytest.approx(dense.record["test_loss"], rel=1e-5)


@pytest.mark.parametrize("parameter", ["iterator_train__shuffle", "dataset", "iterator_valid"])
def test_a_data_path_that_a_trial_sets_is_the_users(parameter):
    assert TrialData.prepared(PARTS, small(), {parameter})["train"] is PARTS["train"]
    assert TrialData.prepared(PARTS, small(), {"batch_size"})["train"] is not PARTS["train"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_rows_are_refused_by_the_fit(bad):
    rows = np.copy(DATA[0])
    rows[3, 1] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        comparison((rows, *DATA[1:]))


# -- processes ---------------------------------------------------------------------------------------------------------


def backing_file(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return None if array is None else array.filename


def look(data):
    """Return what a process has of the training data, and whether its tensor has memory of its own."""
    values = data._checked["train"][0].values
    shares = as_tensor(np.asarray(values)).data_ptr() == values.ctypes.data
    return os.getpid(), backing_file(values), backing_file(data["train"][0]), shares


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_processes_map_one_file(make):
    rows = np.random.default_rng(0).random((70_000, 4))  # 1.1 MB in float32
    y = np.arange(len(rows)) % 3
    data = TrialData.prepared({"train": (make(rows), y)}, small())
    found = run([partial(look, data)] * 4, n_jobs=2, verbose=0).results
    pids, files, given, share = (set(values) for values in zip(*found, strict=True))
    assert os.getpid() not in pids
    assert len(files) == 1
    assert files == given
    assert None not in files
    assert share == {True}


def test_what_models_are_judged_by_is_measured_by_the_workers(monkeypatch):
    monkeypatch.setattr(Objective, "__init__", None)  # here, not in the workers
    parts = {**PARTS, "valid": DATA[2:]}
    found = run_trials(small(), trials(2), parts, measuring(), verbose=0, n_jobs=2).results
    assert all(0 <= outcome.record["valid_accuracy"] <= 1 for outcome in found)


# -- many fits ---------------------------------------------------------------------------------------------------------


def test_fits_leave_nothing_behind(tmp_path, monkeypatch):
    """Flat memory over many fits: nothing of one is alive after the next, and no container has grown."""
    born = weakref.WeakSet()
    for kind in (Objective, TrainingNet, nn.Module):
        made = kind.__init__

        def noted(self, *args, made=made, **kwargs):
            born.add(self)
            made(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", noted)
    data = TrialData.prepared(PARTS, small(), {"batch_size"}, hashed=True, scored=True)

    def fit(start):
        own = {"verbose": 0, "memory": tmp_path, "keep_estimators": False}
        run_trials(small(), trials(3, start), data, measuring(scoring="balanced_accuracy"), **own)
        gc.collect()
        held = Counter(type(thing) for thing in gc.get_objects())
        return len(born), sum(held.values()), held[torch.Tensor]

    fit(0)
    n_born, n_objects, n_tensors = fit(10)
    for start in (20, 30):
        now = fit(start)
        assert now[0] == n_born == 0
        assert now[2] == n_tensors
        assert now[1] <= n_objects + 5  # one object a fit would be six


def test_every_choice_of_rows_is_measured_on_its_rows():
    model = small()
    data = TrialData.prepared({"train": (X, Y)}, model)
    data.fit(model)
    for rows in (np.arange(10), np.arange(10, 30), np.arange(10)):
        found = data.objective(model, "train", "batch", rows, passes="many")
        assert found.value() == check_objective(model, X[rows], Y[rows]).value()
