"""Rows held out for validation: the user's own are encoded as those of fit."""

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch.utils.data import IterableDataset, Subset, TensorDataset

from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

X, Y = blobs()
VALID = np.arange(60) % 3 == 1  # rows of one class, of three
HELD = np.arange(60) % 5 == 2
NAMES = np.array(["b", "c", "a"])
LABELS = {"strings": NAMES[Y], "from 1": Y + 1, "booleans": Y > 0, "floats": 10.0 * Y, "negative": -Y}


class Pairs(torch.utils.data.Dataset):
    """A dataset of the user's, which skorch knows nothing of."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), self.y[i]


def agrees(model, X_valid, y_valid):
    """Say whether the last record of the validation is what the fitted model does on these rows."""
    shown = model.history_[-1]
    proba = model.predict_proba(X_valid)[np.arange(len(y_valid)), np.searchsorted(model.classes_, y_valid)]
    assert shown["valid_acc"] == pytest.approx(model.score(X_valid, y_valid))
    assert shown["valid_loss"] == pytest.approx(-np.log(proba).mean(), rel=1e-5)


@pytest.mark.parametrize("make", [Dataset, Pairs])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_the_user(labels, make):
    split = predefined_split(make(X[HELD], labels[HELD]))
    model = small(net=lambda: Mlp(4, len(np.unique(labels))), train_split=split).fit(X[~HELD], labels[~HELD])
    agrees(model, X[HELD], labels[HELD])


def test_a_validation_set_may_lack_classes():
    labels = Y + 1
    model = small(net=Mlp, train_split=predefined_split(Dataset(X[VALID], labels[VALID]))).fit(X, labels)
    agrees(model, X[VALID], labels[VALID])


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.from_numpy(X[HELD]), torch.from_numpy(Y[HELD])),
        Dataset(X[HELD].astype(np.float64), Y[HELD].astype(np.int32)),
        Dataset(torch.from_numpy(X[HELD]), torch.from_numpy(Y[HELD])),
        Subset(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), np.flatnonzero(HELD)),
        Subset(Dataset(X, Y), np.flatnonzero(HELD)),
    ],
    ids=["tensors", "float64", "tensors of skorch", "subset", "subset of skorch"],
)
def test_kinds_of_datasets(dataset):
    agrees(small(net=Mlp, train_split=predefined_split(dataset)).fit(X, Y), X[HELD], Y[HELD])


def test_flat_images_of_the_user_get_the_shape_of_the_net():
    pictures, y = images()
    flat = pictures.reshape(40, 64)
    params = {"net": TinyC1, "input_shape": (1, 8, 8), "recompute_batch_norm": False}
    model = small(train_split=predefined_split(Dataset(flat[:10], y[:10])), **params).fit(flat[10:], y[10:])
    agrees(model, flat[:10], y[:10])


def test_a_split_of_the_users_sees_rows_and_labels_as_fit_does():
    seen = []

    def split(dataset, y):
        seen.append((np.array(dataset.X), np.array(y)))
        return Dataset(dataset.X[~HELD], y[~HELD]), Dataset(dataset.X[HELD], y[HELD])

    model = small(net=Mlp, train_split=split).fit(X, NAMES[Y])
    np.testing.assert_array_equal(seen[0][0], X)
    np.testing.assert_array_equal(seen[0][1], NAMES[Y])
    agrees(model, X[HELD], NAMES[Y][HELD])
    assert model.net_.n_samples_ == (~HELD).sum()


def test_a_nested_split_of_skorch_trains_on_the_same_rows():
    def nested(dataset, y):
        train, valid = ValidSplit(5)(dataset, y)
        return Subset(train, range(len(train))), valid

    assert same_weights(*(small(train_split=split).fit(X, NAMES[Y]) for split in (nested, ValidSplit(5))))


def test_a_split_may_hold_nothing_out():
    model = small(train_split=lambda dataset, y: (dataset, None)).fit(X, Y)
    assert same_weights(model, small().fit(X, Y))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0])])


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Dataset(X, Y + 1), r"labels seen in fit, \[0 1 2\]; got \[3\]"),
        (Pairs(X, NAMES[Y]), "labels seen in fit"),
        (Dataset(X[:, :2], Y), r"samples of shape \(4,\), as in fit; got \(2,\)"),
        (Dataset(X), "holds no labels"),
        (Dataset(np.where(X > 2, np.nan, X), Y), "NaN"),
        (Stream(), "no length"),
        (TensorDataset(torch.from_numpy(X)), "pairs"),
    ],
    ids=["label", "kind of label", "shape", "no labels", "nan", "stream", "no pairs"],
)
def test_refused_in_one_sentence(dataset, words):
    with pytest.raises(ValueError, match=f"^train_split must return .*{words}"):
        small(net=Mlp, train_split=predefined_split(dataset)).fit(X, Y)
