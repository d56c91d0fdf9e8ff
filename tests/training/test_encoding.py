import numpy as np
import pytest
import torch
from sklearn.utils.multiclass import type_of_target

from sklgap.training._encoding import DataEncoding, class_numbers, with_classes

X = np.arange(24.0).reshape(4, 6)
ENCODING = DataEncoding(np.array(["a", "b", "c"]), (6,), (1, 2, 3))


def test_rows_and_labels():
    rows, target = ENCODING.encode(X.tolist(), ["c", "a", "a", "b"])
    assert (rows.shape, rows.dtype) == ((4, 1, 2, 3), np.float32)
    np.testing.assert_array_equal(rows.reshape(4, 6), X)
    assert (target.tolist(), target.dtype.kind) == ([2, 0, 0, 1], "i")
    np.testing.assert_array_equal(ENCODING.encode(torch.as_tensor(X), np.array([["a"]] * 4))[0], rows)


def test_float32_rows_are_not_copied():
    single = X.astype(np.float32)
    assert np.shares_memory(ENCODING.encode(single, ["a"] * 4)[0], single)


def test_feature_names():
    pd = pytest.importorskip("pandas")
    names = list("uvwxyz")
    named = DataEncoding(ENCODING.classes, (6,), (6,), names)
    frame = pd.DataFrame(X, columns=names)
    np.testing.assert_array_equal(named.encode(frame, ["a"] * 4)[0], X)
    np.testing.assert_array_equal(named.encode(X, ["a"] * 4)[0], X)
    np.testing.assert_array_equal(ENCODING.encode(frame[names[::-1]], ["a"] * 4)[0].reshape(4, 6), X[:, ::-1])
    with pytest.raises(
        ValueError, match=r"must have the columns \['u', 'v', .* of fit, in their order; got \['z', 'y'"
    ):
        named.encode(frame[names[::-1]], ["a"] * 4)


@pytest.mark.parametrize(
    ("X", "y", "sentence"),
    [
        (X[:, :5], ["a"] * 4, r"X must have samples of shape \(6,\), as in fit; got \(5,\)\."),
        (X.reshape(4, 2, 3), ["a"] * 4, r"X must have samples of shape \(6,\), as in fit; got \(2, 3\)\."),
        (X, ["a"] * 3, "X and y must have the same number of samples; got 4 and 3"),
        (X, ["a", "a", "d", "a"], r"y must have the labels seen in fit, \['a' 'b' 'c'\]; got \['d'\] as well"),
        (X + np.inf, ["a"] * 4, "Input X contains"),
    ],
)
def test_bad_data(X, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        ENCODING.encode(X, y)


LABELS = {
    "integers": np.array([5, 3, 5, 9, 3]),
    "negative": np.array([-3, 2, -3, 0]),
    "bytes": np.array([-128, 127, 0, 127], dtype=np.int8),
    "many": np.tile(np.array([-128, 127], dtype=np.int8), 200),
    "unsigned": np.array([200, 3, 200], dtype=np.uint8),
    "large": np.array([2**63, 2**63 + 5, 2**63], dtype=np.uint64),
    "far": np.array([-(2**63), 2**63 - 1, 0]),
    "texts": np.array(["b", "a", "b"]),
    "objects": np.array(["y", "x", "y"], dtype=object),
    "numbers": np.array([0.5, 0.0, 0.5]),
    "flags": np.array([True, False, True]),
    "one": np.array([7, 7]),
}


@pytest.mark.parametrize("name", LABELS)
def test_class_numbers_are_those_of_unique(name):
    y = LABELS[name]
    for found, expected in zip(class_numbers(y), np.unique(y, return_inverse=True), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("name", LABELS)
def test_a_note_of_the_classes_leaves_labels_as_they_are(name):
    y = LABELS[name]
    noted = with_classes(y, np.unique(y))
    np.testing.assert_array_equal(noted, y)
    assert y.dtype.metadata is None
    assert type_of_target(noted) == type_of_target(y)


def test_scikit_learn_reads_the_note(monkeypatch):
    y = np.arange(20) % 3
    noted = with_classes(y, np.array([0, 1, 2]))
    monkeypatch.setattr(np, "unique", None)
    assert type_of_target(noted) == "multiclass"
