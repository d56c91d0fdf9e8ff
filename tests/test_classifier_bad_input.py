"""Every wrong parameter and wrong data end in one sentence, before training, and leave nothing half-fitted."""

import re
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import nn

from sklgap.objective import check_objective
from sklgap.regimes import BatchRegime, GrowingBatch, SwitchBatch
from sklgap.remedies import Augmentation, Proximal, Remedy
from tests.tiny import Mlp, blobs, images, same_weights, small

X, Y = blobs()


class CountBatches(Callback):
    """Counts the batches of all fits since ``seen`` was last set to zero."""

    seen = 0

    def on_batch_begin(self, net, **kwargs):
        type(self).seen += 1


def assert_refused(model, match, X=X, y=Y, error=(ValueError, TypeError)):
    """Fit raises one sentence that matches, before the first batch, and the model is as unfitted as before."""
    if model.callbacks is None:
        model.callbacks = [CountBatches()]
    CountBatches.seen = 0
    with pytest.raises(error, match=match) as caught:
        model.fit(X, y)
    assert CountBatches.seen == 0, "training had started"
    assert len(str(caught.value).split(". ")) == 1 or "\n" in str(caught.value)  # scikit-learn's own take several lines
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


INTEGER = "must be an integer of at least 1; got "
OPTIONAL = "must be None or an integer of at least "
AUGMENTATIONS = "None, 'paper', 'crop-flip', 'crop-flip-cutout'"
SIZE = "must be an integer of at least 1, a fraction of the training samples in (0, 1], or -1 for all of them; got "

WRONG_NUMBERS = [
    *(({"max_epochs": value}, f"max_epochs {INTEGER}{value!r}") for value in (0, -1, 1.5, "5", None, True)),
    *(({"n_iter_no_change": value}, f"n_iter_no_change {INTEGER}{value!r}") for value in (0, 2.0, None)),
    *(({"proximal_lambda": 1.0, "proximal_steps": v}, f"proximal_steps {INTEGER}{v!r}") for v in (0, -1, 1.5, True)),
    *(({"base_batch_size": value}, f"base_batch_size {OPTIONAL}1; got {value!r}") for value in (0, -1, 0.5, "8")),
    *(({"micro_batch_size": value}, f"micro_batch_size {OPTIONAL}1; got {value!r}") for value in (0, -1, 2.5)),
    *(({"ghost_batch_size": value}, f"ghost_batch_size {OPTIONAL}2; got {value!r}") for value in (0, 1, 2.5)),
    *(({"batch_size": value}, f"batch_size {SIZE}{value!r}") for value in (0, -2, 1.5, 0.0, -1.0, "8", True)),
    *(({"batch_regime": value}, f"batch_regime {SIZE}{value!r}") for value in (0, -2, 1.5, True)),
    *(({"lr": v}, f"lr must be a number above 0; got {v!r}") for v in (0, -1.0, float("nan"), float("inf"), "1", None)),
    *(({"tol": v}, f"tol must be None or a number of at least 0; got {v!r}") for v in (-1e-9, float("nan"), "1", True)),
    *(({"target_loss": v}, f"target_loss must be None or a number of at least 0; got {v!r}") for v in (-1, "low")),
    *(
        ({"proximal_lambda": value}, f"proximal_lambda must be None or a number of at least 0; got {value!r}")
        for value in (-1e-3, float("nan"), float("inf"), "1", True)
    ),
    *(
        ({"random_state": v}, f"random_state must be None, an integer of at least 0 or a RandomState; got {v!r}")
        for v in (-1, 1.5, "seed", True)
    ),
    *(
        ({name: value}, f"{name} must be True or False; got {value!r}")
        for name in ("regime_adaptation", "recompute_batch_norm", "warm_start")
        for value in ("no", 2, None)
    ),
]

WRONG_CHOICES = [
    (
        {"net": "F3"},
        "net must be one of 'F1', 'F2', 'C1', 'C2', 'C3', 'C4', 'ResNet44', 'WRN16-4', a torch module or its class; "
        "got 'F3'",
    ),
    ({"net": 5}, "net must be one of 'F1'"),
    ({"net": None}, "net must be one of 'F1'"),
    ({"net": np.ndarray}, "net must be one of 'F1'"),
    (
        {"batch_regime": "XL"},
        "batch_regime must be 'SB', 'LB', an integer, a fraction or a BatchRegime; got 'XL'",
    ),
    ({"batch_regime": None}, "batch_regime must be 'SB', 'LB'"),
    ({"batch_regime": SwitchBatch}, "batch_regime must be 'SB', 'LB'"),
    ({"batch_regime": SwitchBatch(switch_epoch=-1)}, "switch_epoch must be an integer of at least 0; got -1"),
    ({"batch_regime": SwitchBatch(first=0)}, f"first {SIZE}0"),
    ({"batch_regime": SwitchBatch(switch_epoch=1, then=0)}, f"then {SIZE}0"),
    ({"batch_regime": GrowingBatch(factor=0.5)}, "factor must be a number of at least 1; got 0.5"),
    ({"batch_regime": GrowingBatch(every=0)}, "every must be an integer of at least 1; got 0"),
    ({"batch_regime": GrowingBatch(largest=-3)}, f"largest {SIZE}-3"),
    (
        {"batch_regime": SwitchBatch(), "batch_size": 8},
        "batch_size must be None with a batch_regime that varies, SwitchBatch(); got 8",
    ),
    ({"init": "he"}, "init must be 'glorot_uniform', 'torch' or a callable on a module; got 'he'"),
    ({"init": None}, "init must be 'glorot_uniform', 'torch' or a callable on a module; got None"),
    ({"lr_scaling": "cubic"}, "lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got 'cubic'"),
    ({"lr_scaling": True}, "lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got True"),
    *(
        ({"augmentation": value}, f"augmentation must be {AUGMENTATIONS}, a callable or a Remedy; got {value!r}")
        for value in ("flips", 0.2)
    ),
    (
        {"augmentation": Augmentation(flip=False, degrees=-1), "input_shape": (1, 2, 2)},
        "degrees must be a number in [0, 180]",
    ),
    ({"augmentation": Augmentation(flip=False, translate=2), "input_shape": (1, 2, 2)}, "translate must be a number"),
    ({"augmentation": "paper"}, "input_shape=(channels, height, width) must be given"),
    (
        {"augmentation": Augmentation(flip=False, cutout=-1), "input_shape": (1, 2, 2)},
        "cutout must be an integer of at least 0; got -1",
    ),
    (
        {"augmentation": "crop-flip", "input_shape": (1, 2, 2)},
        "crop_padding must be less than the smaller side of the images, 2; got 4",
    ),
    (
        {"ghost_batch_size": 128},
        "ghost_batch_size must be at most the largest batch that batch norm sees, 8 samples; got 128",
    ),
    ({"remedies": Proximal()}, "remedies must be a sequence of Remedy objects; got Proximal() alone"),
    ({"remedies": [1]}, "remedies must hold Remedy objects or pairs (name, Remedy); got 1"),
    ({"remedies": [("near", 1)]}, "remedies must hold Remedy objects or pairs (name, Remedy); got ('near', 1)"),
    ({"remedies": [("a", Proximal()), ("a", Proximal())]}, "remedies must have different names; got 'a' twice"),
    ({"remedies": [Proximal(-1.0)]}, "proximal_lambda must be None or a number of at least 0; got -1.0"),
    ({"remedies": 5}, "remedies must"),
    ({"remedies": (Augmentation(flip=False),)}, "input_shape=(channels, height, width) must be given"),
    *(
        ({"criterion__reduction": value}, "criterion must return the mean loss of the samples; got another reduction")
        for value in ("sum", "none")
    ),
    ({"device": "abacus"}, "device must be 'auto' or a torch device such as 'cpu' or 'cuda'; got 'abacus'"),
    ({"device": None}, "device must be 'auto' or a torch device such as 'cpu' or 'cuda'; got None"),
    ({"optimizer": "adam"}, "optimizer must be a class of torch, such as torch.optim.SGD; got 'adam'"),
    ({"criterion": "mse"}, "criterion must be a class of torch, such as torch.nn.CrossEntropyLoss; got 'mse'"),
    *(
        ({"callbacks": value}, f"callbacks must be None or a list of skorch callbacks; got {value!r}")
        for value in (3, [3], "disable", [("name", 3)])
    ),
    ({"train_split": 5}, "train_split must"),
    ({"net": "C1"}, "input_shape=(channels, height, width) must be given for a net"),
    ({"net": "C1", "input_shape": (4, 1)}, "input_shape must be None or (channels, height, width); got (4, 1)"),
    ({"net": "C1", "input_shape": (1, 2.0, 2)}, "input_shape must be None or (channels, height, width)"),
    ({"net": "C1", "input_shape": (1, 2, -2)}, "input_shape must be None or (channels, height, width)"),
    ({"net": "C1", "input_shape": 4}, "input_shape must be None or (channels, height, width); got 4"),
    ({"net": "C1", "input_shape": (1, 3, 3)}, "input_shape=(1, 3, 3) does not fit X, whose samples have 4 values"),
    ({"batch_size": 1}, "batch normalisation needs batches of at least 2 samples"),
    ({"micro_batch_size": 1}, "batch normalisation needs batches of at least 2 samples"),
    ({"batch_regime": SwitchBatch(switch_epoch=1, then=1)}, "batch normalisation needs batches of at least 2 samples"),
]


@pytest.mark.parametrize(("params", "sentence"), WRONG_NUMBERS, ids=str)
def test_wrong_number_or_flag(params, sentence):
    assert_refused(small(**params), re.escape(sentence))


@pytest.mark.parametrize(("params", "sentence"), WRONG_CHOICES, ids=[str(p) for p, _ in WRONG_CHOICES])
def test_wrong_choice(params, sentence):
    assert_refused(small(**params), re.escape(sentence))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_device_that_is_not_there(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert_refused(small(device=device), f"device='{device}' is not available on this machine")


class Regime(BatchRegime):
    def __init__(self, size=0):
        self.size = size

    def batch_size(self, epoch, n_samples):
        return self.size


@pytest.mark.parametrize("size", [0, -3, 2.5, None])
def test_regime_of_the_user_that_returns_no_batch_size(size):
    assert_refused(small(batch_regime=Regime(size)), "batch_size|batch_regime")


# -- data --------------------------------------------------------------------------------------------------------------


def with_value(value):
    X_bad = X.astype(np.float64)
    X_bad[3, 1] = value
    return X_bad


BAD_DATA = {
    "nan": (with_value(np.nan), Y, "Input X contains NaN"),
    "inf": (with_value(np.inf), Y, "Input X contains infinity"),
    "too large for float32": (with_value(1e300), Y, "Input X contains infinity or a value too large"),
    "complex": (X + 1j, Y, "Complex data not supported"),
    "strings": (np.full((60, 4), "a"), Y, "could not convert string to float|dtype='numeric'"),
    "words": (np.full((60, 4), "a", dtype=object), Y, "'a'; encode columns of words first, .* OneHotEncoder in a pip"),
    "one column of words": (np.array([[1.0, "B6"]] * 60, dtype=object), Y, "float: 'B6'; encode columns of words"),
    "sparse tensor": (torch.from_numpy(X).to_sparse(), Y, "sparse_output=False"),
    "sparse labels": (X, scipy.sparse.csr_matrix(Y[:, None]), "sparse_output=False"),
    "1-D": (X[:, 0], Y, "Expected 2D array, got 1D array|Reshape your data"),
    "no rows": (X[:0], Y[:0], "0 sample"),
    "one row": (X[:1], Y[:1], "1 sample|minimum of 2"),
    "no columns": (X[:, :0], Y, "0 feature"),
    "lengths": (X, Y[:-1], "inconsistent numbers of samples: .60, 59."),
    "y of two columns": (X, np.stack([Y, Y], axis=1), "y should be a 1d array"),
    "y is None": (X, None, "requires y to be passed"),
    "y continuous": (X, Y + 0.5 * X[:, 0], "Unknown label type: continuous"),
    "y with nan": (X, np.where(Y == 0, np.nan, Y), "Input y contains NaN"),
    "one class": (X, np.zeros(60, dtype=int), "y must have at least 2 classes; got only one class"),
    "one string class": (X, np.full(60, "a"), "y must have at least 2 classes; got only one class, .*'a'"),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # from scikit-learn's own cast
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    X_bad, y_bad, sentence = BAD_DATA[case]
    CountBatches.seen = 0
    model = small(callbacks=[CountBatches()])
    with pytest.raises((ValueError, TypeError), match=sentence):
        model.fit(X_bad, y_bad)
    assert CountBatches.seen == 0
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_nan_in_a_tensor_and_in_a_list():
    bad = with_value(np.nan)
    for X_bad in (torch.from_numpy(bad), bad.tolist()):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            small().fit(X_bad, Y)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_bad_data_to_predict(method):
    predict = getattr(small().fit(X, Y), method)
    for bad, sentence in [
        (with_value(np.nan), "Input X contains NaN"),
        (with_value(np.inf), "Input X contains infinity"),
        (X[:, :3], "X has 3 features, but LBGapClassifier is expecting 4 features"),
        (X[:, 0], "Expected 2D array, got 1D array|Reshape your data"),
        (X[:, :, None], r"X must have samples of shape \(4,\), as in fit; got \(4, 1\)"),
        (X[:0], "0 sample"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            predict(bad)


def test_images_of_another_size_to_predict():
    images_, y = images()
    model = small().fit(images_, y)
    with pytest.raises(ValueError, match=r"X must have samples of shape \(1, 8, 8\), as in fit; got \(1, 4, 8\)"):
        model.predict(images_[:, :, :4])
    with pytest.raises(ValueError, match="features"):
        model.predict(images_.reshape(len(images_), -1))


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.predict(X),
        lambda model: model.predict_proba(X),
        lambda model: model.score(X, Y),
        lambda model: check_objective(model, X, Y),
    ],
    ids=["predict", "predict_proba", "score", "check_objective"],
)
def test_unfitted(call):
    with pytest.raises(NotFittedError, match="LBGapClassifier instance is not fitted yet"):
        call(small())


def test_unseen_labels_when_measured():
    model = small().fit(X, np.array(["a", "b", "c"])[Y])
    with pytest.raises(ValueError, match=r"y must have the labels seen in fit, \['a' 'b' 'c'\]; got \['z'\] as well"):
        check_objective(model, X, np.array(["a", "b", "z"])[Y])
    with pytest.raises(ValueError, match="X and y must have the same number of samples; got 60 and 59"):
        check_objective(model, X, np.array(["a", "b", "c"])[Y][:-1])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        check_objective(model, with_value(np.nan), np.array(["a", "b", "c"])[Y])


# -- sizes at the edge -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_size", "batch_regime"])
def test_batch_larger_than_the_data_warns_and_is_all_the_data(name):
    with pytest.warns(
        UserWarning, match=r"batch_size=100 is larger than the data, so every batch holds all 60 samples"
    ):
        model = small(**{name: 100}).fit(X, Y)
    assert model.history_[:, "batch_size"] == [60, 60]
    assert same_weights(model, small(batch_size=-1).fit(X, Y))


def test_batch_as_large_as_the_data_does_not_warn():
    assert same_weights(small(batch_size=60).fit(X, Y), small(batch_size=-1).fit(X, Y))


@pytest.mark.parametrize("n", [11, 21, 12, 3, 2])
def test_any_number_of_rows_works_with_batch_norm(n):
    """One row more than a whole number of batches would be a batch of one row."""
    with warnings.catch_warnings():
        if n < 10:
            warnings.filterwarnings("ignore", "batch_size=10 is larger", UserWarning)
        model = small(batch_size=10).fit(X[:n], Y[:n])
    assert model.n_updates_ == 2 * {11: 1, 21: 2, 12: 2, 3: 1, 2: 1}[n]
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("micro", [5, 9, 10, 11])
def test_micro_batches_of_one_row_do_not_happen(micro):
    model = small(batch_size=10, micro_batch_size=micro).fit(X[:21], Y[:21])
    assert np.isfinite(model.train_loss_)


def test_batch_of_one_row_without_batch_norm():
    assert small(net=Mlp, batch_size=1, max_epochs=1).fit(X, Y).n_updates_ == 60


# -- modules that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"net": Mlp, "module__n_out": 2},  # fewer outputs than classes
        {"net": Mlp(n_out=2)},
        {"net": Mlp, "module__n_in": 5},  # other inputs than columns
        {"net": Mlp, "module__n_out": 5},  # more: predict would name classes that do not exist
    ],
    ids=["two outputs", "instance of two outputs", "five inputs", "five outputs"],
)
def test_module_that_does_not_fit_the_data(params):
    with pytest.raises((ValueError, TypeError), match=r"net|module"):
        small(**params).fit(X, Y)


def test_module_class_without_its_arguments():
    class Needy(nn.Module):
        def __init__(self, width):
            super().__init__()

    with pytest.raises(TypeError, match="width"):
        small(net=Needy).fit(X, Y)


def test_remedy_that_needs_no_images_as_augmentation():
    """Only what moves images needs to know their shape."""
    assert same_weights(small(augmentation=Remedy()).fit(X, Y), small().fit(X, Y))


def test_criterion_with_trainable_parameters():
    class Trainable(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(ValueError, match="criterion must not have trainable parameters"):
        small(criterion=Trainable).fit(X, Y)


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")  # torch's own
@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_criterion_of_another_kind(n_classes):
    """Whatever the number of classes: two rows against two classes would broadcast."""
    sentence = r"criterion must take \(outputs, class numbers\); it raised: "
    assert_refused(small(criterion=nn.MSELoss), sentence, y=np.arange(60) % n_classes)


def test_augmentation_that_loses_rows():
    model = small(augmentation=lambda batch: batch[:-1])
    with pytest.raises(ValueError, match="augmentation must return a tensor of 8 samples, as many as its batch has"):
        model.fit(X, Y)


def test_varying_regime_beside_an_iterator_of_the_user():
    class Loader(torch.utils.data.DataLoader):
        pass

    for parts in ({"iterator_train": Loader}, {"iterator_train__pin_memory": False}, {"dataset": Dataset}):
        for params in ({"batch_regime": SwitchBatch()}, {"regime_adaptation": True}):
            sentence = "batch_regime must be constant, and regime_adaptation False, with your own"
            assert_refused(small(**params, **parts), sentence)
