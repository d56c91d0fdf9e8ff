"""Sparse X: made dense by batch and by block, the same numbers as from dense X."""

from functools import cache

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split

from sklgap import WeightAveraging, sharpness
from sklgap.objective import check_objective
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

DENSE, Y = blobs(60)
DENSE[np.abs(DENSE) < 1] = 0
SPARSE = scipy.sparse.csr_matrix(DENSE)
FORMATS = ["csr", "csc", "coo", "lil", "bsr", "dia", "dok"]


@cache
def of_dense():
    return small().fit(DENSE, Y)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_as_dense(name, kind):
    given = kind(DENSE).asformat(name)
    model, dense = small().fit(given, Y), of_dense()
    assert same_weights(model, dense)
    assert model.train_score_ == dense.train_score_
    np.testing.assert_array_equal(model.predict(given), dense.predict(DENSE))
    np.testing.assert_array_equal(model.predict_proba(given), dense.predict_proba(DENSE))
    assert model.score(given, Y) == dense.score(DENSE, Y)
    np.testing.assert_array_equal(model.predict(DENSE), dense.predict(given))


CASES = {
    "split": {"train_split": ValidSplit(4, stratified=True)},
    "sets of the user": {"train_split": predefined_split(Dataset(SPARSE[:20], Y[:20]))},
    "dense set of the user": {"train_split": predefined_split(Dataset(DENSE[:20], Y[:20]))},
    "whole": {"batch_size": -1},
    "LB": {"batch_regime": "LB", "lr_scaling": "sqrt", "regime_adaptation": True},
    "remedies": {"remedies": ("sam", "stability"), "proximal_lambda": 1e-3},
    "micro-batches": {"batch_size": 30, "micro_batch_size": 10},
    "averaging": {"callbacks": [WeightAveraging(start=0.0)]},
    "float64": {"net": lambda: Mlp().double()},
    "own loader": {"iterator_train__shuffle": False},
}


@pytest.mark.parametrize("case", CASES)
def test_every_way_of_training(case):
    model, dense = small(**CASES[case]).fit(SPARSE, Y), small(**CASES[case]).fit(DENSE, Y)
    assert same_weights(model, dense)
    np.testing.assert_array_equal(model.predict_proba(SPARSE), dense.predict_proba(DENSE))
    columns = [key for key, value in dense.history_[-1].items() if key not in ("dur", "batches") and value is not None]
    assert [model.history_[:, key] for key in columns] == [dense.history_[:, key] for key in columns]


def test_warm_starts_may_change_from_dense_to_sparse():
    model, dense = (
        small(warm_start=True).fit(DENSE, Y).fit(SPARSE, Y),
        small(warm_start=True).fit(DENSE, Y).fit(DENSE, Y),
    )
    assert same_weights(model, dense)


def test_memory_knows_sparse_rows_again(tmp_path):
    first = small(memory=tmp_path).fit(SPARSE, Y)
    files = sorted(tmp_path.iterdir())
    second = small(memory=tmp_path).fit(scipy.sparse.coo_array(DENSE), Y)
    assert same_weights(first, second)
    assert sorted(tmp_path.iterdir()) == files
    small(memory=tmp_path).fit(SPARSE * 2, Y)
    assert len(list(tmp_path.iterdir())) == len(files) + 1


def test_never_dense_as_a_whole(monkeypatch):
    """A table of words: 6,000 rows of 1,000 columns, of which 5,000 at most are dense at a time."""
    rng = np.random.default_rng(0)
    wide = scipy.sparse.csr_matrix(scipy.sparse.random_array((6000, 1000), density=1e-3, rng=rng, dtype=np.float32))
    target, asked, whole = rng.integers(2, size=6000), [], scipy.sparse.csr_matrix.toarray

    def toarray(self, *args, **kwargs):
        asked.append(self.shape[0])
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(scipy.sparse.csr_matrix, "toarray", toarray)
    small(batch_size=200, train_split=ValidSplit(3)).fit(wide, target).predict(wide)
    assert 200 in asked
    assert max(asked) <= 5000


def test_pipelines_and_searches():
    table = np.array([["a", "x"], ["b", "y"], ["c", "x"], ["a", "z"]] * 10, dtype=object)
    target = np.array(["yes", "no", "no", "yes"] * 10)
    model = make_pipeline(OneHotEncoder(), MaxAbsScaler(), small(max_epochs=6, lr=0.05))
    assert model.fit(table, target).score(table, target) == 1
    assert np.isfinite(cross_val_score(model, table, target, cv=2)).all()
    search = GridSearchCV(model, {"lbgapclassifier__batch_size": [8, -1]}, cv=2).fit(table, target)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_sparse_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame.sparse.from_spmatrix(SPARSE, columns=list("abcd"))
    model = small().fit(frame, Y)
    assert list(model.feature_names_in_) == list("abcd")
    assert same_weights(model, small().fit(DENSE, Y))
    np.testing.assert_array_equal(model.predict(frame), small().fit(DENSE, Y).predict(DENSE))


def test_measured_as_dense_rows_are():
    model = small().fit(SPARSE, Y)
    options = {"random_state": 0, "max_iter": 3}
    assert sharpness(model, SPARSE, Y, **options).value == pytest.approx(sharpness(model, DENSE, Y, **options).value)
    assert check_objective(model, SPARSE, Y).value() == pytest.approx(check_objective(model, DENSE, Y).value())


PICTURES, LABELS = images()
FLAT = scipy.sparse.csr_matrix(PICTURES.reshape(40, 64))
REFUSED = {
    "convolutional net": (dict(net=TinyC1, input_shape=(1, 8, 8)), FLAT, LABELS),
    "augmentation": (dict(augmentation="paper", input_shape=(1, 8, 8)), FLAT, LABELS),
    "sparse labels": ({}, SPARSE, scipy.sparse.csr_matrix(Y[:, None])),
    "sparse labels beside dense rows": ({}, DENSE, scipy.sparse.coo_array(Y[:, None])),
    "sparse tensor": ({}, torch.from_numpy(DENSE).to_sparse(), Y),
    "processes": ({"data_parallel": True}, SPARSE, Y),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_way_out(case):
    params, rows, target = REFUSED[case]
    with pytest.raises(TypeError, match="sparse_output=False"):
        small(**params).fit(rows, target)


def test_not_finite_and_other_shapes_are_refused():
    bad = SPARSE.copy()
    bad.data[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        small().fit(bad, Y)
    with pytest.raises(ValueError, match="4 features"):
        small().fit(SPARSE, Y).predict(SPARSE[:, :2])
