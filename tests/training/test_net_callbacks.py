"""Callbacks, early stopping and Ctrl-C around the net that trains."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping
from torch import nn

from tests.tiny import Mlp, blobs, small, weights

X, Y = blobs()

# A gradient summed in float32 in another order, carried through a few updates.
FLOAT32 = 1e-5


# -- callbacks ---------------------------------------------------------------------------------------------------------


class Record(Callback):
    """Notes what it is told."""

    def __init__(self):
        self.calls = []
        self.gradients = []

    def note(self, name):
        self.calls.append(name)

    def on_train_begin(self, net, **kwargs):
        self.note("train begin")

    def on_train_end(self, net, **kwargs):
        self.note("train end")

    def on_epoch_begin(self, net, **kwargs):
        self.note("epoch begin")

    def on_epoch_end(self, net, **kwargs):
        self.note("epoch end")

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        assert training
        self.note("batch begin")

    def on_batch_end(self, net, batch=None, training=None, loss=None, y_pred=None, **kwargs):
        assert training
        assert len(y_pred) == len(batch[0])
        assert loss.ndim == 0
        self.note("batch end")

    def on_grad_computed(self, net, named_parameters=None, batch=None, training=None, **kwargs):
        self.gradients.append({name: p.grad.clone() for name, p in named_parameters})
        self.note("grad")


def recorded(model):
    return next(callback for _, callback in model.net_.callbacks_ if isinstance(callback, Record))


@pytest.mark.parametrize("stop", [{}, {"target_loss": 100.0}, {"regime_adaptation": True, "max_epochs": 1}], ids=str)
def test_callbacks_are_copied_and_called_to_the_end(stop):
    mine = Record()
    model = small(callbacks=[mine], batch_size=32, **stop).fit(X, Y)
    assert mine.calls == []
    epoch = ["epoch begin", *["batch begin", "grad", "batch end"] * 2, "epoch end"]
    n_epochs = {"target_loss": 1, "regime_adaptation": 4}.get(next(iter(stop), ""), 2)
    assert model.n_iter_ == n_epochs
    assert recorded(model).calls == ["train begin", *epoch * n_epochs, "train end"]


def test_gradient_that_callbacks_see_is_the_one_used():
    model = small(callbacks=[Record()], net=Mlp, batch_size=-1, optimizer=torch.optim.SGD, lr=0.5).fit(X, Y)
    moved = {name: value.clone() for name, value in model.net_.module_start_.items()}
    for gradient in recorded(model).gradients:
        for name, value in moved.items():
            value.sub_(0.5 * gradient[name])
    for name, value in weights(model).items():
        torch.testing.assert_close(value, moved[name], rtol=FLOAT32, atol=FLOAT32)


def test_gradient_may_be_changed_by_a_callback():
    """skorch's clipping: with SGD and learning rate 1 no update is longer than the bound."""
    clipped = small(
        callbacks=[GradientNormClipping(1e-3)], net=Mlp, optimizer=torch.optim.SGD, lr=1.0, batch_size=-1, max_epochs=1
    ).fit(X, Y)
    assert clipped.history_[-1, "weight_distance"] == pytest.approx(1e-3, rel=1e-3)


class WriteBatches(Callback):
    def on_batch_end(self, net, **kwargs):
        net.history.record_batch("mine", 1)


def test_history_has_rows_of_batches_only_where_a_callback_may_read_them():
    plain, writing = (small(callbacks=callbacks).fit(X, Y) for callbacks in (None, [WriteBatches()]))
    assert plain.history_[:, "batches"] == [[], []]
    rows = writing.history_[:, "batches"]
    assert [[row["mine"] for row in epoch] for epoch in rows] == [[1] * 8] * 2
    assert [[row["train_batch_size"] for row in epoch] for epoch in rows] == [[8] * 7 + [4]] * 2
    for epoch, row in enumerate(writing.history_):
        losses, sizes = zip(*((b["train_loss"], b["train_batch_size"]) for b in rows[epoch]), strict=True)
        assert np.average(losses, weights=sizes) == pytest.approx(row["train_loss"], rel=1e-6)
    assert plain.history_[:, "train_batch_count"] == writing.history_[:, "train_batch_count"] == [8, 8]


def test_early_stopping_of_skorch_ends_training_in_order():
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs", sink=lambda text: None)
    record = Record()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no ConvergenceWarning: that the training ended is meant
        model = small(callbacks=[record, stop], max_epochs=30, tol=1e-9).fit(X, Y)
    assert model.n_iter_ == 3  # the first is the best; two more are not better by 1e9
    assert recorded(model).calls[-2:] == ["epoch end", "train end"]
    assert model.train_score_ == model.score(X, Y)
    assert not model.converged_


# -- interrupts --------------------------------------------------------------------------------------------------------


class Interrupted(Mlp):
    """Raises KeyboardInterrupt in its n-th forward pass, as if Ctrl-C had been pressed during it."""

    def __init__(self, at=None, n_in=4, n_out=3):
        super().__init__(n_in, n_out)
        self.at = at
        self.calls = 0

    def forward(self, X):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().forward(X)


@pytest.mark.parametrize("at", [9, 12, 16])
@pytest.mark.parametrize("norm", [False, True])
def test_interrupt_leaves_a_fitted_model_and_is_raised(at, norm):
    """8 batches an epoch: the interrupt comes in the first, a middle, or the last batch of the second epoch."""
    net = nn.Sequential(nn.BatchNorm1d(4), Interrupted(at)) if norm else Interrupted(at)
    model = small(net=net, max_epochs=5, tol=1e-4, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y)
    check_is_fitted(model)
    assert model.n_iter_ in (1, 2)
    assert np.isfinite(model.train_loss_)
    assert model.train_score_ == model.score(X, Y)
    assert model.predict(X).shape == (60,)
    assert model.n_updates_ in (at - 1, at)  # the weights reached
    assert not model.converged_
    before = len(model.history_)
    model.set_params(tol=None, max_epochs=2).fit(X, Y)  # and training can go on
    assert len(model.history_) >= before + 1
    assert np.isfinite(model.train_loss_)


class Press(Callback):
    """Raises KeyboardInterrupt in a hook of the n-th batch: Ctrl-C during a callback."""

    def __init__(self, hook, at):
        self.at = at
        self.calls = 0
        setattr(self, hook, self.press)

    def press(self, net, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_grad_computed", "on_batch_end"])
def test_interrupt_during_a_callback_is_ctrl_c(hook):
    model = small(callbacks=[Press(hook, at=12)], max_epochs=5, tol=1e-4)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    check_is_fitted(model)
    assert model.n_iter_ == len(model.history_) == 1
    assert not model.converged_
    assert model.train_score_ == model.score(X, Y)
    first = small(callbacks=[Press(hook, at=3)])
    with pytest.raises(KeyboardInterrupt):
        first.fit(X, Y)
    with pytest.raises(NotFittedError):
        first.predict(X)


def test_interrupt_in_the_first_epoch_of_another_fit():
    """What must not be: scores of one fit beside weights of another."""
    model = small().fit(X, Y)
    expected = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[Press("on_batch_end", at=3)], random_state=1).fit(X, Y)
    try:
        proba = model.predict_proba(X)
    except NotFittedError:
        return
    np.testing.assert_array_equal(proba, expected)
    assert model.n_iter_ == len(model.history_) == 2


def test_interrupt_in_the_first_epoch_is_raised():
    model = small(net=Interrupted(3))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)


def test_interrupt_leaves_the_global_generator_alone():
    model = small(net=Interrupted(12))
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert torch.equal(torch.get_rng_state(), state)
