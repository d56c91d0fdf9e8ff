"""Stochastic weight averaging through the estimator, against torch's own ``AveragedModel``."""

import copy
import pickle
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch.optim.swa_utils import AveragedModel, update_bn

from sklgap.remedies import SAM
from sklgap.training import WeightAveraging
from tests.cases import BIT_FOR_BIT
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small, weights

X, Y = blobs()
IMAGES, IMAGE_Y = images()

# A running mean in float32; the weights of two epochs differ by a hundred times as much.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


class Reference(Callback):
    """Feeds torch's AveragedModel at the ends of the epochs given, counted from 1."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, net, **kwargs):
        if not hasattr(self, "model_"):
            self.model_ = AveragedModel(net.module_)
        if len(net.history) in self.epochs:
            self.model_.update_parameters(net.module_)


def callback(model, kind):
    return next(c for _, c in model.net_.callbacks_ if isinstance(c, kind))


def averaged(start=0.75, every=1, others=(), **params):
    return small(callbacks=[*others, ("averaging", WeightAveraging(start, every))], **params)


CASES = {
    "f1": {},
    "no batch norm": {"net": Mlp},
    "dropout": {"net": TinyC1, "input_shape": (1, 8, 8)},
    "sam": {"remedies": [SAM()], "batch_size": 20},
    "class": {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.9},
}


SCHEDULES = [
    (0.75, 1, [6, 7, 8]),
    (0.7, 1, [6, 7, 8]),  # 5.6 epochs
    (0.5, 2, [4, 6, 8]),
    (0.0, 1, [1, 2, 3, 4, 5, 6, 7, 8]),
    (0, 3, [1, 4, 7]),
    (3, 1, [3, 4, 5, 6, 7, 8]),
    (1.0, 1, [8]),
    (8, 5, [8]),
]


# When to average does not depend on what is averaged: all schedules with one net, two with every other.
@pytest.mark.parametrize(
    ("case", "start", "every", "epochs"),
    [("f1", *schedule) for schedule in SCHEDULES]
    + [(case, *SCHEDULES[i]) for n, case in enumerate(list(CASES)[1:]) for i in (n, n + 4)],
)
def test_against_torch(case, start, every, epochs):
    """The weights are torch's average, and batch norm has the statistics that one more pass gives."""
    data = (IMAGES.reshape(40, -1), IMAGE_Y) if "input_shape" in CASES[case] else (X, Y)
    model = averaged(start, every, [Reference(epochs)], max_epochs=8, **CASES[case]).fit(*data)
    reference = callback(model, Reference).model_.module
    torch.testing.assert_close(dict(model.module_.named_parameters()), dict(reference.named_parameters()), **ROUNDING)
    assert callback(model, WeightAveraging).n_averaged_ == len(epochs)
    rows = torch.from_numpy(data[0]).reshape(len(data[0]), *model.net_.encoding_.net_shape)
    swa = AveragedModel(reference)
    update_bn([rows], swa.eval())
    for name, value in model.module_.named_buffers():
        if "num_batches" not in name:
            # torch's running variance divides by n - 1, the population's by n.
            torch.testing.assert_close(value, dict(swa.module.named_buffers())[name], rtol=0.03, atol=1e-5)
    assert model.train_score_ == model.score(*data)


def test_it_changes_nothing_of_the_training():
    plain, with_average = small(max_epochs=4).fit(X, Y), averaged(0.5, max_epochs=4).fit(X, Y)
    for column in ("train_loss", "weight_distance", "lr"):
        assert plain.history_[:, column] == with_average.history_[:, column]
    assert not same_weights(plain, with_average)
    last = callback(with_average, WeightAveraging).last_
    torch.testing.assert_close(last, dict(plain.module_.named_parameters()), **BIT_FOR_BIT)


def test_the_last_weights_alone_are_plain_training():
    assert same_weights(averaged(1.0, max_epochs=3).fit(X, Y), small(max_epochs=3).fit(X, Y))


@pytest.mark.parametrize("recompute", [True, False])
def test_batch_norm_is_recomputed_in_any_case(recompute):
    model = averaged(0.5, recompute_batch_norm=recompute, max_epochs=4).fit(X, Y)
    assert same_weights(model, averaged(0.5, max_epochs=4).fit(X, Y))


def test_batch_norm_stays_as_asked_where_nothing_was_averaged():
    params = {"recompute_batch_norm": False, "max_epochs": 3}
    with pytest.warns(UserWarning, match="averaged nothing"):
        model = averaged(9, **params).fit(X, Y)
    assert same_weights(model, small(**params).fit(X, Y))


@pytest.mark.parametrize("batch_size", [8, 30])
def test_a_fraction_is_one_of_the_updates_with_regime_adaptation(batch_size):
    """60 rows, base 8: 4 epochs of the base are 32 updates, whatever the batch; half of them are 16."""
    model = averaged(0.5, regime_adaptation=True, batch_size=batch_size, max_epochs=4).fit(X, Y)
    per_epoch = {8: 8, 30: 2}[batch_size]
    assert callback(model, WeightAveraging).n_averaged_ == 16 // per_epoch + 1


# -- how training may end ----------------------------------------------------------------------------------------------


def test_never_reached_warns_and_leaves_the_weights():
    with pytest.warns(
        UserWarning, match=r"averaged nothing, because training ended after 3 epochs, before start=7; .* last"
    ):
        model = averaged(7, max_epochs=3).fit(X, Y)
    assert same_weights(model, small(max_epochs=3).fit(X, Y))


def test_stopped_by_the_rule_before_the_start():
    params = {"net": Mlp, "optimizer": torch.optim.SGD, "lr": 1e-30, "tol": 1e-4, "n_iter_no_change": 3}
    with pytest.warns(UserWarning, match=r"training ended after 4 epochs, before start=0\.75"):
        averaged(max_epochs=50, **params).fit(X, Y)


def test_stopped_by_the_rule_after_the_start():
    losses = small(max_epochs=6).fit(X, Y).history_[:, "train_loss"]
    model = averaged(3, [], [Reference([3, 4, 5])], max_epochs=20, target_loss=losses[4])
    model.set_params(callbacks__averaging__every=1).fit(X, Y)
    assert model.n_iter_ == 5
    reference = callback(model, Reference).model_.module
    torch.testing.assert_close(dict(model.module_.named_parameters()), dict(reference.named_parameters()), **ROUNDING)


@pytest.mark.parametrize("last", [False, True])
def test_early_stopping_of_skorch_on_either_side_of_it(last):
    """The callback that stops keeps those after it from seeing the end of the epoch."""
    stop = EarlyStopping("train_loss", patience=2, threshold=1e9, threshold_mode="abs", sink=lambda text: None)
    model = averaged(2, 1, [Reference([2, 3]), stop] if last else [], max_epochs=30)
    if not last:
        model.set_params(callbacks=[*model.callbacks, Reference([2, 3]), stop])
    model.fit(X, Y)
    assert model.n_iter_ == 3
    assert callback(model, WeightAveraging).n_averaged_ == 2
    reference = callback(model, Reference).model_.module
    torch.testing.assert_close(dict(model.module_.named_parameters()), dict(reference.named_parameters()), **ROUNDING)


class Press(Callback):
    """Ctrl-C in a batch."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def on_batch_end(self, net, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_the_average_so_far_and_training_can_go_on():
    model = averaged(1, 1, [Press(3 * 8 + 4), Reference([1, 2, 3])], max_epochs=5, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y)
    assert model.n_iter_ == 3
    reference = callback(model, Reference).model_.module
    torch.testing.assert_close(dict(model.module_.named_parameters()), dict(reference.named_parameters()), **ROUNDING)
    reached = callback(model, WeightAveraging).last_
    model.set_params(max_epochs=1, callbacks=None).fit(X, Y)
    assert model.n_iter_ == 4
    assert callback(model, WeightAveraging).n_averaged_ == 4
    assert np.isfinite(model.train_loss_)
    # It went on from the weights reached: one epoch of Adam moves a weight by 8 times the rate at most, or nearly so.
    moved = callback(model, WeightAveraging).last_
    assert max((moved[name] - w).abs().max() for name, w in reached.items()) < 0.1


def test_ctrl_c_before_the_start_leaves_the_weights_reached():
    model = averaged(4, 1, [Press(2 * 8 + 4)], max_epochs=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y)
    assert model.n_iter_ == 2
    assert model.train_score_ == model.score(X, Y)


# -- further fits, copies, searches ------------------------------------------------------------------------------------


RESUMED = {"optimizer__weight_decay": 0.01, "lr": 0.05}


@cache
def uninterrupted(start, every):
    return averaged(start, every, max_epochs=6, **RESUMED).fit(X, Y)


@pytest.mark.parametrize("between", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(("start", "every"), [(0, 1), (3, 1), (1, 2)])
def test_a_resumed_training_is_the_uninterrupted_one(between, start, every):
    whole = uninterrupted(start, every)
    model = averaged(start, every, max_epochs=4, warm_start=True, **RESUMED).fit(X, Y)
    first = weights(model)
    model = between(model)
    model.set_params(max_epochs=2).fit(X, Y)
    assert same_weights(model, whole)
    assert model.history_[:, "train_loss"] == whole.history_[:, "train_loss"]
    assert not torch.equal(first["layers.1.weight"], weights(model)["layers.1.weight"])


def test_a_fraction_begins_a_new_average_in_every_fit():
    model = averaged(0.5, max_epochs=4, warm_start=True).fit(X, Y).fit(X, Y)
    assert callback(model, WeightAveraging).n_averaged_ == 3  # epochs 6, 7 and 8
    torch.testing.assert_close(weights(model), weights(averaged(6, max_epochs=8).fit(X, Y)), **ROUNDING)


def test_a_further_fit_that_averages_nothing_has_plain_weights():
    model = averaged(0.5, max_epochs=2, warm_start=True).fit(X, Y)
    assert model.net_.weights_averaged_
    with pytest.warns(UserWarning, match="averaged nothing"):
        model.set_params(max_epochs=5, target_loss=100.0).fit(X, Y)
    assert not model.net_.weights_averaged_
    assert same_weights(model, small(max_epochs=3).fit(X, Y))


def test_weights_that_something_else_has_set_are_kept():
    model = averaged(0.5, max_epochs=2, lr=1e-30, optimizer=torch.optim.SGD, net=Mlp, warm_start=True).fit(X, Y)
    with torch.no_grad():
        model.module_.layers[0].weight.fill_(0.5)
    model.fit(X, Y)
    assert (model.module_.layers[0].weight == 0.5).all()


def test_the_users_callback_is_left_alone():
    mine = WeightAveraging(0.5)
    for model in (small(callbacks=[mine]), small(callbacks=[WeightAveraging()], callbacks__WeightAveraging=mine)):
        before = copy.deepcopy(vars(mine))
        model.fit(X, Y)
        assert vars(mine) == before


def test_grid_search_over_its_parameters_and_over_having_it():
    grid = {"callbacks__averaging__start": [0.5, 1], "callbacks__averaging__every": [1, 2]}
    search = GridSearchCV(averaged(), grid, cv=2, error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    grid = {"callbacks__averaging": [None, WeightAveraging(0.5)]}
    search = GridSearchCV(averaged(), grid, cv=2, error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 2
    assert same_weights(averaged(callbacks__averaging=None).fit(X, Y), small().fit(X, Y))
    with pytest.raises(TypeError, match=r"callbacks__avreaging does not name one of the callbacks .*'averaging'"):
        averaged(callbacks__avreaging=None).fit(X, Y)


def test_clone_has_the_parameters_and_no_average():
    model = averaged(0.5, 2, max_epochs=4).fit(X, Y)
    copied = clone(model)
    ((_, averaging),) = copied.callbacks
    assert averaging.get_params() == {"start": 0.5, "every": 2}
    assert same_weights(copied.fit(X, Y), model)


def test_repeatable_beside_a_schedule():
    models = [averaged(0.5, 1, [LRScheduler("StepLR", step_size=2)], max_epochs=4).fit(X, Y) for _ in range(2)]
    assert same_weights(*models)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"start": -1}, r"start must be a fraction of the training in \[0, 1\], or an integer of at least 0; got -1"),
        ({"start": 1.5}, r"start must be a fraction .*; got 1\.5"),
        ({"start": float("nan")}, "start must be a fraction .*; got nan"),
        ({"start": True}, "start must be a fraction .*; got True"),
        ({"start": None}, "start must be a fraction .*; got None"),
        ({"every": 0}, "every must be an integer of at least 1; got 0"),
        ({"every": 1.5}, r"every must be an integer of at least 1; got 1\.5"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        small(callbacks=[WeightAveraging(**params)]).fit(X, Y)


def test_another_net():
    net = NeuralNetClassifier(Mlp, callbacks=[WeightAveraging()], max_epochs=1, train_split=None)
    with pytest.raises(TypeError, match="WeightAveraging needs the net of an LBGapClassifier; got NeuralNetClassifier"):
        net.fit(X, Y)
