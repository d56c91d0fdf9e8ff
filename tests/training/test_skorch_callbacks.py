"""skorch's own callbacks around the net that trains: as with plain skorch, with and without a validation set."""

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LoadInitState,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
)
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import WeightAveraging
from sklgap.remedies import SAM
from tests.tiny import Mlp, blobs, same_weights, small, weights

X, Y = blobs()
SPLITS = {"without": None, "with": ValidSplit(4, stratified=True)}
# The same sums in another order.
ROUNDING = 1e-5


class Lines(list):
    def __call__(self, text):
        self.append(text)


ALIKE = {
    "batches": lambda: BatchScoring("accuracy", on_train=True, name="seen", lower_is_better=False),
    "epochs": lambda: EpochScoring("accuracy", on_train=True, name="seen", lower_is_better=False),
    "epochs again": lambda: EpochScoring("accuracy", on_train=True, name="seen", use_caching=False),
    "several classes": lambda: EpochScoring("roc_auc_ovr", on_train=True, name="seen", lower_is_better=False),
    "losses": lambda: EpochScoring(mean_of_batches, on_train=True, name="seen"),
}


def mean_of_batches(net, X, y):
    rows = net.history[-1, "batches", :, ["train_loss", "train_batch_size"]]
    return np.average([loss for loss, _ in rows], weights=[size for _, size in rows])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", ALIKE)
def test_scores_are_those_of_plain_skorch(case, split):
    torch.manual_seed(0)
    module = Mlp()
    params = {"batch_size": -1, "max_epochs": 3, "lr": 0.1, "optimizer": torch.optim.SGD, "train_split": SPLITS[split]}
    ours = small(net=module, callbacks=[ALIKE[case]()], **params).fit(X, Y).history_
    nets = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, callbacks=[ALIKE[case]()], verbose=0, **params
    )  # skorch trains the module itself
    theirs = nets.fit(X, Y.astype(np.int64)).history
    columns = ["seen", "seen_best", "train_loss", "train_loss_best"]
    for column in columns + (["valid_loss", "valid_acc"] if SPLITS[split] else []):
        assert ours[:, column] == pytest.approx(theirs[:, column], rel=ROUNDING), column


def second(net):
    return len(net.history) == 2


@pytest.mark.parametrize(
    ("monitor", "split"),
    [(monitor, split) for monitor in (None, "train_loss_best", second) for split in SPLITS]
    + [("valid_loss_best", "with")],
)
def test_checkpoints_hold_the_weights_of_their_epoch(monitor, split, tmp_path):
    saving = Checkpoint(dirname=str(tmp_path), monitor=monitor, f_params="{last_epoch[epoch]}.pt")
    params = {"net": Mlp, "train_split": SPLITS[split], "callbacks": [saving]}
    model = small(max_epochs=3, **params).fit(X, Y)
    saved = [epoch for epoch, event in enumerate(model.history_[:, "event_cp"], start=1) if event]
    assert saved
    for epoch in saved:
        of_epoch = torch.load(tmp_path / f"{epoch}.pt", weights_only=True)
        shorter = weights(small(max_epochs=epoch, **params).fit(X, Y))
        assert all(torch.equal(of_epoch[name], value) for name, value in shorter.items())


def test_the_best_weights_are_loaded_at_the_end(tmp_path):
    saving = Checkpoint(dirname=str(tmp_path), monitor="valid_loss_best", load_best=True)
    params = {"net": Mlp, "train_split": ValidSplit(4), "optimizer": torch.optim.SGD, "lr": 3.0, "random_state": 1}
    model = small(max_epochs=8, callbacks=[saving], **params).fit(X, Y)
    best = 1 + int(np.argmin(small(max_epochs=8, **params).fit(X, Y).history_[:, "valid_loss"]))
    assert model.n_iter_ == best < 8
    shorter = small(max_epochs=best, **params).fit(X, Y)
    assert same_weights(model, shorter)
    assert model.n_updates_ == shorter.n_updates_


def test_the_whole_net_is_saved(tmp_path):
    saving = Checkpoint(dirname=str(tmp_path), monitor=None, f_pickle="net.pkl")
    model = small(net=Mlp, callbacks=[saving]).fit(X, Y)
    with open(tmp_path / "net.pkl", "rb") as file:
        net = pickle.load(file)
    np.testing.assert_array_equal(net.predict(X), model.predict(X))


def test_weights_at_the_end_are_saved(tmp_path):
    model = small(net=Mlp, callbacks=[TrainEndCheckpoint(dirname=str(tmp_path))]).fit(X, Y)
    saved = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in weights(model).items())


@pytest.mark.parametrize("kind", [Checkpoint, TrainEndCheckpoint])
def test_a_training_goes_on_from_a_checkpoint(kind, tmp_path):
    saving = kind(dirname=str(tmp_path), **({"monitor": None} if kind is Checkpoint else {}))
    params = {"net": Mlp, "callbacks": [("saving", saving), ("loading", LoadInitState(saving))], "batch_size": 20}
    first = small(max_epochs=2, **params).fit(X, Y)
    second = small(max_epochs=3, **params).fit(X, Y)
    assert (first.n_iter_, second.n_iter_) == (2, 5)
    whole = small(max_epochs=5, net=Mlp, batch_size=20).fit(X, Y)
    assert same_weights(second, whole)
    assert second.n_updates_ == whole.n_updates_
    for column in ("train_loss", "n_updates", "weight_distance", "train_loss_best"):
        assert second.history_[:, column] == whole.history_[:, column]


@pytest.mark.parametrize("split", SPLITS)
def test_bar_log_and_early_stopping(split, capsys):
    lines = Lines()
    callbacks = [PrintLog(sink=lines), ProgressBar(), EarlyStopping(monitor="train_loss", patience=2, threshold=10.0)]
    model = small(net=Mlp, callbacks=callbacks, train_split=SPLITS[split], max_epochs=9).fit(X, Y)
    assert model.n_iter_ == 3  # two without improvement after the first
    assert "/8 [" in capsys.readouterr().err  # batches of 8: those of one epoch
    log = dict(model.net_.callbacks_)["PrintLog"].sink
    assert len(log) == 2 + model.n_iter_ - 1  # the log comes last, after the callback that stops the training
    assert "train_loss" in log[0]


@pytest.mark.parametrize("split", SPLITS)
def test_losses_of_batches_can_be_passed_on(split):
    twice = PassthroughScoring("train_loss", on_train=True)
    model = small(net=Mlp, callbacks=[twice], train_split=SPLITS[split]).fit(X, Y)
    plain = small(net=Mlp, train_split=SPLITS[split]).fit(X, Y)
    assert model.history_[:, "train_loss"] == pytest.approx(plain.history_[:, "train_loss"], rel=1e-6)
    assert same_weights(model, plain)


def test_best_losses_are_marked():
    history = small(net=Mlp, optimizer=torch.optim.SGD, lr=5.0, max_epochs=12).fit(X, Y).history_
    losses = history[:, "train_loss"]
    assert history[:, "train_loss_best"] == [loss < min([np.inf, *losses[:i]]) for i, loss in enumerate(losses)]
    assert False in history[:, "train_loss_best"]


# -- rates -------------------------------------------------------------------------------------------------------------


class Watched(torch.optim.SGD):
    """Notes the rates of its last group at every step."""

    def step(self, closure=None):
        self.__dict__.setdefault("rates", []).append(self.param_groups[-1]["lr"])
        return super().step(closure)


RATES = {
    "plain": {},
    "per batch": {"callbacks": [LRScheduler("StepLR", step_size=1, gamma=0.5, step_every="batch")]},
    "per epoch": {"callbacks": [LRScheduler("StepLR", step_size=1, gamma=0.5)]},
    "plateau": {"callbacks": [LRScheduler("ReduceLROnPlateau", monitor="train_loss", patience=0, threshold=1e9)]},
    "warmup": {"lr_scaling": "linear", "base_batch_size": 5, "lr_warmup_epochs": 2},
    "milestones": {"lr_milestones": (1, 2)},
    "both": {
        "lr_scaling": "sqrt",
        "base_batch_size": 5,
        "callbacks": [LRScheduler("ExponentialLR", gamma=0.7, step_every="batch")],
    },
    "inner steps": {"remedies": (SAM(),), "proximal_lambda": 0.1},
    "groups": {"optimizer__param_groups": [("*.bias", {"lr": 7.0})], "lr_scaling": "linear", "base_batch_size": 5},
    "own loader": {
        "iterator_train__shuffle": False,
        "callbacks": [LRScheduler("StepLR", step_size=1, gamma=0.5, step_every="batch")],
    },
}


@pytest.mark.parametrize("case", RATES)
def test_rate_in_the_history_is_that_of_the_last_update(case):
    model = small(net=Mlp, optimizer=Watched, lr=0.1, batch_size=20, max_epochs=3, **RATES[case]).fit(X, Y)
    rates, n_updates = model.net_.optimizer_.rates, model.history_[:, "n_updates"]
    assert model.history_[:, "lr"] == pytest.approx([rates[n - 1] for n in n_updates], rel=1e-12)


# -- errors ------------------------------------------------------------------------------------------------------------


class Fails(Callback):
    """Fails at the end of the training, as where a disk is full."""

    def __init__(self, error=RuntimeError):
        self.error = error

    def on_train_end(self, net, **kwargs):
        raise self.error("the disk is full")


class Ends(Callback):
    def on_train_end(self, net, **kwargs):
        self.ended = True


ENDINGS = {
    "plain": {},
    "split": {"train_split": ValidSplit(4)},
    "F1": {"net": "F1", "module__width": 8, "module__n_layers": 2},
    "sam": {"remedies": ("sam",)},
}


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("case", ENDINGS)
def test_a_callback_that_fails_at_the_end_loses_nothing(case, error):
    params = {"net": Mlp, **ENDINGS[case]}
    model = small(callbacks=[Fails(error), ("last", Ends())], **params)
    with pytest.raises(error, match="the disk is full"):
        model.fit(X, Y)
    plain = small(**params).fit(X, Y)
    assert same_weights(model, plain)
    assert (model.train_score_, model.train_loss_) == (plain.train_score_, plain.train_loss_)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    assert dict(model.net_.callbacks_)["last"].ended


def test_the_average_is_in_place_though_another_callback_fails():
    averaging = WeightAveraging(start=0.0)
    model = small(net=Mlp, callbacks=[Fails(), averaging], max_epochs=4)
    with pytest.raises(RuntimeError, match="full"):
        model.fit(X, Y)
    assert same_weights(model, small(net=Mlp, callbacks=[averaging], max_epochs=4).fit(X, Y))


def test_the_next_fit_does_not_remember_the_error():
    model = small(net=Mlp, callbacks=[Fails()], warm_start=True)
    with pytest.raises(RuntimeError, match="full"):
        model.fit(X, Y)
    dict(model.net_.callbacks_)["Fails"].on_train_end = lambda net, **kwargs: None
    assert model.fit(X, Y).n_iter_ == 4


def test_a_fit_whose_end_failed_is_not_saved_as_finished(tmp_path):
    params = {"net": Mlp, "memory": tmp_path}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="full"):
            small(callbacks=[Fails()], **params).fit(X, Y)
    assert not list(tmp_path.glob("*.fit"))


def test_an_error_in_the_training_leaves_the_estimator_as_it_was():
    class FailsEarly(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("in the middle")

    model = small(net=Mlp, callbacks=[FailsEarly()])
    with pytest.raises(RuntimeError, match="in the middle"):
        model.fit(X, Y)
    assert not hasattr(model, "net_")
