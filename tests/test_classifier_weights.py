"""Samples that count for more or less than others: `LBGapClassifier` with sample weights and class weights.

Where a loss is to be compared, nothing moves: the learning rate is too small to change a weight, and the epoch's loss
is that of the whole data in plain torch.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from skorch.callbacks import BatchScoring, Callback, EpochScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import DataLoader, Subset

from sklgap import DynamicSampling, LBGapClassifier, SwitchBatch, WeightAveraging
from sklgap.objective import check_objective
from sklgap.remedies import SAM, Adversarial, EntropySGD, Proximal, Stability
from tests.ids import plain
from tests.tiny import Mlp, Probabilities, TinyC1, blobs, images, same_weights, small, weights

X, Y = blobs()
COUNTS = np.random.default_rng(0).integers(0, 4, len(Y))
REPEATED = np.repeat(np.arange(len(Y)), COUNTS)
# Sums of some hundred float64 terms in another order, carried through three updates.
EXACT = {"rtol": 1e-9, "atol": 1e-11}
STILL = {"optimizer": torch.optim.SGD, "lr": 1e-30, "max_epochs": 1}


class Double(nn.Module):
    """A net without batch norm that computes in float64; sizes from the data."""

    takes_images = False

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 6), nn.Tanh(), nn.Linear(6, n_classes)).double()

    def forward(self, rows):
        return self.layers(rows)


def whole(**params):
    """Return a classifier in float64 that takes all samples at once."""
    return small(**{"net": Double, "batch_size": -1, "max_epochs": 3, "lr": 0.05, **params})


def still(**params):
    """Return a classifier in float64 that learns nothing."""
    return small(**{"net": Double, "batch_size": 7, **STILL, **params})


def assert_same(first, second):
    torch.testing.assert_close(weights(first), weights(second), **EXACT)


def mean_loss(model, X, y, counted):
    """Return sum_i c_i l_i / sum_i c_i in plain torch."""
    with torch.no_grad():
        outputs = model.module_(torch.from_numpy(X).double())
        losses = nn.functional.cross_entropy(outputs, torch.from_numpy(y), reduction="none")
    return float((torch.as_tensor(counted) * losses).sum() / np.sum(counted))


# -- a weight of 2 is a sample given twice ---------------------------------------------------------------------------

REMEDIES = {
    "none": {},
    "adversarial": {"remedies": [Adversarial(0.2)]},
    "asam": {"remedies": [SAM(0.5, adaptive=True)]},
    "entropy": {"remedies": [EntropySGD(3, gamma=10.0)]},
    "proximal": {"remedies": [Proximal(0.5, inner_steps=2)]},
    "proximal_lambda": {"proximal_lambda": 0.1},
    "sam": {"remedies": [SAM(0.2)]},
    "stability": {"remedies": [Stability(0.0, weight=0.5)]},
    "averaging": {"callbacks": [("averaging", WeightAveraging(start=0.0))]},
    "micro batches": {"micro_batch_size": 8},
    "class weights": {"class_weight": {0: 1.0, 1: 0.3, 2: 7.0}},
    "balanced": {"class_weight": "balanced"},
    "criterion": {"criterion__weight": [1.0, 0.3, 7.0]},
    "smoothing": {"criterion__label_smoothing": 0.2, "criterion__weight": [1.0, 0.3, 7.0]},
    "ignored class": {"criterion__ignore_index": 1},
    "margin": {"criterion": nn.MultiMarginLoss},
    "iterator": {"iterator_train__num_workers": 0},
    "regime": {"batch_regime": 1.0, "batch_size": None},
}


@cache
def unweighted(name):
    return whole(**REMEDIES[name]).fit(X, Y)


@pytest.mark.parametrize("name", REMEDIES)
def test_weights_are_repeated_samples(name):
    model = whole(**REMEDIES[name])
    weighted = clone(model).fit(X, Y, sample_weight=COUNTS)
    assert_same(weighted, clone(model).fit(X[REPEATED], Y[REPEATED]))
    assert not np.allclose(weighted.predict_proba(X), unweighted(name).predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("name", REMEDIES)
def test_equal_weights_are_none(name):
    model = whole(**REMEDIES[name])
    assert_same(clone(model).fit(X, Y, sample_weight=np.full(len(Y), 0.7)), unweighted(name))


def test_samples_without_weight_count_for_nothing():
    changed = X.copy()
    changed[COUNTS == 0] = 1e3
    assert_same(whole().fit(X, Y, COUNTS), whole().fit(changed, Y, COUNTS))


@pytest.mark.parametrize("exponent", [-900, -30, 30, 900])
def test_only_ratios_matter(exponent):
    """Powers of two change no digit, far beyond single precision."""
    given = COUNTS.astype(float)
    first, second = (small(batch_size=20).fit(X, Y, w) for w in (given, np.ldexp(given, exponent)))
    assert same_weights(first, second)
    assert first.history_[:, "train_loss"] == second.history_[:, "train_loss"]


@pytest.mark.parametrize(
    "given", [list, tuple, pd.Series, np.float32, torch.from_numpy, lambda w: torch.from_numpy(w).float()]
)
def test_anything_that_is_an_array(given):
    kept = COUNTS.copy()
    assert same_weights(small().fit(X, Y, given(COUNTS)), small().fit(X, Y, COUNTS))
    np.testing.assert_array_equal(COUNTS, kept)


# -- the loss is a ratio of sums, however the data are cut -------------------------------------------------------------

LOSSES = {
    "weights": ({}, COUNTS),
    "class weights": ({"class_weight": {1: 0.1, 2: 5.0}}, np.array([1.0, 0.1, 5.0])[Y]),
    "criterion": ({"criterion__weight": (1, 0.1, 5)}, np.array([1.0, 0.1, 5.0])[Y]),
    "ignored class": ({"criterion__ignore_index": 2}, (Y != 2).astype(float)),
    "all": (
        {"class_weight": {0: 3.0}, "criterion__weight": np.array([1.0, 0.1, 5.0]), "criterion__ignore_index": 2},
        COUNTS * np.array([3.0, 0.1, 0.0])[Y],
    ),
}
CUTS = {
    "batches": {},
    "micro batches": {"batch_size": 20, "micro_batch_size": 1},
    "iterator": {"iterator_train__drop_last": False},
    "remedies": {"remedies": [SAM(0.0, sub_batch_size=3), Adversarial(0.1), Stability(0.1)]},
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_an_epoch(name, cut):
    params, counted = LOSSES[name]
    given = COUNTS if name in ("weights", "all") else None
    model = still(**params, **CUTS[cut]).fit(X, Y, given)
    assert model.train_loss_ == pytest.approx(mean_loss(model, X, Y, counted), rel=1e-9)


@pytest.mark.parametrize("iterator", [{}, {"iterator_valid__batch_size": 3}])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_samples_held_out(name, iterator):
    params, counted = LOSSES[name]
    given = COUNTS if name in ("weights", "all") else None

    def every_fourth(dataset, y):
        rows = np.arange(len(y))
        return Subset(dataset, rows[rows % 4 > 0]), Subset(dataset, rows[rows % 4 == 0])

    model = still(**params, **iterator, train_split=every_fourth).fit(X, Y, given)
    held_out = np.arange(len(Y)) % 4 == 0
    for loss, part in (("train_loss", ~held_out), ("valid_loss", held_out)):
        expected = mean_loss(model, X[part], Y[part], counted[part])
        assert model.history_[-1, loss] == pytest.approx(expected, rel=1e-9), loss


def test_micro_batches_in_which_nothing_counts():
    few = np.zeros(len(Y))
    few[:3] = 1
    parts, together = (whole(micro_batch_size=size).fit(X, Y, few) for size in (2, None))
    assert_same(parts, together)
    batches = whole(batch_size=5).fit(X, Y, few)
    assert np.isfinite(batches.history_[:, "train_loss"]).all()
    assert all(w.isfinite().all() for w in weights(batches).values())


@pytest.mark.parametrize("given", [[1, 0.1, 5], (1, 0.1, 5), np.array([1, 0.1, 5]), torch.tensor([1, 0.1, 5.0])])
def test_class_weights_of_the_criterion_are_any_array(given):
    reference = whole(class_weight={0: 1, 1: float(np.float32(0.1)), 2: 5}).fit(X, Y)
    model = whole(criterion__weight=given).fit(X, Y)
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-6, atol=1e-7)
    assert model.get_params()["criterion__weight"] is given
    assert model.net_.criterion_.weight.dtype == torch.float64
    single = small(criterion__weight=np.array([1, 0.1, 5])).fit(X, Y)
    assert single.net_.criterion_.weight.dtype == torch.float32


class Focal(nn.Module):
    """A user's loss: what its weight means is its own business."""

    def __init__(self, weight):
        super().__init__()
        self.reduction, self.given = "mean", weight
        self.register_buffer("by_class", torch.tensor(weight, dtype=torch.float64))

    def forward(self, y_pred, y):
        losses = y_pred.softmax(1).neg().add(1)[range(len(y)), y] * self.by_class[y]
        return losses.mean() if self.reduction == "mean" else losses


def test_weights_of_a_criterion_of_the_user_are_as_given():
    model = small(net=Mlp, batch_size=-1, criterion=Focal, criterion__weight=[1, 2, 3])
    weighted = clone(model).fit(X, Y, COUNTS)
    assert weighted.net_.criterion_.given == [1, 2, 3]
    assert weighted.net_.criterion_.by_class.dtype == torch.float32
    torch.testing.assert_close(weights(weighted), weights(model.fit(X[REPEATED], Y[REPEATED])), rtol=1e-4, atol=1e-6)


def test_class_weights_of_probabilities():
    options = {"net": Probabilities, "criterion": nn.NLLLoss, "batch_size": -1, "max_epochs": 5}
    by_class = small(**options, class_weight={0: 4.0}).fit(X, Y)
    by_sample = small(**options).fit(X, Y, np.where(Y == 0, 4.0, 1.0))
    torch.testing.assert_close(weights(by_class), weights(by_sample), rtol=1e-4, atol=1e-6)


# -- class weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[5, 7, 9], ["a", "b", "c"], ["0", "1", "2"], [-1.0, 0.0, 2.0]])
def test_labels_of_any_kind(labels):
    y = np.array(labels)[Y]
    found = whole(class_weight=dict(zip(labels, (1.0, 0.3, 7.0), strict=True))).fit(X, y)
    assert_same(found, whole(class_weight={0: 1.0, 1: 0.3, 2: 7.0}).fit(X, Y))


def test_balanced_is_what_scikit_learn_says():
    rare = np.where(np.arange(len(Y)) % 5 > 0, 0, Y)
    expected = dict(enumerate(compute_class_weight("balanced", classes=np.unique(rare), y=rare)))
    assert_same(whole(class_weight="balanced").fit(X, rare), whole(class_weight=expected).fit(X, rare))
    y = np.repeat(rare, COUNTS)
    expected = dict(enumerate(compute_class_weight("balanced", classes=np.unique(y), y=y)))
    assert_same(whole(class_weight="balanced").fit(X, rare, COUNTS), whole(class_weight=expected).fit(X, rare, COUNTS))


def test_a_class_whose_samples_have_no_weight():
    found = whole(class_weight="balanced").fit(X, Y, (Y > 0).astype(float))
    assert all(w.isfinite().all() for w in weights(found).values())


def test_the_model_is_measured_as_it_was_trained():
    y = np.array(["a", "b", "c"])[Y]
    model = still(class_weight={"b": 0.1, "c": 5.0}, batch_size=-1).fit(X, y)
    expected = mean_loss(model, X, Y, np.array([1.0, 0.1, 5.0])[Y])
    assert check_objective(model, X, y).value() == pytest.approx(expected, rel=1e-9)
    assert check_objective(model.net_, X, y).value() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_net_says_of_its_loss(dtype):
    """Numerators and denominators: what a mean over parts of the data is made of."""
    model = small(class_weight={1: 0.1, 2: 5.0}, criterion__weight=[2, 1, 1], criterion__ignore_index=2).fit(X, Y)
    loss, counted = model.net_.row_loss(), np.array([2.0, 0.1, 0.0])[Y]
    y, y_pred = torch.from_numpy(Y), torch.from_numpy(model.net_.forward(X).numpy()).to(dtype)
    model.net_.criterion_.to(dtype)
    torch.testing.assert_close(loss.counts(y).to(dtype), torch.tensor(counted, dtype=dtype), rtol=1e-6, atol=0)
    terms = torch.tensor(counted, dtype=dtype) * nn.functional.cross_entropy(y_pred, y, reduction="none")
    torch.testing.assert_close(loss.terms(y_pred, y), terms, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss.mean(y_pred, y), terms.sum() / counted.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(model.net_.get_loss(y_pred, y), loss.mean(y_pred, y), rtol=0, atol=0)


def test_a_warm_start_has_the_class_weights_of_the_first_fit():
    model = whole(class_weight={0: 4.0}, warm_start=True).fit(X, Y)
    changed = clone(model).fit(X, Y).set_params(class_weight={0: 0.5})
    assert_same(model.fit(X, Y), changed.fit(X, Y))


def test_a_warm_start_takes_the_sample_weights_of_each_fit():
    model = whole(warm_start=True).fit(X, Y).fit(X, Y, COUNTS)
    assert_same(model, whole(warm_start=True).fit(X, Y).fit(X[REPEATED], Y[REPEATED]))


# -- what weights go through -------------------------------------------------------------------------------------------


def test_score():
    model = small().fit(X, Y)
    right = model.predict(X) == Y
    assert model.score(X, Y, sample_weight=COUNTS) == pytest.approx(np.average(right, weights=COUNTS))
    assert model.train_score_ == right.mean()


def test_pipelines_and_searches():
    pipeline = make_pipeline(StandardScaler(), small(batch_size=20))
    fitted = pipeline.fit(X, Y, lbgapclassifier__sample_weight=COUNTS)[-1]
    scaled = StandardScaler().fit_transform(X)
    assert same_weights(fitted, small(batch_size=20).fit(scaled, Y, COUNTS))
    search = GridSearchCV(small(batch_size=20), {"lr": [0.1, 0.01]}, cv=2, refit=False)
    assert np.isfinite(search.fit(X, Y, sample_weight=COUNTS).cv_results_["mean_test_score"]).all()


def test_routing():
    with config_context(enable_metadata_routing=True):
        model = small(batch_size=20).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        halves = [(np.arange(30), np.arange(30, 60))]
        found = cross_validate(model, X, Y, cv=halves, params={"sample_weight": COUNTS}, return_estimator=True)
    alone = small(batch_size=20).fit(X[:30], Y[:30], COUNTS[:30])
    assert same_weights(found["estimator"][0], alone)
    assert found["test_score"] == pytest.approx(alone.score(X[30:], Y[30:], COUNTS[30:]))


@pytest.mark.parametrize(
    "ensemble",
    [
        lambda model: AdaBoostClassifier(model, n_estimators=2, random_state=0),
        lambda model: BaggingClassifier(model, n_estimators=2, random_state=0),
        lambda model: CalibratedClassifierCV(model, cv=2),
    ],
)
def test_ensembles(ensemble):
    model = small(max_epochs=10, lr=0.05, batch_size=20)
    assert ensemble(model).fit(X, Y, sample_weight=COUNTS + 1).score(X, Y) > 0.6


@pytest.mark.parametrize(
    "params",
    [
        {"batch_regime": "LB", "lr_scaling": "sqrt", "regime_adaptation": True},
        {"batch_regime": SwitchBatch(switch_epoch=1, first=8, then=0.5)},
        {"batch_regime": DynamicSampling(initial=8, largest=0.5, theta=0.3)},
        {"batch_regime": DynamicSampling(initial=8, largest=0.5, theta=0.3), "net": Double},
        {"ghost_batch_size": 4, "batch_size": 20},
        {"augmentation": lambda rows: rows + 1},
        {"remedies": ["samplenoise", "stability"]},
        {"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 4},
    ],
    ids=plain,
)
def test_regimes_and_remedies_train(params):
    model = small(**params, max_epochs=3, class_weight="balanced").fit(X, Y, COUNTS)
    assert np.isfinite(model.history_[:, "train_loss"]).all()
    assert not same_weights(model, small(**params, max_epochs=3, class_weight="balanced").fit(X, Y))


def test_images():
    pictures, labels = images()
    model = small(net=TinyC1, batch_size=12, max_epochs=6).fit(pictures, labels, 1 + labels)
    assert model.score(pictures, labels) > 0.8


class Seen(Callback):
    """Notes how many parts the batches have."""

    def __init__(self):
        self.parts = set()

    def on_batch_begin(self, net, batch=None, **kwargs):
        self.parts.add(len(batch))

    def on_batch_end(self, net, batch=None, **kwargs):
        self.parts.add(len(batch))


@pytest.mark.parametrize("iterator", [{}, {"iterator_train__drop_last": False, "iterator_valid__batch_size": 5}])
def test_callbacks_see_batches_as_without_weights(iterator):
    callbacks = [
        ("seen", Seen()),
        ("cached", EpochScoring("accuracy", name="cached", lower_is_better=False)),
        ("again", EpochScoring("accuracy", name="again", lower_is_better=False, use_caching=False)),
        ("train", BatchScoring("accuracy", name="on_train", on_train=True, lower_is_better=False)),
    ]
    model = small(train_split=ValidSplit(3), callbacks=callbacks, callbacks__train__on_train=True, **iterator)
    model.fit(X, Y, COUNTS)
    assert dict(model.net_.callbacks_)["seen"].parts == {2}
    assert model.history_[-1, "cached"] == model.history_[-1, "again"] == model.history_[-1, "valid_acc"]


def test_a_validation_set_of_the_user_beside_weights():
    split = predefined_split(Dataset(X[:20], Y[:20]))
    model = still(train_split=split, class_weight={0: 3.0}).fit(X, Y, COUNTS)
    by_class = np.array([3.0, 1.0, 1.0])
    assert model.train_loss_ == pytest.approx(mean_loss(model, X, Y, COUNTS * by_class[Y]), rel=1e-9)
    expected = mean_loss(model, X[:20], Y[:20], by_class[Y[:20]])
    assert model.history_[-1, "valid_loss"] == pytest.approx(expected, rel=1e-9)


def test_a_fit_that_is_kept_is_that_of_its_weights(tmp_path):
    kinds = [({}, None), ({}, COUNTS), ({}, COUNTS + 1), ({"class_weight": {0: 3.0}}, None)]
    kinds += [({"criterion__weight": [3, 1, 1.5]}, None), ({"class_weight": "balanced"}, COUNTS)]
    fits, again = ([small(memory=tmp_path, **params).fit(X, Y, w) for params, w in kinds] for _ in range(2))
    for first, second in zip(fits, again, strict=True):
        assert first.history_[:, "dur"] == second.history_[:, "dur"]  # loaded
        assert same_weights(first, second)
    assert len({tuple(model.history_[:, "train_loss"]) for model in fits}) == len(kinds)


def test_without_weights_batches_are_pairs():
    """The path that nothing must slow down."""
    model = small(callbacks=[("seen", Seen())]).fit(X, Y)
    loader = model.net_.get_iterator(Dataset(X, Y), training=False)
    assert all(type(batch) is tuple and len(batch) == 2 for batch in loader)


# -- refused -----------------------------------------------------------------------------------------------------------

SOME = np.ones(len(Y))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (SOME[1:], "sample_weight.shape"),
        (np.ones((len(Y), 2)), "1D array"),
        (-SOME, "sample_weight must hold numbers of at least 0; got -1.0"),
        (np.where(Y == 0, np.nan, 1.0), "sample_weight contains NaN"),
        (np.where(Y == 0, np.inf, 1.0), "sample_weight contains infinity"),
        (0 * SOME, "at least one non-zero number|all of them are 0"),
        (np.full(len(Y), "heavy"), "sample_weight must hold one number for each sample: could not convert string"),
    ],
)
def test_weights_that_mean_nothing(given, sentence):
    model = small()
    with pytest.raises(ValueError, match=sentence):
        model.fit(X, Y, sample_weight=given)
    assert not hasattr(model, "net_")


class OwnLoader(DataLoader):
    """A user's loader of pairs."""


class OwnDataset(Dataset):
    """A user's dataset of pairs."""


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"iterator_train": OwnLoader}, "iterator_train"),
        ({"iterator_valid": OwnLoader, "train_split": ValidSplit(3)}, "iterator_valid"),
        ({"iterator_train__collate_fn": torch.utils.data.default_collate}, "iterator_train__collate_fn"),
        ({"dataset": OwnDataset}, "dataset"),
    ],
)
def test_a_data_path_that_would_lose_the_weights(params, name):
    with pytest.raises(ValueError, match=f"sample_weight must be None with your own {name}"):
        small(**params).fit(X, Y, COUNTS)
    assert np.isfinite(small(**params, class_weight={0: 2.0}).fit(X, Y).train_loss_)


def test_a_split_that_would_lose_the_weights():
    def split(dataset, y):
        return Dataset(dataset.X[:40], y[:40]), None

    with pytest.raises(ValueError, match="train_split must return its dataset, or a torch Subset of it"):
        small(train_split=split).fit(X, Y, COUNTS)


class MeanSquares(nn.Module):
    """A user's loss of which only the mean is known."""

    def forward(self, y_pred, y):
        return (y_pred - nn.functional.one_hot(y, y_pred.shape[1])).square().mean()


class AlwaysMean(MeanSquares):
    """One with a reduction that changes nothing."""

    reduction = "mean"


class Normalised(nn.CrossEntropyLoss):
    """One whose mean is not the mean of its terms."""

    def forward(self, y_pred, y):
        loss = super().forward(y_pred, y)
        return 2 * loss if self.reduction == "mean" else loss


@pytest.mark.parametrize("criterion", [MeanSquares, AlwaysMean, Normalised])
@pytest.mark.parametrize("by", ["samples", "classes"])
def test_a_criterion_whose_terms_are_not_known(criterion, by):
    model = small(net=Mlp, criterion=criterion, class_weight={0: 2.0} if by == "classes" else None)
    with pytest.raises(TypeError, match=r"(sample_weight|class_weight).* needs? a criterion that"):
        model.fit(X, Y, COUNTS if by == "samples" else None)
    assert not hasattr(model, "net_")
    small(net=Mlp, criterion=criterion).fit(X, Y)


def test_a_warm_start_with_a_criterion_whose_terms_are_not_known():
    model = small(net=Mlp, criterion=MeanSquares, warm_start=True).fit(X, Y)
    before = weights(model)
    with pytest.raises(TypeError, match="need a criterion that"):
        model.fit(X, Y, COUNTS)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("balance", "class_weight must be None, 'balanced' or a dict"),
        ([1, 2, 3], "class_weight must be None, 'balanced' or a dict"),
        ({0: 1, 7: 2}, r"The classes, \[1, 2\], are not in class_weight"),
        ({0: 1, 1: 1, 2: 1, 7: 2}, r"class_weight must have labels of y, \[0, 1, 2\], as its keys; it also has \[7\]"),
        ({0: -1}, "class_weight must hold finite numbers of at least 0"),
        ({0: np.nan}, "class_weight must hold finite numbers of at least 0"),
        ({0: "heavy"}, "class_weight must hold finite numbers of at least 0"),
        ({0: 0, 1: 0, 2: 0}, "not all 0"),
    ],
)
def test_class_weights_that_mean_nothing(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(class_weight=given).fit(X, Y)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([1, 2], r"criterion__weight must hold one number for each of the 3 classes; got \(2,\)"),
        (np.ones((3, 1)), r"one number for each of the 3 classes; got \(3, 1\)"),
        ([1, 2, -1], "criterion__weight must hold finite numbers of at least 0"),
        (torch.tensor([1, 2, torch.nan]), "criterion__weight must hold finite numbers of at least 0"),
        ([0, 0, 0], "not all 0"),
        (2.0, r"one number for each of the 3 classes; got \(\)"),
        (["a", "b", "c"], "criterion__weight must hold numbers"),
    ],
)
def test_weights_of_the_criterion_that_mean_nothing(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(criterion__weight=given).fit(X, Y)


@pytest.mark.parametrize(
    ("params", "given"),
    [
        ({"class_weight": {1: 0, 2: 0}}, Y > 0),
        ({"criterion__weight": [1, 0, 0]}, Y > 0),
        ({"criterion__ignore_index": 2}, Y == 2),
        ({"train_split": lambda dataset, y: (Subset(dataset, range(30)), None)}, np.arange(len(Y)) >= 30),
        ({"train_split": lambda dataset, y: (dataset, Subset(dataset, range(30)))}, np.arange(len(Y)) >= 30),
    ],
)
def test_nothing_that_counts(params, given):
    with pytest.raises(ValueError, match="must give at least one training sample"):
        small(**params).fit(X, Y, np.asarray(given, dtype=float))


def test_a_clone_has_the_parameter():
    model = LBGapClassifier(class_weight={"a": 2.0})
    assert clone(model).get_params()["class_weight"] == {"a": 2.0}
